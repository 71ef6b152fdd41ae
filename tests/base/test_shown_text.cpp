// What a terminal shows of a model's text, and a pipe gets.
#include "llmc/base/shown_text.h"

#include <gtest/gtest.h>

#include <string>

namespace llmc {
namespace {

std::string in_parts(const std::string& text, size_t step, bool is_terminal) {
    ShownText shown(is_terminal);
    std::string all;
    for (size_t i = 0; i < text.size(); i += step) all += shown.add(std::string_view(text).substr(i, step));
    return all + shown.finish();
}

TEST(ShownText, ATerminalObeysNothingAndAPipeGetsTheBytes) {
    const std::string text = std::string("naïve \U0001F642\n\x1b[31m\x0e") + '\0' + "caf\xe9 \x80\xf0\x9f";
    const std::string escaped = "naïve \U0001F642\n\\x1b[31m\\x0e\\x00caf\\xe9 \\x80\\xf0\\x9f";
    for (const size_t step : {1, 2, 3, 100}) {
        EXPECT_EQ(in_parts(text, step, /*is_terminal=*/true), escaped) << step;
        EXPECT_EQ(in_parts(text, step, /*is_terminal=*/false), text) << step;
    }
}

TEST(ShownText, ACharacterIsShownOnceItIsWhole) {
    ShownText shown(/*is_terminal=*/true);
    EXPECT_EQ(shown.add("a\xc3"), "a");
    EXPECT_EQ(shown.add("\xa9"), "é");
    EXPECT_EQ(shown.add("\xe2\x82"), "");
    EXPECT_EQ(shown.add("x"), "\\xe2\\x82x");
    EXPECT_EQ(shown.finish(), "");
}

}  // namespace
}  // namespace llmc
