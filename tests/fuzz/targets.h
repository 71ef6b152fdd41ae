// The parsers that test_fuzz.cpp gives changed files to, each with valid files of its own.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace llmc {

struct FuzzTarget {
    std::string name;
    std::vector<std::string> seeds;
    /// Parses `content`, with `folder` for its files, and uses what it got. Nothing but an Error may come out.
    std::function<void(const std::string& content, const std::string& folder)> run;
};

/// All of them. Their own files are made in `folder`.
std::vector<FuzzTarget> fuzz_targets(const std::string& folder);

}  // namespace llmc
