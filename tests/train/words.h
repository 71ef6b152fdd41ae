// Command lines for tests of options: words as a shell hands them over.
#pragma once

#include "llmc/base/error.h"
#include "llmc/train/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmc {

using Words = std::vector<std::string>;

inline Options parse(const Words& words) {
    std::vector<const char*> argv = {"train_gpt"};
    for (const std::string& word : words) argv.push_back(word.c_str());
    return parse_options(static_cast<int>(argv.size()), argv.data());
}

/// The message with which the words are refused as bad usage; "" if they are not.
inline std::string refusal(const Words& words) {
    try {
        parse(words);
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage) << error.what();
        const std::string message = error.what();
        EXPECT_EQ(message.find('\n'), std::string::npos) << message;
        return message;
    }
    return "";
}

}  // namespace llmc
