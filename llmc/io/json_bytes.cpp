#include "llmc/io/json_bytes.h"

#include "llmc/base/utf8.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <vector>

namespace llmc {

nlohmann::json json_of_bytes(const std::string& bytes) {
    if (valid_utf8_prefix(bytes) == bytes.size()) return bytes;
    return std::vector<uint8_t>(bytes.begin(), bytes.end());
}

std::string bytes_of_json(const nlohmann::json& json) {
    if (!json.is_array()) return json.get<std::string>();
    const auto bytes = json.get<std::vector<uint8_t>>();
    return {bytes.begin(), bytes.end()};
}

}  // namespace llmc
