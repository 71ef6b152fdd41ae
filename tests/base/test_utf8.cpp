#include "llmc/base/utf8.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(Utf8, BytesThatAreNoneAreReplaced) {
    EXPECT_EQ(as_utf8("plain"), "plain");
    EXPECT_EQ(as_utf8("Öl €5 🙂"), "Öl €5 🙂");
    EXPECT_EQ(as_utf8("a\xff"
                      "b"),
              "a\uFFFDb");
    EXPECT_EQ(as_utf8("\xe2\x82"), "\uFFFD\uFFFD");  // The beginning of a character that was cut.
    EXPECT_EQ(as_utf8(""), "");
}

TEST(Utf8, WhatFitsIsCountedInCharacters) {
    EXPECT_EQ(first_characters("Öl €5 🙂!", 7), "Öl €5 🙂");
    EXPECT_EQ(first_characters("abc", 10), "abc");
    EXPECT_EQ(first_characters("abc", 0), "");
}

}  // namespace
}  // namespace llmc
