#include "llmc/io/pipeline/added_tokens.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

AddedToken token(int32_t id, const char* text) {
    AddedToken made;
    made.id = id;
    made.text = text;
    return made;
}

/// "a[7]b": text, and ids in brackets.
std::string found(const std::vector<AddedToken>& tokens, std::string_view text, bool special_as_text = false) {
    std::string all;
    AddedTokenFinder(tokens).split(
        text, special_as_text,
        [&](size_t begin, size_t end) { all.append("(").append(text.substr(begin, end - begin)).append(")"); },
        [&](int32_t id) { all += std::to_string(id); });
    return all;
}

TEST(AddedTokens, TheLongestOfTheLeftmost) {
    const std::vector<AddedToken> tokens = {token(1, "<a"), token(2, "<ab>"), token(3, "b>c"), token(4, "<abc")};
    EXPECT_EQ(found(tokens, "x<ab>c<ab"), "(x)2(c)1(b)");
    EXPECT_EQ(found(tokens, "<<a<abc>"), "(<)14(>)");
    EXPECT_EQ(found(tokens, ""), "");
    EXPECT_EQ(found({}, "<a"), "(<a)");
}

TEST(AddedTokens, WhiteSpaceAround) {
    AddedToken left = token(1, "<l>"), right = token(2, "<r>");
    left.lstrip = right.rstrip = true;
    EXPECT_EQ(found({left, right}, "a \n<l> b <r>\u3000 c"), "(a)1( b )2(c)");
    EXPECT_EQ(found({left, right}, "  <l><r>  <l>"), "121");
}

TEST(AddedTokens, SingleWords) {
    AddedToken word = token(1, "fox");
    word.single_word = true;
    EXPECT_EQ(found({word},
                    "fox foxes \u4e2d"
                    "fox fox\u0301 -fox_ fox"),
              "1( foxes \u4e2d"
              "fox fox\u0301 -fox_ )1");
}

TEST(AddedTokens, SpecialOnesAsText) {
    AddedToken special = token(1, "<s>");
    special.special = true;
    const std::vector<AddedToken> tokens = {special, token(2, "s>"), token(3, "x")};
    EXPECT_EQ(found(tokens, "<s>xs>", true), "(<s>)32");  // Nothing is found inside its name.
    EXPECT_EQ(found(tokens, "<s>xs>", false), "132");
}

TEST(AddedTokens, Cuts) {
    AddedToken left = token(1, "<l>");
    left.lstrip = true;
    const AddedTokenFinder finder({left, token(2, "a b")});
    const std::string text = "xa b c  <l> d";
    EXPECT_TRUE(finder.minds_cut(text, 2));
    EXPECT_FALSE(finder.minds_cut(text, 5));
    EXPECT_TRUE(finder.minds_cut(text, 6));
    EXPECT_FALSE(AddedTokenFinder().minds_cut(text, 2));
}

}  // namespace
}  // namespace llmc
