#include "llmc/io/run_record.h"

#include "llmc/base/file.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/shallow_json.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <fcntl.h>
#include <random>

namespace llmc {
namespace {

std::string record_path(const std::string& root) { return root + "/run.json"; }
std::string name_path(const std::string& step_folder) { return step_folder + "/run"; }

/// The text of a file that need not be there. One that is, and cannot be read, is an Error: it is no reason to forget
/// what it says.
std::optional<std::string> text_if_there(const std::string& path) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0 && (errno == ENOENT || errno == ENOTDIR)) return std::nullopt;
    return text_of(MappedFile(descriptor, path));
}

}  // namespace

RunRecord read_run_record(const std::string& root) {
    const std::optional<std::string> text = text_if_there(record_path(root));
    if (!text) return {};
    try {
        const auto json = nlohmann::json::parse(shallow_json(*text));
        RunRecord record;
        json.at("id").get_to(record.id);
        record.has_saved = json.value("saved", false);
        if (!json.contains("going_back")) return record;
        const auto& back = json.at("going_back");
        record.going_back = {back.at("step").get<int64_t>(), back.at("aside").get<std::string>()};
        return record;
    } catch (const nlohmann::json::exception&) {
        return {};
    }
}

void write_run_record(const std::string& root, const RunRecord& record) {
    nlohmann::ordered_json json = {{"id", record.id}};
    if (record.has_saved) json["saved"] = true;
    if (record.going_back)
        json["going_back"] = {{"step", record.going_back->step}, {"aside", record.going_back->aside}};
    write_text_atomically(record_path(root), json.dump(2) + "\n");
}

std::string new_run_id() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

bool is_run_id(std::string_view text) {
    return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string run_of_checkpoint(const std::string& step_folder) {
    std::string id = text_if_there(name_path(step_folder)).value_or("");
    while (id.ends_with('\n')) id.pop_back();
    return id;
}

void write_run_of_checkpoint(const std::string& root, const std::string& step_folder) {
    const std::string id = read_run_record(root).id;
    if (!id.empty()) write_text_atomically(name_path(step_folder), id + "\n");
}

}  // namespace llmc
