// Against tiktoken and Hugging Face tokenizers by golden files, and GPT-2's against a second, slow implementation.
#include "llmc/base/file.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <sstream>

namespace llmc {
namespace {

using Tokens = std::vector<int32_t>;

std::string golden(const std::string& name) { return kGoldenFolder + name; }

/// The small rank file, with Llama 3's pattern: its number of ranks is no family's.
std::unique_ptr<Tokenizer> small_ranks() {
    return make_tokenizer(golden("ranks.tiktoken"), {.document_token = "", .pattern = kLlama3Pattern});
}

std::string checksum(const Tokens& tokens) { return checksum_of(std::as_bytes(std::span(tokens))); }

std::unique_ptr<Tokenizer> gpt2_or_null() {
    const std::string path = data_file("gpt2_encoder.json");
    return path.empty() ? nullptr : make_tokenizer(path);
}

/// GPT-2's encoder after its paper: ASCII only, strings for tokens, every merge a search through the whole word.
class SlowGpt2 {
  public:
    SlowGpt2(const std::string& encoder, const std::string& bpe) : ids_(nlohmann::json::parse(slurp(encoder))) {
        std::istringstream lines(slurp(bpe));
        std::string line, left, right;
        std::getline(lines, line);
        for (int rank = 0; lines >> left >> right; ++rank) ranks_[{left, right}] = rank;
    }
    Tokens encode(const std::string& text) {
        Tokens tokens;
        for (size_t i = 0; i < text.size();) {
            const size_t size = word_size(text, i);
            const Tokens& word = encode_word(text.substr(i, size));
            tokens.insert(tokens.end(), word.begin(), word.end());
            i += size;
        }
        return tokens;
    }

