#include "llmc/io/tokenizer_files.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

namespace fs = std::filesystem;

std::string golden(const std::string& name) { return slurp(kGoldenFolder + name); }

/// vocab.json and merges.txt from the golden tokenizer.json.
void write_pair(const TempDir& dir, const std::string& vocab, const std::string& merges) {
    const nlohmann::json model = nlohmann::json::parse(golden("tokenizer.json")).at("model");
    std::string lines = "#version: 0.2\n";
    for (const auto& merge : model.at("merges")) {
        lines += merge.is_string() ? merge.get<std::string>()
                                   : merge[0].get<std::string>() + " " + merge[1].get<std::string>();
        lines += "\n";
    }
    dir.write(vocab, model.at("vocab").dump());
    dir.write(merges, lines);
}

TEST(TokenizerFiles, FindsEveryKind) {
    const TempDir dir;
    write_pair(dir, "vocab.json", "merges.txt");
    EXPECT_EQ(find_tokenizer_files(dir.path() + "/").kind, TokenizerKind::VocabAndMerges);
    EXPECT_EQ(find_tokenizer_files(dir / "merges.txt").path, dir / "vocab.json");
    dir.write("tokenizer.model", golden("ranks.tiktoken"));
    EXPECT_EQ(find_tokenizer_files(dir.path()).kind, TokenizerKind::Ranks);
    dir.write("tokenizer.json", golden("tokenizer.json"));
    EXPECT_EQ(find_tokenizer_files(dir.path()).kind, TokenizerKind::TokenizerJson);
    // T5 has a tokenizer.json with a stage that we lack beside its SentencePiece model.
    nlohmann::json other = nlohmann::json::parse(golden("tokenizer.json"));
    other["normalizer"] = {{"type", "Precompiled"}};
    dir.write("tokenizer.json", other.dump());
    dir.write("tokenizer.model", golden("sentencepiece.model"));
    EXPECT_EQ(find_tokenizer_files(dir.path()).kind, TokenizerKind::SentencePiece);
    for (const auto& [name, kind] :
         {std::pair("ranks.tiktoken", TokenizerKind::Ranks), std::pair("tokenizer.json", TokenizerKind::TokenizerJson),
          std::pair("sentencepiece.model", TokenizerKind::SentencePiece)}) {
        EXPECT_EQ(find_tokenizer_files(std::string(kGoldenFolder) + name).kind, kind);
        EXPECT_EQ(find_tokenizer_files(dir.write("any_name", golden(name))).kind, kind);
    }
    write_pair(dir, "gpt2_encoder.json", "gpt2_vocab.bpe");
    EXPECT_EQ(find_tokenizer_files(dir / "gpt2_encoder.json").merges_path, dir / "gpt2_vocab.bpe");
    EXPECT_EQ(find_tokenizer_files("bytes").kind, TokenizerKind::Bytes);
}

TEST(TokenizerFiles, WhatIsNotThereIsNamed) {
    const TempDir dir;
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir / "nowhere"); }), {"nowhere", "'bytes'"}));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir.path()); }), {dir.path(), "tokenizer.json", "vocab.json"}));
    for (const char* content : {"", "just text\n", "\x89PNG", "\x0a"}) {
        const std::string path = dir.write("what", content);
        EXPECT_TRUE(has(error_of([&] { make_tokenizer(path); }), {"what'", "none of"})) << content;
    }
}

TEST(TokenizerFiles, CopiesStandAlone) {
    for (const char* kind : {"pair", "gpt2 pair", "ranks.tiktoken", "tokenizer.json"}) {
        const TempDir dir;
        std::string reference = kGoldenFolder + std::string(kind);
        if (kind == std::string("pair")) {
            write_pair(dir, "vocab.json", "merges.txt");
            dir.write("special_tokens_map.json", "{}");
            dir.write("notes.txt", "nothing of a tokenizer");
            reference = dir.path();
        } else if (kind == std::string("gpt2 pair")) {
            write_pair(dir, "gpt2_encoder.json", "gpt2_vocab.bpe");
            reference = dir / "gpt2_vocab.bpe";
        }
        const TokenizerChoices choices = {"", kind == std::string("ranks.tiktoken") ? "[a-z]+" : ""};
        const std::vector<int32_t> tokens = make_tokenizer(reference, choices)->encode(golden_text());
        EXPECT_EQ(copy_tokenizer(reference, dir / "run/tokenizer", choices), dir / "run/tokenizer");
        EXPECT_EQ(fs::exists(dir / "run/tokenizer/special_tokens_map.json"), kind == std::string("pair"));
        EXPECT_FALSE(fs::exists(dir / "run/tokenizer/notes.txt"));
        fs::rename(dir / "run", dir / "moved");
        EXPECT_EQ(make_tokenizer(dir / "moved/tokenizer")->encode(golden_text()), tokens) << kind;
        // To itself, and on to an export.
        EXPECT_EQ(copy_tokenizer(dir / "moved/tokenizer", dir / "moved/tokenizer"), dir / "moved/tokenizer");
        EXPECT_EQ(make_tokenizer(copy_tokenizer(dir / "moved/tokenizer", dir / "out"))->encode(golden_text()), tokens);
    }
    EXPECT_EQ(copy_tokenizer("bytes", "unused/folder"), "bytes");
    EXPECT_EQ(copy_tokenizer("none", "unused/folder"), "none");
    EXPECT_FALSE(fs::exists("unused"));
}

TEST(TokenizerFiles, ChoicesStayWithCopies) {
    const TempDir dir;
    const std::string json = dir.write("tokenizer.json", golden("tokenizer.json"));
    dir.write("tokenizer_config.json", R"({"eos_token": "<|eot_id|>", "bos_token": "<|begin_of_text|>"})");
    const auto name_of_end = [](const Tokenizer& tokenizer) { return tokenizer.token_bytes(tokenizer.end_of_text()); };
    EXPECT_EQ(name_of_end(*make_tokenizer(dir.path())), "<|endoftext|>");  // What ends a turn ends no document.
    const TokenizerChoices choices = {"<|begin_of_text|>", ""};
    EXPECT_EQ(name_of_end(*make_tokenizer(dir.path(), choices)), "<|begin_of_text|>");
    EXPECT_EQ(name_of_end(*make_tokenizer(copy_tokenizer(dir.path(), dir / "copy", choices))), "<|begin_of_text|>");
    EXPECT_EQ(name_of_end(*make_tokenizer(copy_tokenizer(dir / "copy", dir / "again"))), "<|begin_of_text|>");
    // Of a file alone what belongs to it comes along.
    EXPECT_EQ(name_of_end(*make_tokenizer(copy_tokenizer(json, dir / "third"))), "<|endoftext|>");
    EXPECT_TRUE(fs::exists(dir / "third/tokenizer_config.json"));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(json, {"", "x"}); }), {"--tokenizer-pattern=x", "rank files"}));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer("bytes", {"x", ""}); }), {"--document-token=x"}));
}

TEST(TokenizerFiles, MuchTooLargeFilesAreRefused) {
    const TempDir dir;
    const std::string path = dir.write("tokenizer.json", "{}");
    fs::resize_file(path, uintmax_t{1} << 30);
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(path); }), {"tokenizer.json", "1.00 GiB"}));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir.path()); }), {"tokenizer.json", "1.00 GiB"}));
}

TEST(Tokenizer, MustFitTheModel) {
    const ByteTokenizer bytes;
    require_vocabulary(bytes, 257);
    EXPECT_TRUE(has(error_of([&] { require_vocabulary(bytes, 256); }), {"'bytes'", "257", "256"}));
}

}  // namespace
}  // namespace llmc
