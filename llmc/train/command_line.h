// What is wrong with a command line, in words: which option, what was given, and what to write instead. CLI11 does the
// parsing (options.cpp); what it would take for something else, and what it stops at, is said here.
#pragma once

#include <CLI/CLI.hpp>

#include <vector>

namespace llmc {

/// Refuses (exit code 2) words that would be read as what they are not: an option without its value that is followed by
/// another option, a value that is empty ("--data="), a long name behind one dash ("-seq-len").
void require_plain_words(const std::vector<const char*>& words);

/// The Error (exit code 2) of a parse of `words` by `app` that ended with `error`.
[[noreturn]] void refuse_words(const CLI::ParseError& error, const CLI::App& app,
                               const std::vector<const char*>& words);

/// Refuses options of `app` that were given although the subcommand `used` was, too.
void refuse_before_subcommand(const CLI::App& app, const CLI::App& used);

}  // namespace llmc
