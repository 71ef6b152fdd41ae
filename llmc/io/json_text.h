// JSON as text. Strings may come from file names, which need not be UTF-8: what is not is replaced.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace llmc {

/// On one line.
std::string json_text(const nlohmann::json& json);

/// A report for people and programs: indented, with a line break at its end.
std::string json_report(const nlohmann::ordered_json& json);

}  // namespace llmc
