// Which token separates documents, as far as a tokenizer's files say. In front of every document it stands in token
// files; a text is generated after it.
#pragma once

#include "llmc/io/pipeline/added_tokens.h"
#include "llmc/io/pipeline/token_model.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

struct CompanionFiles;

struct DocumentToken {
    int32_t id = -1;  ///< -1: nothing names one.
    std::string name;
    std::string named_by;  ///< "eos_token of tokenizer_config.json".
};

/// Adds the tokens that only tokenizer_config.json (added_tokens_decoder) or added_tokens.json have. An Error that
/// begins with `source` if an id is impossible.
void add_companion_tokens(const CompanionFiles& files, const TokenNames& names, std::vector<AddedToken>* added,
                          const std::string& source);

/// What is known of a tokenizer besides its companions. An id is asked for by name, and the other way round.
struct KnownTokens {
    const TokenNames& names;
    const std::vector<AddedToken>& added;
    int32_t id(const std::string& name) const;
    std::string name(int32_t id) const;
};

/// The name that tokenizer_config.json, else special_tokens_map.json, gives a role such as "eos_token"; "" if neither
/// names a token.
std::string token_of_role(const CompanionFiles& files, const char* role);

/// The token that a post-processor of tokenizer.json puts in front of a text.
DocumentToken token_of_template(const nlohmann::json& post_processor, const KnownTokens& tokens);

/// The first rule that applies: the token that the template puts in front (`post_processor` of tokenizer.json);
/// bos_token with add_bos_token; eos_token, unless it ends a chat's turn and there is an <|endoftext|>, which then is
/// it; bos_token; eos_token_id of config.json or generation_config.json; an added token by its usual name. A
/// post-processor with a field of another type is a JsonFault (json_fields.h).
DocumentToken find_document_token(const nlohmann::json& post_processor, const CompanionFiles& files,
                                  const KnownTokens& tokens);

/// The token that a user names with --document-token: by its name or its id. An Error if there is none.
DocumentToken chosen_document_token(const std::string& choice, const KnownTokens& tokens);

}  // namespace llmc