  private:
    static int kind(char c) { return std::isalpha(c) ? 1 : std::isdigit(c) ? 2 : std::isspace(c) ? 3 : 4; }
    static size_t word_size(const std::string& text, size_t i) {
        for (const char* ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
            if (text.compare(i, std::strlen(ending), ending) == 0) return std::strlen(ending);
        }
        const bool blank_first = text[i] == ' ' && i + 1 < text.size() && kind(text[i + 1]) != 3;
        size_t end = i + (blank_first ? 1 : 0);
        const int what = kind(text[end]);
        while (end < text.size() && kind(text[end]) == what) ++end;
        // The last blank of several belongs to what follows.
        if (what == 3 && end < text.size() && end - i > 1) --end;
        return end - i;
    }
    const Tokens& encode_word(const std::string& word) {
        const auto known = words_.find(word);
        if (known != words_.end()) return known->second;
        std::vector<std::string> parts;
        for (const char c : word) parts.push_back(c == ' ' ? "\u0120" : c == '\n' ? "\u010a" : std::string(1, c));
        for (;;) {
            std::pair<std::string, std::string> best;
            int rank = 1 << 30;
            for (size_t i = 0; i + 1 < parts.size(); ++i) {
                const auto found = ranks_.find({parts[i], parts[i + 1]});
                if (found != ranks_.end() && found->second < rank) rank = found->second, best = found->first;
            }
            if (rank == 1 << 30) break;
            std::vector<std::string> merged;
            for (size_t i = 0; i < parts.size(); ++i) {
                const bool joins = i + 1 < parts.size() && parts[i] == best.first && parts[i + 1] == best.second;
                merged.push_back(joins ? parts[i] + parts[i + 1] : parts[i]);
                i += joins ? 1 : 0;
            }
            parts = merged;
        }
        Tokens& tokens = words_[word];
        for (const std::string& part : parts) tokens.push_back(ids_.at(part));
        return tokens;
    }
    nlohmann::json ids_;
    std::map<std::pair<std::string, std::string>, int> ranks_;
    std::map<std::string, Tokens> words_;
};

TEST(Gpt2Tokenizer, EqualsASecondImplementation) {
    const std::string text_path = data_file("tinyshakespeare.txt");
    const auto tokenizer = gpt2_or_null();
    if (tokenizer == nullptr || text_path.empty()) GTEST_SKIP() << "GPT-2's vocabulary or the text is not there";
    const std::string text = slurp(text_path);
    const Tokens tokens = tokenizer->encode(text);
    EXPECT_EQ(tokens.size(), 338'025u);
    SlowGpt2 slow(data_file("gpt2_encoder.json"), data_file("gpt2_vocab.bpe"));
    EXPECT_EQ(tokens, slow.encode(text));
    EXPECT_EQ(tokenizer->decode(tokens), text);
}

TEST(Gpt2Tokenizer, EqualsTiktoken) {
    const auto tokenizer = gpt2_or_null();
    if (tokenizer == nullptr) GTEST_SKIP() << "GPT-2's vocabulary is not there";
    EXPECT_EQ(tokenizer->vocab_size(), 50257);
    EXPECT_EQ(tokenizer->end_of_text(), 50256);
    const Tokens tokens = tokenizer->encode(golden_text());
    EXPECT_EQ(checksum(tokens), expected("gpt2_text").at("xxh3"));
    EXPECT_EQ(tokens.size(), expected("gpt2_text").at("tokens"));
    if (data_file("tinyshakespeare.txt").empty()) GTEST_SKIP() << "the text is not there";
    const Tokens shakespeare = tokenizer->encode(slurp(data_file("tinyshakespeare.txt")));
    EXPECT_EQ(checksum(shakespeare), expected("gpt2_shakespeare").at("xxh3"));
}

/// What every one of our vocabularies must do.
void check_tokenizer(const Tokenizer& tokenizer, const Tokens& wanted) {
    const std::string text = golden_text();
    const Tokens tokens = tokenizer.encode(text);
    EXPECT_EQ(tokens, wanted);
    EXPECT_EQ(tokenizer.decode(tokens), text);
    for (const size_t step : {1u, 10u, 100u, 700u}) EXPECT_EQ(encode_in_pieces(tokenizer, text, step), tokens) << step;
    std::string bytes;
    for (const int32_t token : tokens) bytes += tokenizer.decode_next(token);
    EXPECT_EQ(bytes, text);
    EXPECT_TRUE(tokenizer.encode("").empty());
    EXPECT_TRUE(has(error_of([&] { tokenizer.decode(Tokens{tokenizer.vocab_size()}); }),
                    {std::to_string(tokenizer.vocab_size()), "vocabulary"}));
}

int32_t rank_count() {
    const std::string ranks = slurp(golden("ranks.tiktoken"));
    return static_cast<int32_t>(std::count(ranks.begin(), ranks.end(), '\n'));
}

TEST(RankFile, EqualsTiktoken) {
    const auto tokenizer = small_ranks();
    check_tokenizer(*tokenizer, expected("ranks").get<Tokens>());
    EXPECT_EQ(tokenizer->vocab_size(), rank_count() + 1);
    EXPECT_EQ(tokenizer->end_of_text(), rank_count());
    EXPECT_EQ(tokenizer->token_bytes(rank_count()), "<|endoftext|>");
    EXPECT_TRUE(has(error_of([] { make_tokenizer(golden("ranks.tiktoken")); }),
                    {std::to_string(rank_count()) + " ranks", "special tokens", "--tokenizer-pattern"}));
}

/// A rank file of that many made-up tokens: all bytes, then pairs and triples of them.
std::string many_ranks(int count) {
    const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string file;
    for (int rank = 0; rank < count; ++rank) {
        const int value = rank < 256 ? rank : rank - 256;
        std::string bytes;
        if (rank < 256) {
            bytes = {static_cast<char>(value)};
        } else if (value < 65536) {
            bytes = {static_cast<char>(value >> 8), static_cast<char>(value)};
        } else {
            bytes = {'a', static_cast<char>(value >> 16), static_cast<char>(value >> 8), static_cast<char>(value)};
        }
        for (size_t i = 0; i < bytes.size(); i += 3) {
            uint32_t bits = 0;
            for (size_t k = 0; k < 3; ++k) {
                bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
            }
            for (size_t k = 0; k < 4; ++k) file += i + k > bytes.size() ? '=' : digits[bits >> (18 - 6 * k) & 63];
        }
        file += " " + std::to_string(rank) + "\n";
    }
    return file;
}

TEST(RankFile, FamiliesByTheirNumbers) {
    const TempDir dir;
    const std::string text = "IT'S 12345 aBc's\n";
    const auto llama3 = make_tokenizer(dir.write("l3", many_ranks(128000)));
    EXPECT_EQ(llama3->end_of_text(), 128000);
    EXPECT_EQ(llama3->vocab_size(), 128256);
    EXPECT_EQ(llama3->token_bytes(128000), "<|begin_of_text|>");
    EXPECT_EQ(llama3->token_bytes(128009), "<|eot_id|>");
    EXPECT_EQ(llama3->token_bytes(128255), "<|reserved_special_token_250|>");
    EXPECT_TRUE(has(llama3->describe_end_of_text(), {"<|begin_of_text|>", "Llama 3"}));
    const auto cl100k = make_tokenizer(dir.write("cl", many_ranks(100256)));
    EXPECT_EQ(cl100k->end_of_text(), 100257);
    EXPECT_EQ(cl100k->vocab_size(), 100277);
    EXPECT_EQ(cl100k->token_bytes(100256), "");
    EXPECT_EQ(cl100k->token_bytes(100276), "<|endofprompt|>");
    const auto o200k = make_tokenizer(dir.write("o2", many_ranks(199998)));
    EXPECT_EQ(o200k->end_of_text(), 199999);
    EXPECT_EQ(o200k->vocab_size(), 200019);
    for (const auto* tokenizer : {llama3.get(), cl100k.get(), o200k.get()}) {
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    }
}

TEST(TokenizerJson, EqualsHuggingFace) {
    const auto tokenizer = make_tokenizer(golden("tokenizer.json"));
    check_tokenizer(*tokenizer, expected("tokenizer_json").get<Tokens>());
    const Tokens special = encode_in_pieces(*tokenizer, golden_text(), 1 << 20, SpecialTokens::AsIds);
    EXPECT_EQ(special, expected("tokenizer_json_special").get<Tokens>());
    for (const size_t step : {1u, 10u, 100u}) {
        EXPECT_EQ(encode_in_pieces(*tokenizer, golden_text(), step, SpecialTokens::AsIds), special) << step;
    }
    // The end of a text gives none; other special tokens show.
    const int32_t end = tokenizer->end_of_text();
    EXPECT_EQ(tokenizer->token_bytes(end), "<|endoftext|>");
    EXPECT_EQ(tokenizer->decode(Tokens{end}), "");
}

TEST(PipelineTokenizer, RandomBytesSurvive) {
    std::mt19937 random(7);
    for (const char* name : {"ranks.tiktoken", "tokenizer.json"}) {
        const auto tokenizer = name == std::string("ranks.tiktoken") ? small_ranks() : make_tokenizer(golden(name));
        for (int round = 0; round < 300; ++round) {
            std::string text(random() % 400, '\0');
            for (char& c : text)
                c = static_cast<char>(round % 3 == 0 ? random() : random() % 3 == 0 ? random() : 'a' + random() % 3);
            const Tokens tokens = tokenizer->encode(text);
            ASSERT_EQ(tokenizer->decode(tokens), text);
            ASSERT_EQ(encode_in_pieces(*tokenizer, text, 50), tokens);
        }
    }
}

TEST(PipelineTokenizer, AnEncoderForgetsNothingThatMatters) {
    const auto tokenizer = small_ranks();
    const auto encoder = tokenizer->make_encoder(SpecialTokens::AsText);
    // More words than the cache holds.
    for (int i = 0; i < 200'000; ++i) {
        const std::string word = " w" + std::to_string(i * 7919 % 100'003);
        Tokens tokens;
        encoder->encode(word, false, &tokens);
        ASSERT_EQ(tokenizer->decode(tokens), word);
    }
}

nlohmann::json small_json() { return nlohmann::json::parse(slurp(golden("tokenizer.json"))); }

std::string json_error(const nlohmann::json& json) {
    const TempDir dir;
    const std::string path = dir.write("tokenizer.json", json.dump());
    return error_of([&] { make_tokenizer(path); });
}

TEST(TokenizerJson, WhatWeDoNotHaveIsNamed) {
    nlohmann::json json = small_json();
    json["normalizer"] = {{"type", "BertNormalizer"}};
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json", "the normaliser BertNormalizer"}));
    json = small_json();
    json["pre_tokenizer"]["pretokenizers"][0] = {{"type", "UnicodeScripts"}};
    EXPECT_TRUE(has(json_error(json), {"the pre-tokeniser UnicodeScripts"}));
    json = small_json();
    json["model"]["type"] = "WordPiece";
    EXPECT_TRUE(has(json_error(json), {"the model WordPiece"}));
    json = small_json();
    json["decoder"] = {{"type", "CTC"}};
    EXPECT_TRUE(has(json_error(json), {"the decoder CTC"}));
    json = small_json();
    json["model"]["dropout"] = 0.1;
    EXPECT_TRUE(has(json_error(json), {"dropout", "0.1"}));
    json = small_json();
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(";
    EXPECT_TRUE(has(json_error(json), {"pattern does not compile"}));
    for (const auto& [depth, words] : {std::pair(60, "50 sequences"), std::pair(150, "more than 200 others")}) {
        nlohmann::json deep = {{"type", "NFC"}};
        for (int i = 0; i < depth; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
        json = small_json();
        json["normalizer"] = deep;
        EXPECT_TRUE(has(json_error(json), {words}));
    }
}

TEST(TokenizerJson, BadContentIsNamed) {
    nlohmann::json json = small_json();
    json["model"]["merges"][3] = nlohmann::json::array({"zz", "yy"});
    EXPECT_TRUE(has(json_error(json), {"merge 4", "'zz'"}));
    json = small_json();
    json["model"]["merges"][5] = "nonsense";
    EXPECT_TRUE(has(json_error(json), {"model.merges[5]", "\"nonsense\""}));
    json = small_json();
    json["model"]["vocab"].erase("ng");
    EXPECT_TRUE(has(json_error(json), {"'ng'"}));
    json = small_json();
    json["model"]["vocab"]["new"] = 300;
    EXPECT_TRUE(has(json_error(json), {"share the id 300"}));
    json = small_json();
    json["model"]["vocab"]["new"] = -7;
    EXPECT_TRUE(has(json_error(json), {"'new'", "-7"}));
    json = small_json();
    json["model"]["vocab"]["new"] = "text";
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json", "model.vocab.new is \"text\", not"}));
    json["model"]["vocab"]["new"] = 1e30;
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json", "model.vocab.new is ", "a whole number"}));
    json["model"]["vocab"]["new"] = uint64_t{1} << 63;
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json", "model.vocab.new is ", "a whole number"}));
    json = small_json();
    json["model"]["vocab"] = nlohmann::json::array({1, 2});
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json", "vocab"}));
    json = small_json();
    json["added_tokens"][0]["id"] = nullptr;
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json", "added_tokens[0].id is null, not a whole number"}));
    json = small_json();
    json.erase("model");
    EXPECT_TRUE(has(json_error(json), {"tokenizer.json"}));
    const TempDir dir;
    const std::string whole = slurp(golden("tokenizer.json"));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir.write("tokenizer.json", whole.substr(0, 1000))); }),
                    {"tokenizer.json", "not valid JSON"}));
}

