#include "llmc/io/manifest.h"

#include "llmc/base/file.h"
#include "llmc/base/shallow_json.h"

#include <nlohmann/json.hpp>

#include <span>
#include <string_view>

namespace llmc {
namespace {

constexpr const char* kFormatName = "train_gpt checkpoint";
constexpr std::string_view kNoChecksum = "0000000000000000";
constexpr std::string_view kTail = "\"\n}\n";  ///< What follows the checksum, the last value of the text.

std::string checksum_of_text(const std::string& text) { return checksum_of(std::as_bytes(std::span(text))); }

/// Where the checksum stands in the text.
size_t checksum_position(const std::string& text) { return text.size() - kTail.size() - kNoChecksum.size(); }

bool checksum_is_right(std::string text) {
    if (text.size() < kTail.size() + kNoChecksum.size() || !text.ends_with(kTail)) return false;
    const std::string found = text.substr(checksum_position(text), kNoChecksum.size());
    text.replace(checksum_position(text), kNoChecksum.size(), kNoChecksum);
    return found == checksum_of_text(text);
}

}  // namespace

std::string manifest_text(const Manifest& manifest) {
    nlohmann::ordered_json files = nlohmann::ordered_json::array();
    for (const ManifestFile& file : manifest.files) {
        files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.checksum}});
    }
    const auto state = nlohmann::json::parse(manifest.state);
    const nlohmann::ordered_json root = {{"format", kFormatName}, {"format_version", kCheckpointFormatVersion},
                                         {"step", manifest.step}, {"files", files},
                                         {"state", state},        {"manifest_xxh3", kNoChecksum}};
    std::string text = root.dump(2) + "\n";
    text.replace(checksum_position(text), kNoChecksum.size(), checksum_of_text(text));
    return text;
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
    const bool intact = checksum_is_right(text);
    const DamagedError damaged(fmt::format("'{}' is damaged: its checksum is wrong", path));
    const nlohmann::json root = nlohmann::json::parse(shallow_json(text), nullptr, /*allow_exceptions=*/false);
    if (!root.is_object()) throw damaged;
    try {
        const auto version = root.at("format_version").get<int64_t>();
        if (version > kCheckpointFormatVersion) {
            fail(
                "'{}' was written by a newer train_gpt (checkpoint format {}, this one reads up to {}){}; update "
                "train_gpt",
                path, version, kCheckpointFormatVersion, intact ? "" : ", or is damaged");
        }
        if (!intact) throw damaged;
        if (root.at("format") != kFormatName || version < 1) fail("'{}' is not of a checkpoint of train_gpt", path);
        Manifest manifest = {root.at("step").get<int64_t>(), {}, root.at("state").dump()};
        for (const auto& file : root.at("files")) {
            manifest.files.push_back({file.at("name"), file.at("bytes"), file.at("xxh3")});
            const std::string& name = manifest.files.back().name;
            if (name.empty() || name == ".." || name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
                fail("'{}' names '{}', which is not a file of its folder; refused", path, name);
            }
        }
        return manifest;
    } catch (const nlohmann::json::exception& error) {
        if (!intact) throw damaged;
        fail("'{}' is not of a checkpoint of train_gpt: {}", path, error.what());
    }
}

}  // namespace llmc
