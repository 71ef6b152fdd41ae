// Stages from tokenizer.json. What is wrong with a field is a JsonFault (json_fields.h); other Errors, such as of
// patterns, begin with `source`, the file.
#pragma once

#include "llmc/io/pipeline/decoder.h"
#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/pre_tokenizer.h"

#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <string>
#include <vector>

namespace llmc {

/// The first stage that this program does not have, as "the normaliser BertNormalizer"; "" if it has them all.
std::string missing_stage(const nlohmann::json& tokenizer);

/// The stages of a field of tokenizer.json; those of sequences stand one after the other. null is none.
std::vector<std::unique_ptr<Normalizer>> read_normalizers(const nlohmann::json& normalizer, const std::string& source);
/// `over_bytes`: a ByteLevel at the end leaves bytes as they are, for a model over bytes.
std::vector<std::unique_ptr<PreTokenizer>> read_pre_tokenizers(const nlohmann::json& pre_tokenizer, bool over_bytes,
                                                               const std::string& source);
std::vector<std::unique_ptr<DecoderStage>> read_decoders(const nlohmann::json& decoder, const std::string& source);

/// The pre-tokenisers, or normalisers, one after the other, without the sequences they are in. `list` is the name of a
/// sequence's field, "pretokenizers" or "normalizers". null is none.
std::vector<const nlohmann::json*> flat_stages(const nlohmann::json& stage, const char* list);

/// Whether the last pre-tokeniser is ByteLevel.
bool ends_with_byte_level(const nlohmann::json& pre_tokenizer);

}  // namespace llmc