/// vocab.json and merges.txt of the 256 bytes, "he", "the".
std::string small_pair(const TempDir& dir, const std::string& merges) {
    nlohmann::json vocab = nlohmann::json::object();
    const nlohmann::json json = small_json();
    for (const auto& [name, id] : json["model"]["vocab"].items()) {
        if (id < 500) vocab[name] = id;
    }
    for (const char* name : {"he", "the"}) {
        if (!vocab.contains(name)) vocab[name] = 600 + vocab.size();
    }
    vocab["<|endoftext|>"] = 2000;
    dir.write("merges.txt", merges);
    return dir.write("vocab.json", vocab.dump());
}

TEST(VocabAndMerges, Merge) {
    const TempDir dir;
    const std::string vocab = small_pair(dir, "#version: 0.2\nh e\nt he\r\n");
    const auto tokenizer = make_tokenizer(vocab);
    const Tokens tokens = tokenizer->encode("the he");
    ASSERT_EQ(tokens.size(), 3u);
    EXPECT_EQ(tokenizer->token_bytes(tokens[0]), "the");
    EXPECT_EQ(tokenizer->token_bytes(tokens[1]), " ");
    EXPECT_EQ(tokenizer->end_of_text(), 2000);
    EXPECT_EQ(tokenizer->vocab_size(), 2001);
    EXPECT_EQ(make_tokenizer(dir.path())->encode("the he"), tokens);
    EXPECT_EQ(make_tokenizer(dir / "merges.txt")->encode("the he"), tokens);
}

