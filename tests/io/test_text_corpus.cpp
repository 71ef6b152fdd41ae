#include "llmc/io/encode_corpus.h"
#include "llmc/io/encoded_text.h"
#include "llmc/io/token_file.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using Tokens = std::vector<int32_t>;

const std::string kJson = std::string(kGoldenFolder) + "tokenizer.json";

Tokens encode_files(const std::vector<std::string>& paths, const Tokenizer& tokenizer, int threads,
                    const std::string& field = "") {
    TextCorpus corpus(paths, {.jsonl_field = field}, "tokenize");
    Tokens tokens;
    encode_corpus(corpus, tokenizer, SpecialTokens::AsText, threads,
                  [&](const CorpusChunk&, std::span<const int32_t> more) {
                      tokens.insert(tokens.end(), more.begin(), more.end());
                  });
    return tokens;
}

/// End-of-text and the tokens of each document, one by one.
Tokens encode_documents(const std::vector<std::string>& documents, const Tokenizer& tokenizer) {
    Tokens tokens;
    for (const std::string& document : documents) {
        tokens.push_back(tokenizer.end_of_text());
        const Tokens more = tokenizer.encode(document);
        tokens.insert(tokens.end(), more.begin(), more.end());
    }
    return tokens;
}

/// About 1 MiB without NULs, in many chunks.
std::string long_text() {
    std::string golden = golden_text(), text;
    std::erase(golden, '\0');
    for (int i = 0; text.size() < (size_t{1} << 20); ++i) text += std::to_string(i * i) + golden;
    return text;
}

TEST(EncodeCorpus, ThreadsChangeNothing) {
    const TempDir dir;
    const auto tokenizer = make_tokenizer(kJson);
    const std::string text = long_text();
    const std::vector<std::string> paths = {dir.write("a.txt", text), dir.write("b.txt", "short"),
                                            dir.write("c.txt", text.substr(1000))};
    const Tokens wanted = encode_documents({text, "short", text.substr(1000)}, *tokenizer);
    for (const int threads : {1, 2, 5}) EXPECT_EQ(encode_files(paths, *tokenizer, threads), wanted);
    EXPECT_EQ(encode_files({dir / "*.txt"}, *tokenizer, 2), wanted);
}

TEST(EncodeCorpus, JsonLines) {
    const TempDir dir;
    const auto tokenizer = make_tokenizer(kJson);
    std::string lines;
    std::vector<std::string> documents;
    for (int i = 0; i < 20'000; ++i) {
        documents.push_back(i % 7 == 0 ? ""
                                       : "Document \"" + std::to_string(i) + "\"\n\twith \u4e2d\u6587 and \U0001F600");
        lines += nlohmann::json({{"id", i}, {"text", documents.back()}}).dump() + (i % 2 == 0 ? "\r\n" : "\n");
        if (i % 100 == 0) lines += "\n  \n";
    }
    lines += "{\"text\": \"\\u00e9\\ud83d\\ude00 \\u0000.\"}";  // No line break at the end.
    documents.emplace_back("\u00e9\U0001F600 \0.", 9);
    const std::string path = dir.write("x.jsonl", lines);
    const Tokens wanted = encode_documents(documents, *tokenizer);
    for (const int threads : {1, 3}) EXPECT_EQ(encode_files({path}, *tokenizer, threads, "text"), wanted);
}

TEST(EncodeCorpus, BadLinesAreNamed) {
    const TempDir dir;
    const auto tokenizer = make_tokenizer("bytes");
    std::string good;
    for (int i = 0; i < 30'000; ++i) good += "{\"text\": \"" + std::string(20, 'x') + "\"}\n";
    for (const auto& [line, what] :
         {std::pair("{\"text\": \"cut", "is not valid JSON"), std::pair("[\"text\"]", "is not a JSON object"),
          std::pair("{\"txet\": \"\"}", "has no field 'text'"), std::pair("{\"text\": 5}", "no text but number"),
          std::pair("{\"text\": \"\xff\"}", "is not valid JSON")}) {
        const std::string path = dir.write("x.jsonl", good + line + "\n" + good + "broken\n");
        for (const int threads : {1, 4}) {
            EXPECT_TRUE(has(error_of([&] { encode_files({path}, *tokenizer, threads, "text"); }),
                            {"tokenize: ", "x.jsonl' line 30001 ", what}));
        }
    }
}

TEST(TextCorpus, NumbersThatOnlyPythonWrites) {
    const TempDir dir;
    const std::string line = R"({"a": NaN, "b": [-Infinity, Infinity], "text": "NaN \"Infinity", "c": NaN})";
    TextCorpus corpus({dir.write("x.jsonl", line)}, {.jsonl_field = "text"}, "tokenize");
    CorpusChunk chunk;
    ASSERT_TRUE(corpus.next([](std::string_view text, size_t) { return text.size(); }, &chunk));
    corpus.read(chunk, [](std::string_view text, bool) { EXPECT_EQ(text, "NaN \"Infinity"); });
}

