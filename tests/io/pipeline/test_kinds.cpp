// Whole pipelines against the tokenizers library: dev/oracle/tokenizer_fixtures.py wrote what it makes of hard texts.
#include "llmc/base/file.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using Tokens = std::vector<int32_t>;

std::string checksum(const Tokens& tokens) { return checksum_of(std::as_bytes(std::span(tokens))); }

TEST(TokenizerKinds, EqualTheLibrary) {
    const nlohmann::json golden = nlohmann::json::parse(slurp(std::string(kGoldenFolder) + "kinds.json"));
    const auto texts = golden.at("texts").get<std::vector<std::string>>();
    for (const auto& [name, kind] : golden.at("kinds").items()) {
        const TempDir dir;
        nlohmann::json json = kind.at("tokenizer");
        for (const auto& [key, value] : golden.at("bases").at(kind.at("base").get<size_t>()).items()) {
            json["model"][key] = value;
        }
        const auto tokenizer = make_tokenizer(dir.write("tokenizer.json", json.dump()));
        const auto special = tokenizer->make_encoder(SpecialTokens::AsIds);
        for (size_t i = 0; i < texts.size(); ++i) {
            const nlohmann::json& wanted = kind.at("expected").at(i);
            const Tokens tokens = tokenizer->encode(texts[i]);
            Tokens special_tokens;
            special->encode(texts[i], /*continues=*/false, &special_tokens);
            EXPECT_EQ(tokens.size(), wanted[0]) << name << ": " << texts[i];
            EXPECT_EQ(checksum(tokens), wanted[1]) << name << ": " << texts[i];
            EXPECT_EQ(checksum(special_tokens), wanted[2]) << name << ": " << texts[i];
            const std::string decoded = tokenizer->decode(tokens);
            if (wanted[3] != "") {
                EXPECT_EQ(checksum_of(std::as_bytes(std::span(decoded))), wanted[3]) << name << ": " << texts[i];
            }
            for (const size_t step : {1u, 30u}) EXPECT_EQ(encode_in_pieces(*tokenizer, texts[i], step), tokens) << name;
        }
    }
}

}  // namespace
}  // namespace llmc
