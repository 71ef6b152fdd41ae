// The small files beside a tokenizer's own that say something about its tokens.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace llmc {

/// null where one is not there. What is read of them has the types that it should have:
/// tokens are texts, or objects with a "content"; ids are whole numbers; flags are true or false; any may be null.
struct CompanionFiles {
    nlohmann::json tokenizer_config, special_tokens_map, added_tokens, config, generation_config;
};

/// An Error if one is not valid JSON, or a field has another type; it names file and field. `folder` is "" if there is
/// none.
CompanionFiles read_companion_files(const std::string& folder);

/// Fields that give a token a role.
inline constexpr const char* kTokenRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                              "pad_token", "cls_token", "mask_token"};

}  // namespace llmc
