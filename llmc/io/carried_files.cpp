#include "llmc/io/carried_files.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/hf_config.h"
#include "llmc/io/tokenizer_choices.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <filesystem>

namespace llmc {
namespace {

/// Any of these makes a tokenizer.
constexpr std::array kTokenizers = {"tokenizer.json", "tokenizer.model", "vocab.json", "encoder.json",
                                    "gpt2_tokenizer.bin"};
/// These belong to one.
constexpr std::array kCompanions = {"tokenizer_config.json", "added_tokens.json", "special_tokens_map.json",
                                    "chat_template.jinja", kChoicesFile};
/// The other half of a pair.
constexpr std::array kMerges = {"merges.txt", "vocab.bpe"};
constexpr const char* kGenerationConfig = "/generation_config.json";

void copy_file(const std::string& from, const std::string& to) {
    const MappedFile source(from);
    FileWriter writer(to);
    writer.write(source.text());
    writer.close();
}

}  // namespace

std::string tokenizer_folder_of_run(const std::string& run_folder) { return run_folder + "/tokenizer"; }

std::string tokenizer_in(const std::string& folder) {
    const bool any = std::any_of(kTokenizers.begin(), kTokenizers.end(),
                                 [&](const char* name) { return path_exists(folder + "/" + name); });
    return any ? folder : "none";
}

void copy_tokenizer_files(const std::string& from, const std::string& to, bool all) {
    std::error_code not_there;
    if (from.empty() || std::filesystem::equivalent(from, to, not_there)) return;
    std::vector<std::string> names;
    if (all) names.insert(names.end(), kTokenizers.begin(), kTokenizers.end());
    if (all) names.insert(names.end(), kMerges.begin(), kMerges.end());
    for (const char* name : kCompanions) names.emplace_back(name);
    std::erase_if(names, [&](const std::string& name) { return !path_exists(from + "/" + name); });
    const bool has_ids = path_exists(from + kGenerationConfig);
    const nlohmann::json ids =
        nlohmann::json::parse(!has_ids && path_exists(from + "/config.json")
                                  ? hf_token_ids(read_text(from + "/config.json"), from + "/config.json")
                                  : "{}");
    if (names.empty() && !has_ids && ids.empty()) return;
    make_directories(to, "the tokenizer's files");
    for (const std::string& name : names) copy_file(from + "/" + name, to + "/" + name);
    if (has_ids) copy_file(from + kGenerationConfig, to + kGenerationConfig);
    if (!ids.empty()) write_text_atomically(to + kGenerationConfig, ids.dump(2) + "\n");
}

std::string special_token_ids(const std::string& folder) {
    for (const std::string name : {kGenerationConfig, "/config.json"}) {
        if (path_exists(folder + name)) return hf_token_ids(read_text(folder + name), folder + name);
    }
    return "{}";
}

}  // namespace llmc
