// --help and --help-all: options with their defaults in columns, as wide as the terminal; of training and of plan,
// which have many, --help has those that most people use.
#pragma once

#include "llmc/train/options.h"

#include <CLI/CLI.hpp>

#include <string_view>
#include <vector>

namespace llmc {

/// Whether --help of this command has the option.
bool is_in_short_help(std::string_view option, CommandSet command);

/// Gives the parser, and its subcommands, this form. A word "--help-all" becomes "--help", which then has everything.
void shape_help(CLI::App& app, std::vector<const char*>& words);

}  // namespace llmc
