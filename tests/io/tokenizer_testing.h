// What tests of tokenizers share: the golden files of dev/oracle/tokenizer_golden.py, and the large ones that are not
// part of the tree.
#pragma once

#include "llmc/io/tokenizer.h"
#include "tests/io/temp_dir.h"

#include <nlohmann/json.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

inline constexpr const char* kGoldenFolder = "tests/golden/tokenizers/";

inline std::string golden_text() { return slurp(std::string(kGoldenFolder) + "text.bin"); }

/// A field of expected.json.
inline nlohmann::json expected(const std::string& name) {
    return nlohmann::json::parse(slurp(std::string(kGoldenFolder) + "expected.json")).at(name);
}

/// The path of a file beside the tree; "" where it is not there, and then the test is to be skipped.
inline std::string data_file(const std::string& name) {
    const std::string path = "../shared/data/" + name;
    return std::filesystem::exists(path) ? path : "";
}

/// Encodes in pieces, cut at safe places about every `step` bytes.
inline std::vector<int32_t> encode_in_pieces(const Tokenizer& tokenizer, std::string_view text, size_t step,
                                             SpecialTokens special = SpecialTokens::AsText) {
    const std::unique_ptr<Encoder> encoder = tokenizer.make_encoder(special);
    std::vector<int32_t> tokens;
    for (bool continues = false; !text.empty(); continues = true) {
        const size_t cut = text.size() > step ? encoder->safe_cut(text, step) : text.size();
        encoder->encode(text.substr(0, cut), continues, &tokens);
        text.remove_prefix(cut);
    }
    return tokens;
}

}  // namespace llmc
