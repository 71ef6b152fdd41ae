// Against the SentencePiece library's Python package, by golden files.
#include "llmc/base/file.h"
#include "llmc/io/pipeline/unicode.h"
#include "llmc/io/sentencepiece_model.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

#include <random>

namespace llmc {
namespace {

using Tokens = std::vector<int32_t>;

const std::string kModel = std::string(kGoldenFolder) + "sentencepiece.model";

/// The tokenizer, or null in a build without the library.
std::unique_ptr<Tokenizer> open_or_null(const std::string& path) {
    try {
        return make_tokenizer(path);
    } catch (const Error& error) {
        if (std::string(error.what()).find("libsentencepiece-dev") != std::string::npos) return nullptr;
        throw;
    }
}

TEST(SentencePiece, EqualsTheLibrary) {
    const auto tokenizer = open_or_null(kModel);
    if (tokenizer == nullptr) GTEST_SKIP() << "built without SentencePiece";
    const std::string text = golden_text();
    const Tokens tokens = tokenizer->encode(text);
    EXPECT_EQ(tokens, expected("sentencepiece").get<Tokens>());
    EXPECT_EQ(tokenizer->decode(tokens), text);
    EXPECT_EQ(tokenizer->vocab_size(), 600);
    EXPECT_EQ(tokenizer->end_of_text(), 1);
    for (const size_t step : {1u, 10u, 100u, 700u}) EXPECT_EQ(encode_in_pieces(*tokenizer, text, step), tokens) << step;
}

TEST(SentencePiece, TheBlankInFrontBelongsToTheBeginning) {
    const auto tokenizer = open_or_null(kModel);
    if (tokenizer == nullptr) GTEST_SKIP() << "built without SentencePiece";
    for (const std::string text : {"the end", " the end", "  the", "\nthe", ""}) {
        const Tokens tokens = tokenizer->encode(text);
        EXPECT_EQ(tokenizer->decode(tokens), text);
        Tokens two_documents = {tokenizer->end_of_text()};
        two_documents.insert(two_documents.end(), tokens.begin(), tokens.end());
        two_documents.insert(two_documents.end(), two_documents.begin(), two_documents.end());
        EXPECT_EQ(tokenizer->decode(two_documents), text + text);
    }
    const Tokens tokens = tokenizer->encode("the end");
    std::string shown;
    for (const int32_t token : tokens) shown += tokenizer->decode_next(token);
    EXPECT_EQ(shown, " the end");
}

TEST(SentencePiece, RandomBytesSurvive) {
    const auto tokenizer = open_or_null(kModel);
    if (tokenizer == nullptr) GTEST_SKIP() << "built without SentencePiece";
    std::mt19937 random(3);
    for (int round = 0; round < 200; ++round) {
        std::string text(random() % 100, '\0');
        for (char& c : text) c = static_cast<char>(random() % 4 == 0 ? random() : " \nthe"[random() % 5]);
        if (text.find("\xE2\x96\x81") != std::string::npos) continue;  // The library's own blank.
        const Tokens tokens = tokenizer->encode(text);
        ASSERT_EQ(tokenizer->decode(tokens), text);
        ASSERT_EQ(encode_in_pieces(*tokenizer, text, 20), tokens);
    }
}

TEST(SentencePiece, Llama2) {
    const std::string path = data_file("llama2_tokenizer.model");
    if (path.empty()) GTEST_SKIP() << "Llama 2's tokenizer is not there";
    const auto tokenizer = open_or_null(path);
    if (tokenizer == nullptr) GTEST_SKIP() << "built without SentencePiece";
    EXPECT_EQ(tokenizer->vocab_size(), 32000);
    const std::string text = golden_text();
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    std::string valid;
    for (std::string_view rest = text; !rest.empty();) {
        const size_t size = valid_utf8_prefix(rest);
        valid += rest.substr(0, size);
        rest.remove_prefix(std::min(size + 1, rest.size()));
    }
    const Tokens tokens = tokenizer->encode(valid);
    EXPECT_EQ(checksum_of(std::as_bytes(std::span(tokens))), expected("llama2_text").at("xxh3"));
    if (data_file("tinyshakespeare.txt").empty()) GTEST_SKIP() << "the text is not there";
    const std::string shakespeare = slurp(data_file("tinyshakespeare.txt"));
    const Tokens whole = encode_in_pieces(*tokenizer, shakespeare, 100'000);
    EXPECT_EQ(whole.size(), expected("llama2_shakespeare").at("tokens"));
    EXPECT_EQ(checksum_of(std::as_bytes(std::span(whole))), expected("llama2_shakespeare").at("xxh3"));
    EXPECT_EQ(tokenizer->decode(whole), shakespeare);
}

TEST(SentencePiece, CorruptModelsAreNamed) {
    if (open_or_null(kModel) == nullptr) GTEST_SKIP() << "built without SentencePiece";
    const TempDir dir;
    const std::string good = slurp(kModel);
    const std::string cut = dir.write("tokenizer.model", good.substr(0, good.size() / 2 + 1));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(cut); }), {"tokenizer.model", "corrupt SentencePiece model"}));
    EXPECT_TRUE(
        has(error_of([&] { make_tokenizer(kModel)->make_encoder(SpecialTokens::AsIds); }), {"--special-tokens"}));
}

TEST(SentencePieceModel, TellsWhatTheLibraryDoesNot) {
    const std::string model = slurp(kModel);
    const SentencePieceFacts facts = look_at_sentencepiece_model(model);
    EXPECT_TRUE(facts.is_bpe);
    EXPECT_TRUE(facts.adds_prefix);
    EXPECT_TRUE(facts.keeps_text);
    EXPECT_FALSE(look_at_sentencepiece_model(without_prefix(model)).adds_prefix);
    for (size_t size = 0; size < model.size(); size += 97) look_at_sentencepiece_model(model.substr(0, size));
    std::mt19937 random(5);
    for (int round = 0; round < 1000; ++round) {
        std::string noise(random() % 60, '\0');
        for (char& c : noise) c = static_cast<char>(random());
        look_at_sentencepiece_model(noise);
    }
}

}  // namespace
}  // namespace llmc