TEST(VocabAndMerges, BadContentIsNamed) {
    const TempDir dir;
    const auto error = [&](const std::string& merges) {
        const std::string vocab = small_pair(dir, merges);
        return error_of([&] { make_tokenizer(vocab); });
    };
    EXPECT_TRUE(has(error("#version: 0.2\nh e\nq\u0120q x\n"), {"merges.txt' line 3", "'q\u0120q'", "vocab.json"}));
    EXPECT_TRUE(has(error("h e\nhe\n"), {"merges.txt' line 2", "'he' is no merge"}));
    EXPECT_TRUE(has(error("h e x\n"), {"merges.txt' line 1"}));
    EXPECT_TRUE(has(error(" h\n"), {"merges.txt' line 1"}));
    std::filesystem::remove(dir / "merges.txt");
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir / "vocab.json"); }), {"merges.txt", "vocab.json"}));
    dir.write("merges.txt", "h e\n");
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir.write("vocab.json", "[1, 2]")); }), {"vocab.json"}));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir.write("vocab.json", "{\"a\": 1}")); }), {"vocab.json"}));
    EXPECT_TRUE(has(error_of([&] { make_tokenizer(dir.write("vocab.json", "{\"a\": 4000000000}")); }), {"4000000000"}));
}

TEST(RankFile, BadContentIsNamed) {
    const TempDir dir;
    const std::string good = slurp(golden("ranks.tiktoken"));
    const auto error = [&](const std::string& content) {
        const std::string path = dir.write("tokenizer.model", content);
        return error_of([&] { make_tokenizer(path, {.document_token = "", .pattern = "a"}); });
    };
    const int32_t n = rank_count();
    const std::string last = fmt::format("line {}", n + 1);
    EXPECT_TRUE(has(error(good + fmt::format("YWFhYQ== {}\n", n - 1)), {"tokenizer.model", "not the only one"}));
    EXPECT_TRUE(has(error(good + fmt::format("YWFhYQ== {}\n", n + 1)), {fmt::format("{} is missing", n)}));
    EXPECT_TRUE(has(error(good + fmt::format("YWF*YQ== {}\n", n)), {last}));
    EXPECT_TRUE(has(error(good + "YWFhYQ==\n"), {last}));
    EXPECT_TRUE(has(error(good + fmt::format("YWFhYQ== {}x\n", n)), {last}));
    EXPECT_TRUE(has(error(good + good.substr(0, good.find(' ')) + fmt::format(" {}\n", n)), {"another rank"}));
    EXPECT_TRUE(has(error("YQ== 0\n"), {"no token for the byte 0x00"}));
}

}  // namespace
}  // namespace llmc
