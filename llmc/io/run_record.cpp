#include "llmc/io/run_record.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/shallow_json.h"

#include <nlohmann/json.hpp>

#include <random>

namespace llmc {
namespace {

std::string record_path(const std::string& root) { return root + "/run.json"; }
std::string name_path(const std::string& step_folder) { return step_folder + "/run"; }

}  // namespace

RunRecord read_run_record(const std::string& root) {
    RunRecord record;
    if (!path_exists(record_path(root))) return record;
    try {
        const auto json = nlohmann::json::parse(shallow_json(read_text(record_path(root))));
        json.at("id").get_to(record.id);
        if (!json.contains("going_back")) return record;
        const auto& back = json.at("going_back");
        record.going_back = {back.at("step").get<int64_t>(), back.at("aside").get<std::string>()};
        return record;
    } catch (const nlohmann::json::exception&) {
        return {};
    } catch (const Error&) {
        return {};
    }
}

void write_run_record(const std::string& root, const RunRecord& record) {
    nlohmann::ordered_json json = {{"id", record.id}};
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
    if (!path_exists(name_path(step_folder))) return "";
    try {
        std::string id = read_text(name_path(step_folder));
        while (id.ends_with('\n')) id.pop_back();
        return id;
    } catch (const Error&) {
        return "";
    }
}

void write_run_of_checkpoint(const std::string& root, const std::string& step_folder) {
    const std::string id = read_run_record(root).id;
    if (!id.empty()) write_text_atomically(name_path(step_folder), id + "\n");
}

}  // namespace llmc
