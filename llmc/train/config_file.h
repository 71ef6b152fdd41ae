// Files of options, --config and a run's config.toml: TOML 1.0 (https://toml.io), read by toml++. What the entries mean
// is config_options.h.
//
// TOML is UTF-8, and a path need not be. A byte that is part of no UTF-8 is written as the character U+EF00 plus that
// byte ("\uEFE9" for 0xE9; U+EF80 to U+EFFF are for private use, and a path that has one of them has its bytes written
// one by one), and read_config() gives the byte back. A file with such bytes as they are, as earlier versions wrote it,
// is read in the same way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

struct ConfigValue {
    enum class Kind : uint8_t { String, Integer, Float, Boolean, Date, Array, Table };
    Kind kind = Kind::String;
    std::string text;  ///< A string's bytes; a number, in decimal with all its digits; "true" or "false"; else empty.
    std::vector<ConfigValue> elements;  ///< Of an array.
};

/// `5`, `"x", a string`, `a date or time`: the value for a message.
std::string describe(const ConfigValue& value);

struct ConfigEntry {
    std::string section;  ///< Empty above all sections.
    std::string name;
    ConfigValue value;
    int line = 0;  ///< From 1.
};

/// The entries of the file, in its order; those of a section's own tables, and arrays of tables, are one entry each.
/// What is no TOML is an Error (bad usage) that starts with `who`, such as "--config=c.toml", and names the line; a
/// name that is given twice in one section is one that names both lines.
std::vector<ConfigEntry> read_config(const std::string& path, const std::string& who);

/// Whether TOML has the value without quotes: a number or a truth value.
bool is_bare_value(const std::string& text);

/// The bytes as a TOML string; read_config() gives the same bytes back.
std::string quoted(const std::string& bytes);

}  // namespace llmc
