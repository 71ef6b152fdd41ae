// Vocabularies for GGUF files. That llama.cpp makes the same ids of texts is tested by dev/oracle/gguf_check.py.
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/bpe_learn.h"
#include "llmc/io/gguf/gguf_vocabulary.h"
#include "llmc/io/sentencepiece_model.h"
#include "tests/io/gguf/gguf_reader.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace llmc {
namespace {

using Json = nlohmann::json;
using Type = GgufTokenType;

/// BPE by the lists of a vocabulary, one word at a time, as slow as it is plain.
std::vector<int32_t> encode_word(const GgufVocabulary& vocabulary, std::string_view word) {
    std::vector<std::string> parts;
    for (const char c : word) parts.push_back(to_alphabet(std::string(1, c)));
    std::map<std::string, size_t> ranks;
    for (size_t i = 0; i < vocabulary.merges.size(); ++i) ranks.emplace(vocabulary.merges[i], i);
    for (;;) {
        size_t best = parts.size(), best_rank = ranks.size();
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
            const auto rank = ranks.find(parts[i] + " " + parts[i + 1]);
            if (rank != ranks.end() && rank->second < best_rank) best = i, best_rank = rank->second;
        }
        if (best == parts.size()) break;
        parts[best] += parts[best + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    std::vector<int32_t> ids;
    for (const std::string& part : parts) ids.push_back(vocabulary.id_of(part));
    return ids;
}

/// A kind of tests/golden/tokenizers/kinds.json as a folder with tokenizer.json.
std::string folder_of_kind(const TempDir& dir, const std::string& name) {
    static const Json golden = Json::parse(slurp(std::string(kGoldenFolder) + "kinds.json"));
    const Json& kind = golden.at("kinds").at(name);
    Json json = kind.at("tokenizer");
    for (const auto& [key, value] : golden.at("bases").at(kind.at("base").get<size_t>()).items()) {
        json["model"][key] = value;
    }
    dir.write("tokenizer.json", json.dump());
    return dir.path();
}

std::string refusal_of_kind(const std::string& name) {
    const TempDir dir;
    const std::string folder = folder_of_kind(dir, name);
    return error_of([&] { gguf_vocabulary(folder, folder, 1000); });
}

GgufVocabulary of_kind(const std::string& name) {
    const TempDir dir;
    const std::string folder = folder_of_kind(dir, name);
    return gguf_vocabulary(folder, folder, 1000);
}

std::string learned_folder(const TempDir& dir) {
    WordCounts words;
    words.add_text(golden_text());
    write_bpe(learn_bpe(words, 400), dir.path());
    return dir.path();
}

TEST(GgufVocabulary, BytesAreByteLevelBpeWithoutMerges) {
    const GgufVocabulary bytes = gguf_vocabulary("bytes", "", 257);
    EXPECT_EQ(bytes.model, "gpt2");
    EXPECT_EQ(bytes.pre_tokenizer, "gpt-2");
    ASSERT_EQ(bytes.tokens.size(), 257u);
    EXPECT_TRUE(bytes.merges.empty());
    EXPECT_EQ(bytes.id_of("\xC4\xA0"), ' ');
    EXPECT_EQ(bytes.id_of("a"), 'a');
    EXPECT_EQ(bytes.types[255], Type::Normal);
    EXPECT_EQ(bytes.types[256], Type::Control);
    EXPECT_EQ(bytes.tokens[256], "<|endoftext|>");
    EXPECT_EQ(bytes.bos, 256);
    EXPECT_EQ(bytes.eos, 256);
    EXPECT_TRUE(bytes.adds_bos);
}

TEST(GgufVocabulary, AnUnknownTokenizerIsNone) {
    EXPECT_EQ(gguf_vocabulary("none", "", 100).model, "none");
    EXPECT_TRUE(gguf_vocabulary("none", "", 100).tokens.empty());
}

TEST(GgufVocabulary, LearnedMergesGiveTheSameIds) {
    const TempDir dir;
    const std::string folder = learned_folder(dir);
    const auto tokenizer = make_tokenizer(folder);
    const GgufVocabulary learned = gguf_vocabulary(folder, folder, tokenizer->vocab_size());
    EXPECT_EQ(learned.pre_tokenizer, "gpt-2");
    EXPECT_GT(learned.merges.size(), 100u);
    for (const char* word : {"the", " something", " Lord", "unto", "zqx", "\n", " \xC3\xA9t\xC3\xA9"}) {
        EXPECT_EQ(encode_word(learned, word), tokenizer->encode(word)) << word;
    }
    EXPECT_EQ(learned.eos, tokenizer->end_of_text());
    EXPECT_TRUE(learned.adds_bos);
}

TEST(GgufVocabulary, RankFilesGetTheirMerges) {
    const std::string path = std::string(kGoldenFolder) + "ranks.tiktoken";
    const TempDir dir;
    std::filesystem::copy(path, dir / "tokenizer.model");
    dir.write(
        "train_gpt_tokenizer.json",
        Json{{"pattern", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}}.dump());
    const auto tokenizer = make_tokenizer(dir.path());
    const GgufVocabulary ranks = gguf_vocabulary(dir.path(), dir.path(), tokenizer->vocab_size());
    EXPECT_EQ(ranks.pre_tokenizer, "gpt-2");
    for (const char* word : {"the", " something", " Lord", "aaaaaaa", "\n\n", " unto"}) {
        EXPECT_EQ(encode_word(ranks, word), tokenizer->encode(word)) << word;
    }
}

TEST(GgufVocabulary, PreTokenizersAreNamedByTheirStages) {
    const std::pair<const char*, const char*> names[] = {{"gpt2", "gpt-2"},       {"llama3", "llama-bpe"},
                                                         {"qwen2", "qwen2"},      {"smollm", "smollm"},
                                                         {"cl100k", "smaug-bpe"}, {"neox", "gpt-2"}};
    for (const auto& [kind, name] : names) {
        const GgufVocabulary vocabulary = of_kind(kind);
        EXPECT_EQ(vocabulary.model, "gpt2") << kind;
        EXPECT_EQ(vocabulary.pre_tokenizer, name) << kind;
    }
}

TEST(GgufVocabulary, AStageWithoutANameIsRefusedByIt) {
    const std::pair<const char*, const char*> stages[] = {{"prefix-space", "ByteLevel with add_prefix_space"},
                                                          {"flags-lowercase", "the normaliser Lowercase"},
                                                          {"nfkc", "the normaliser NFKC"},
                                                          {"regex-word", R"(\w+|\W)"},
                                                          {"digits-punctuation", "Digits"},
                                                          {"split-previous", "MergedWithPrevious"},
                                                          {"metaspace-never", "Metaspace with split"},
                                                          {"whitespace", "byte_fallback"},
                                                          {"suffix", "end_of_word_suffix"},
                                                          {"unigram", "Unigram"},
                                                          {"o200k", "with ignore_merges"},
                                                          {"deepseek", "Split"},
                                                          {"llama2", "merges that SentencePiece's scores cannot say"}};
    for (const auto& [kind, stage] : stages) {
        EXPECT_TRUE(has(refusal_of_kind(kind), {"--format=gguf", "tokenizer.json", stage, "--format=hf"})) << kind;
    }
}

/// A kind whose merges are all pairs that make a token, one token after the other, as those made of a SentencePiece
/// model are.
void list_all_pairs(const TempDir& dir) {
    Json json = Json::parse(slurp(dir / "tokenizer.json"));
    const Json& vocabulary = json["model"]["vocab"];
    Json all = Json::array();
    std::vector<std::string> made;
    for (const Json& merge : json["model"]["merges"]) {
        const bool is_list = merge.is_array();
        std::string name =
            is_list ? merge[0].get<std::string>() + merge[1].get<std::string>() : merge.get<std::string>();
        if (!is_list) name.erase(name.find(' '), 1);
        if (std::find(made.begin(), made.end(), name) != made.end()) continue;
        made.push_back(name);
        for (size_t i = 1; i < name.size(); ++i) {
            const std::string left = name.substr(0, i), right = name.substr(i);
            if ((name[i] & 0xC0) == 0x80 || !vocabulary.contains(left) || !vocabulary.contains(right)) continue;
            all.push_back(Json::array({left, right}));
        }
    }
    json["model"]["merges"] = all;
    dir.write("tokenizer.json", json.dump());
}

TEST(GgufVocabulary, ABpeOverCharactersIsSentencePieces) {
    const TempDir dir;
    const std::string folder = folder_of_kind(dir, "mistral");
    list_all_pairs(dir);
    const GgufVocabulary mistral = gguf_vocabulary(folder, folder, 1000);
    EXPECT_EQ(mistral.model, "llama");
    EXPECT_EQ(mistral.adds_space, true);
    ASSERT_EQ(mistral.scores.size(), 1000u);
    EXPECT_EQ(mistral.types[static_cast<size_t>(mistral.id_of("<0x0A>"))], Type::Byte);
    EXPECT_EQ(mistral.types[999], Type::Unused);
    // By scores alone: the pair whose token has the highest score merges, the leftmost first.
    const auto encode = [&](const std::string& text) {
        std::vector<std::string> parts = {"\xE2\x96\x81"};
        for (const char c : text) parts.push_back(c == ' ' ? "\xE2\x96\x81" : std::string(1, c));
        for (;;) {
            size_t best = parts.size();
            float best_score = -1e9f;
            for (size_t i = 0; i + 1 < parts.size(); ++i) {
                const int32_t id = mistral.id_of(parts[i] + parts[i + 1]);
                const float score = id < 0 ? -1e9f : mistral.scores[static_cast<size_t>(id)];
                if (score > best_score) best = i, best_score = score;
            }
            if (best == parts.size()) break;
            parts[best] += parts[best + 1];
            parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        }
        std::vector<int32_t> ids;
        for (const std::string& part : parts) ids.push_back(mistral.id_of(part));
        return ids;
    };
    for (const char* text : {"the end of the test", "Aaron and the others", "hello  world"}) {
        EXPECT_EQ(encode(text), make_tokenizer(folder)->encode(text)) << text;
    }
}

/// What is wrong with a BPE over characters that has these merges.
std::string fault_of(const std::vector<std::pair<std::string, std::string>>& merges) {
    Json vocabulary = Json::object(), list = Json::array();
    for (const auto& [left, right] : merges) {
        list.push_back(Json::array({left, right}));
        for (const std::string& token : {left, right, left + right}) vocabulary.emplace(token, vocabulary.size());
    }
    const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\xE2\x96\x81"}};
    const TempDir dir;
    dir.write(
        "tokenizer.json",
        Json{{"added_tokens", Json::array()},
             {"normalizer", replace},
             {"pre_tokenizer", nullptr},
             {"model",
              {{"type", "BPE"}, {"byte_fallback", true}, {"unk_token", "u"}, {"vocab", vocabulary}, {"merges", list}}}}
            .dump());
    try {
        gguf_vocabulary(dir.path(), dir.path(), 1000);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

TEST(GgufVocabulary, MergesBetweenEachOtherMayBeRunsOfOneCharacter) {
    EXPECT_EQ(fault_of({{"aaa", "a"}, {"aa", "aa"}, {"aa", "a"}, {"a", "aaa"}, {"a", "aa"}, {"a", "a"}}), "");
    EXPECT_TRUE(
        has(fault_of({{"a", "aaa"}, {"aa", "a"}, {"aa", "aa"}, {"a", "aa"}, {"aaa", "a"}, {"a", "a"}}), {"'a"}));
    EXPECT_TRUE(has(fault_of({{"b", "c"}, {"a", "b"}, {"ab", "c"}, {"x", "y"}, {"a", "bc"}}), {"scores", "'abc'"}));
    EXPECT_EQ(fault_of({{"b", "c"}, {"a", "b"}, {"x", "y"}, {"ab", "c"}, {"a", "bc"}}), "");
    EXPECT_TRUE(has(fault_of({{"b", "c"}, {"a", "b"}, {"ab", "c"}}), {"SentencePiece's scores", "'abc'"}));
}

TEST(GgufVocabulary, AUnigramIsTheSentencePieceModelBesideIt) {
    const std::string model = std::string(kGoldenFolder) + "sentencepiece.model";
    Json vocabulary = Json::array();
    for (const SentencePiece& piece : read_sentencepiece_model(slurp(model)).pieces) {
        vocabulary.push_back(Json::array({piece.text, piece.score}));
    }
    const TempDir dir;
    std::filesystem::copy(model, dir / "tokenizer.model");
    const auto write = [&] {
        const Json unigram = {{"type", "Unigram"}, {"unk_id", 0}, {"byte_fallback", true}, {"vocab", vocabulary}};
        dir.write("tokenizer.json", Json{{"added_tokens", Json::array()}, {"model", unigram}}.dump());
    };
    write();
    const GgufVocabulary same = gguf_vocabulary(dir.path(), dir.path(), 600);
    EXPECT_EQ(same.tokens[1], "<s>");
    EXPECT_EQ(same.types[1], Type::Control);
    vocabulary[300][0] = "another";
    write();
    EXPECT_TRUE(has(error_of([&] { gguf_vocabulary(dir.path(), dir.path(), 600); }), {"Unigram", "tokenizer.model"}));
}

TEST(GgufVocabulary, RowsWithoutATokenAreUnused) {
    const TempDir dir;
    const std::string folder = learned_folder(dir);
    const GgufVocabulary padded = gguf_vocabulary(folder, folder, 448);
    ASSERT_EQ(padded.tokens.size(), 448u);
    EXPECT_EQ(padded.tokens[447], "[PAD447]");
    EXPECT_EQ(padded.types[447], Type::Unused);
    EXPECT_EQ(padded.types[300], Type::Normal);
    const std::string message = error_of([&] { gguf_vocabulary(folder, folder, 300); });
    EXPECT_TRUE(has(message, {"400 tokens", "300"}));
}

TEST(GgufVocabulary, SpecialTokensAreThoseOfTheFiles) {
    const TempDir dir;
    const std::string folder = folder_of_kind(dir, "gpt2");
    const Json added = {{"id", 500}, {"content", "<|im_end|>"}, {"special", true}};
    dir.write("tokenizer_config.json", Json{{"eos_token", "<|im_end|>"},
                                            {"pad_token", {{"content", "<|endoftext|>"}}},
                                            {"added_tokens_decoder",
                                             {{"500", {{"content", "<|im_end|>"}, {"special", true}}},
                                              {"501", {{"content", "<tool>"}, {"special", false}}}}},
                                            {"chat_template", "{{ messages }}"}}
                                           .dump());
    const GgufVocabulary chat = gguf_vocabulary(folder, folder, 600);
    EXPECT_EQ(chat.eos, 500);
    EXPECT_EQ(chat.types[500], Type::Control);
    EXPECT_EQ(chat.types[501], Type::UserDefined);
    EXPECT_EQ(chat.pad, 0);
    EXPECT_FALSE(chat.adds_bos);  // A chat's template begins it.
    ASSERT_EQ(chat.chat_templates.size(), 1u);
    EXPECT_EQ(chat.chat_templates[0], (std::pair<std::string, std::string>("", "{{ messages }}")));
    dir.write("chat_template.jinja", "{{ jinja }}");
    EXPECT_EQ(gguf_vocabulary(folder, folder, 600).chat_templates[0].second, "{{ jinja }}");
    std::filesystem::remove(dir / "chat_template.jinja");
    const Json two = {{{"name", "default"}, {"template", "one"}}, {{"name", "tool use"}, {"template", "two"}}};
    dir.write("tokenizer_config.json",
              Json{{"chat_template", two}, {"add_bos_token", true}, {"bos_token", "<|endoftext|>"}}.dump());
    const GgufVocabulary both = gguf_vocabulary(folder, folder, 600);
    EXPECT_TRUE(both.adds_bos);
    EXPECT_EQ(both.bos, 0);
    GgufMetadata metadata;
    both.add_to(&metadata);
    GgufWriter(dir / "x.gguf", metadata, std::vector<GgufTensor>{}).close();
    const GgufReader file(dir / "x.gguf");
    EXPECT_EQ(file.string("tokenizer.chat_template"), "one");
    EXPECT_EQ(file.string("tokenizer.chat_template.tooluse"), "two");
    EXPECT_EQ(file.strings("tokenizer.chat_templates"), (std::vector<std::string>{"tooluse"}));
    EXPECT_EQ(file.count("tokenizer.ggml.bos_token_id"), 0u);
    EXPECT_TRUE(file.flag("tokenizer.ggml.add_bos_token"));
    EXPECT_EQ(file.integers("tokenizer.ggml.token_type").size(), 600u);
}

TEST(GgufVocabulary, SentencePieceModelsKeepTheirScores) {
    const std::string path = std::string(kGoldenFolder) + "sentencepiece.model";
    try {
        make_tokenizer(path);
    } catch (const Error&) {
        GTEST_SKIP() << "built without SentencePiece";
    }
    const GgufVocabulary pieces = gguf_vocabulary(path, "", 640);
    EXPECT_EQ(pieces.model, "llama");
    EXPECT_EQ(pieces.tokens.size(), 640u);
    EXPECT_EQ(pieces.types[0], Type::Unknown);
    EXPECT_EQ(pieces.types[1], Type::Control);
    EXPECT_EQ(pieces.tokens[1], "<s>");
    EXPECT_EQ(pieces.types[static_cast<size_t>(pieces.id_of("<0x41>"))], Type::Byte);
    EXPECT_EQ(pieces.bos, 1);
    EXPECT_EQ(pieces.eos, 2);
    EXPECT_TRUE(pieces.adds_bos);
    const auto merged = std::find_if(pieces.scores.begin(), pieces.scores.end(), [](float s) { return s < 0; });
    EXPECT_LT(*(merged + 1), *merged);
}

}  // namespace
}  // namespace llmc
