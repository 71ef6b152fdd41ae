// Files for --config: the part of TOML (https://toml.io) that options need. One `name = value` per line, where a value
// is a number, true, false, a "basic" or a 'literal' string; # begins a comment. No tables, no arrays.
#pragma once

#include <string>
#include <vector>

namespace llmc {

struct ConfigEntry {
    std::string name;
    std::string value;  ///< Strings without their quotes and escapes.
    int line = 0;       ///< From 1.
};

/// The entries of the file, in its order. Anything else in it is an Error (exit code 2) with file and line.
std::vector<ConfigEntry> read_config(const std::string& path);

/// The text as a TOML string; read_config() gives back the same bytes.
std::string quoted(const std::string& text);

}  // namespace llmc