TEST(TextCorpus, BadLinesAreSkippedAndCounted) {
    const TempDir dir;
    std::string lines;
    for (int i = 0; i < 30'000; ++i) lines += i % 1000 == 999 ? "broken\n" : "{\"text\": \"some words of text\"}\n";
    for (const int threads : {1, 4}) {
        TextCorpus corpus({dir.write("x.jsonl", lines)}, {.jsonl_field = "text", .skip_bad_lines = true}, "tokenize");
        int64_t documents = 0;
        encode_corpus(corpus, ByteTokenizer(), SpecialTokens::AsText, threads,
                      [&](const CorpusChunk&, std::span<const int32_t> tokens) {
                          documents += std::count(tokens.begin(), tokens.end(), ByteTokenizer::kEndOfText);
                      });
        EXPECT_EQ(documents, 30'000 - 30);
    }
}

TEST(TextCorpus, BadFilesAreNamed) {
    const TempDir dir;
    const auto error = [&](const std::string& path) {
        return error_of([&] { TextCorpus({path}, DataReading(), "tokenize"); });
    };
    EXPECT_TRUE(has(error(dir / "no.txt"), {"tokenize: ", "no.txt", "does not exist"}));
    EXPECT_TRUE(has(error(dir / "no*.txt"), {"tokenize: ", "no file matches"}));
    EXPECT_TRUE(has(error(dir.path()), {"is a folder"}));
    EXPECT_TRUE(has(error(dir.write("empty.txt", "")), {"no text"}));
    EXPECT_TRUE(has(error(dir.write("bin", std::string("ab\0cd", 5))), {"binary"}));
}

TEST(EncodedText, IsTextAsTheTokenizerReadsIt) {
    const TempDir dir;
    const auto tokenizer = make_tokenizer(kJson);
    const std::string text = long_text();
    dir.write("a.txt", text);
    dir.write("b.txt", "short");
    const auto source = open_token_source(dir / "?.txt", "--data", tokenizer.get());
    const Tokens wanted = encode_documents({text, "short"}, *tokenizer);
    Tokens tokens(static_cast<size_t>(source->size()));
    source->read(0, tokens);
    EXPECT_EQ(tokens, wanted);
    EXPECT_EQ(source->vocab_size(), tokenizer->vocab_size());
    EXPECT_EQ(source->end_of_text(), tokenizer->end_of_text());
    EXPECT_EQ(source->tokenizer(), kJson);
    EXPECT_TRUE(has(source->where(3), {"a.txt", "token 3"}));
    const UnknownTokenizer unknown;
    EXPECT_TRUE(has(error_of([&] { open_token_source(dir / "b.txt", "--data", &unknown); }), {"--data", "not known"}));
}

TEST(TokenFile, TakesTheTokenizersVocabulary) {
    const TempDir dir;
    const auto tokenizer = make_tokenizer(kJson);
    const TokenFormat format = format_for(*tokenizer);
    EXPECT_EQ(format.magic, kGpt2Tokens.magic);
    TokenShardWriter writer(dir / "x_train", format);
    writer.append(encode_documents({"some text"}, *tokenizer));
    EXPECT_TRUE(has(error_of([&] { writer.append(Tokens{tokenizer->vocab_size()}); }), {"vocabulary"}));
    writer.close();
    EXPECT_EQ(open_token_source(writer.paths()[0], "--data")->vocab_size(), 50257);
    EXPECT_EQ(open_token_source(writer.paths()[0], "--data", tokenizer.get())->tokenizer(), kJson);
    // The tokenizer beside the shards is found.
    std::filesystem::create_directory(dir / "x_tokenizer");
    std::filesystem::copy(kJson, dir / "x_tokenizer/tokenizer.json");
    const auto source = open_token_source(dir / "x_train_*.bin", "--data");
    EXPECT_EQ(source->tokenizer(), dir / "x_tokenizer");
    EXPECT_EQ(source->vocab_size(), tokenizer->vocab_size());
    EXPECT_EQ(source->end_of_text(), tokenizer->end_of_text());
}

TEST(TokenFile, ShardsWithoutAnEndLeaveNothing) {
    const TempDir dir;
    {
        TokenShardWriter writer(dir / "x_train", kGpt2Tokens, 2);
        writer.append(Tokens{1, 2, 3, 4, 5});
        EXPECT_EQ(writer.paths().size(), 2u);
    }
    EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace llmc
