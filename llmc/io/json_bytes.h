// Names of files in JSON, which is UTF-8 while they may be any bytes: a string where that is enough, else an array of
// byte values.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace llmc {

nlohmann::json json_of_bytes(const std::string& bytes);

/// What json_of_bytes() was given. Throws nlohmann::json::type_error if it is neither form.
std::string bytes_of_json(const nlohmann::json& json);

}  // namespace llmc
