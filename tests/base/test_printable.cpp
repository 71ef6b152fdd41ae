// Names of any bytes, for people and for shells.
#include "llmc/base/printable.h"

#include "llmc/base/utf8.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

namespace llmc {
namespace {

TEST(Printable, LeavesTextAsItIs) {
    for (const char* text : {"", "runs/a", "two words", "naïve 文字 🙂", "a\tb\nc"})
        EXPECT_EQ(printable(text), text);
}

TEST(Printable, EscapesWhatNoTerminalShows) {
    EXPECT_EQ(printable("r\xff\xfen"), "r\\xff\\xfen");
    EXPECT_EQ(printable("\x1b[31mred\x7f"), "\\x1b[31mred\\x7f");
    EXPECT_EQ(printable("caf\xe9 and \xe2\x82"), "caf\\xe9 and \\xe2\\x82");
}

/// What bash makes of the word.
std::string after_bash(const std::string& word) {
    std::FILE* pipe = popen(("bash <<'EOF'\nprintf %s " + word + "\nEOF\n").c_str(), "r");
    std::string text;
    std::array<char, 256> buffer;
    for (size_t bytes; (bytes = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) text.append(buffer.data(), bytes);
    pclose(pipe);
    return text;
}

TEST(Printable, AWordOfTheShellIsReadBackToTheByte) {
    EXPECT_EQ(shell_word("runs/a-1_2.3"), "runs/a-1_2.3");
    for (const char* name : {"runs/a", "two words", "it's", "$HOME", "~", "~/x", "a\nb", "\\", "r\xff\xfe'n\\", "", "*",
                             "\x1b[0m", "naïve", "-x", "a;b", "`c`", "\"d\""}) {
        const std::string word = shell_word(name);
        EXPECT_EQ(after_bash(word), name) << word;
        EXPECT_EQ(printable(word), word) << "to be shown as it is";
        EXPECT_EQ(word.find('\n'), std::string::npos) << "one line";
    }
}

}  // namespace
}  // namespace llmc
