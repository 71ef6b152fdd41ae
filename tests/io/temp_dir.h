// A folder for a test's files, and shorthands for making files and for looking at errors.
#pragma once

#include "llmc/base/error.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace llmc {

/// A fresh folder, removed with its content at the end.
class TempDir {
  public:
    TempDir() {
        std::string name = (std::filesystem::temp_directory_path() / "llmc_test_XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
        path_ = name;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    /// Writes a file and returns its path. An old one is removed first: truncating it would wait for the disk.
    std::string write(const std::string& name, std::string_view content) const {
        std::filesystem::remove(*this / name);
        std::ofstream(*this / name, std::ios::binary) << content;
        return *this / name;
    }

  private:
    std::string path_;
};

inline std::string slurp(const std::string& path) {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return content.str();
}

/// The message of the Error that `action` throws; a test failure and "" if it throws none.
template <typename Action>
std::string error_of(Action action) {
    try {
        action();
    } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_EQ(message.find('\n'), std::string::npos) << "not one line: " << message;
        return message;
    }
    ADD_FAILURE() << "no error";
    return "";
}

/// Whether `text` contains every one of `parts`.
inline testing::AssertionResult has(const std::string& text, std::initializer_list<std::string_view> parts) {
    for (const std::string_view part : parts) {
        if (text.find(part) == std::string::npos) {
            return testing::AssertionFailure() << "no \"" << part << "\" in \"" << text << "\"";
        }
    }
    return testing::AssertionSuccess();
}

}  // namespace llmc
