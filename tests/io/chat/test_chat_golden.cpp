// Rows and stretches of texts against the tokenizers library and transformers: dev/oracle/chat_rows.py wrote the
// fixtures of this tree; others stand beside it (../shared), and without them their test is skipped.
#include "llmc/base/error.h"
#include "llmc/io/chat/row_encoder.h"
#include "llmc/io/chat/row_file.h"
#include "llmc/io/token_source.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <map>

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;
using Runs = std::vector<std::pair<size_t, size_t>>;

constexpr const char* kGolden = "tests/golden/chat/";

template <typename Flags>
Runs runs_of(const Flags& flags) {
    Runs runs;
    for (size_t i = 0; i < flags.size(); ++i) {
        if (!(flags[i] & 1)) continue;
        if (runs.empty() || runs.back().second != i) runs.emplace_back(i, i);
        runs.back().second = i + 1;
    }
    return runs;
}

Json golden(const std::string& path) { return Json::parse(slurp(path)); }

std::string text_of(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens) {
    std::string text;
    for (const int32_t token : tokens) text += tokenizer.token_bytes(token);
    return text;
}

ChatRow row_of(const std::string& json) {
    std::string fault;
    ChatRow row = read_row(json, &fault);
    EXPECT_EQ(fault, "") << json;
    return row;
}

TEST(ChatGolden, RowsOfEveryFormInEveryFamily) {
    const Json all = golden(std::string(kGolden) + "rows.json");
    const TempDir dir;
    for (const auto& [name, file] : all["tokenizers"].items()) {
        const auto tokenizer = make_tokenizer(dir.write(name + ".json", file.dump()));
        const TokenLengths lengths(*tokenizer);
        for (const Json& wanted : all["cases"]) {
            if (wanted["tokenizer"] != name) continue;
            const std::string family = wanted["family"];
            const ChatFormat format(*tokenizer, family, Scored::Assistant);
            const EncodedRow row =
                RowEncoder(format, lengths).encode(row_of(all["rows"][wanted["row"].get<size_t>()].dump()));
            const std::string what = name + ", " + family + ", " + wanted["text"].get<std::string>();
            EXPECT_EQ(row.tokens, wanted["ids"].get<std::vector<int32_t>>()) << what;
            EXPECT_EQ(runs_of(row.marks), wanted["scored"].get<Runs>()) << what;
            EXPECT_EQ(row.open_answers, 0) << what;
        }
    }
}

TEST(ChatGolden, ScoringIsTheSameWithoutGenerationBlocks) {
    const Json all = golden(std::string(kGolden) + "rows.json");
    const TempDir dir;
    const auto tokenizer = make_tokenizer(dir.write("tokenizer.json", all["tokenizers"]["gpt2"].dump()));
    const TokenLengths lengths(*tokenizer);
    for (const char* family : {"chatml", "qwen", "zephyr", "llama3", "llama2", "mistral"}) {
        const ChatFormat marked(*tokenizer, family, Scored::Assistant);
        std::string source = marked.chat_template->source();
        for (const char* tag : {"{%- generation %}", "{% endgeneration %}"}) {
            for (size_t at = source.find(tag); at != std::string::npos; at = source.find(tag)) {
                source.erase(at, std::string(tag).size());
            }
        }
        ChatFormat plain(*tokenizer, family, Scored::Assistant);
        plain.chat_template.emplace(source, "'plain'", marked.chat_template->roles());
        ASSERT_FALSE(plain.chat_template->has_generation());
        for (const Json& json : all["rows"]) {
            const ChatRow row = row_of(json.dump());
            const EncodedRow a = RowEncoder(marked, lengths).encode(row), b = RowEncoder(plain, lengths).encode(row);
            EXPECT_EQ(a.tokens, b.tokens) << family << json;
            EXPECT_EQ(a.marks, b.marks) << family << json;
        }
    }
}

/// Kinds whose stages drop or join characters at a border in a way that what they decode to does not tell: a stretch
/// may have a token or two more or less there.
bool is_lossy(const std::string& kind) {
    constexpr std::array kLossy = {"whitespace", "whitespace-no-unk", "suffix", "prefix",
                                   "delimiter",  "unigram",           "neox",   "punctuation-previous"};
    return std::any_of(kLossy.begin(), kLossy.end(), [&](const char* one) { return kind == one; });
}

TEST(ChatGolden, StretchesOfTextInEveryKindOfTokenizer) {
    const Json spans = golden(std::string(kGolden) + "spans.json");
    const Json kinds = golden(std::string(kGoldenFolder) + "kinds.json");
    const std::string text = spans["text"];
    for (const auto& [name, kind] : kinds["kinds"].items()) {
        const TempDir dir;
        Json file = kind["tokenizer"];
        for (const auto& [key, value] : kinds["bases"][kind["base"].get<size_t>()].items()) file["model"][key] = value;
        const auto tokenizer = make_tokenizer(dir.write("tokenizer.json", file.dump()));
        const TokenLengths lengths(*tokenizer);
        SpanEncoder encoder(lengths);
        const Json& wanted = spans["kinds"][name];
        for (const Json& row : wanted["rows"]) {
            std::vector<int32_t> tokens;
            std::vector<bool> inside;
            const auto stretches = row["stretches"].get<std::vector<SpanEncoder::Stretch>>();
            encoder.encode(text, stretches, &tokens, &inside);
            ASSERT_EQ(tokens, wanted["ids"].get<std::vector<int32_t>>()) << name;
            const Runs got = runs_of(inside), library = row["inside"].get<Runs>();
            if (!is_lossy(name)) {
                EXPECT_EQ(got, library) << name << " " << row["stretches"];
                continue;
            }
            if (name != "punctuation-previous") {  // A token more or less at a border, no more.
                ASSERT_EQ(got.size(), library.size()) << name << " " << row["stretches"];
                for (size_t i = 0; i < got.size(); ++i) {
                    EXPECT_NEAR(static_cast<double>(got[i].first), static_cast<double>(library[i].first), 1) << name;
                    EXPECT_NEAR(static_cast<double>(got[i].second), static_cast<double>(library[i].second), 1) << name;
                }
                continue;
            }
            std::vector<bool> theirs(inside.size(), false);
            for (const auto& [first, end] : library) {
                for (size_t i = first; i < end; ++i) theirs[i] = true;
            }
            size_t different = 0;
            for (size_t i = 0; i < inside.size(); ++i) different += inside[i] != theirs[i] ? 1 : 0;
            EXPECT_LE(different, 4 * stretches.size()) << name << " " << row["stretches"];
        }
    }
}

/// The fixtures beside the tree.
class SharedChat : public testing::Test {
  protected:
    void SetUp() override {
        for (const char* top : {"../shared", "../../shared"}) {
            if (std::filesystem::exists(std::string(top) + "/cases/finetune/expected_chat.json")) top_ = top;
        }
        if (top_.empty()) GTEST_SKIP() << "../shared/cases/finetune is not there";
    }
    std::string top_;
};

std::vector<std::string> rows_in(const std::string& path) {
    const MappedFile file(path);
    RowFile rows(file.text());
    RowFile::Item item;
    std::string fault;
    std::vector<std::string> all;
    while (rows.next(&item, &fault)) all.emplace_back(item.json);
    EXPECT_EQ(fault, "");
    return all;
}

TEST_F(SharedChat, TextsCountsAndMasks) {
    const std::string folder = top_ + "/cases/finetune/";
    const Json expected = golden(folder + "expected_chat.json");
    const std::string tokenizer_json = slurp(folder + "chat/tokenizer.json");
    std::map<std::string, std::vector<std::string>> files;
    for (const auto& [family, setting] : expected["templates"].items()) {
        for (const char* which : {"template", "plain_template", "own"}) {
            const TempDir dir;
            dir.write("tokenizer.json", tokenizer_json);
            Json config = {{"bos_token", setting["bos_token"]}, {"eos_token", setting["eos_token"]}};
            const bool own = std::string(which) == "own";
            if (!own) config["chat_template"] = setting[which];
            dir.write("tokenizer_config.json", config.dump());
            const auto tokenizer = make_tokenizer(dir.path());
            const TokenLengths lengths(*tokenizer);
            const std::string name = family == "qwen2" ? "qwen" : family;
            const ChatFormat format(*tokenizer, own ? name : "", Scored::Assistant);
            RowEncoder encoder(format, lengths);
            for (const Json& wanted : expected["cases"]) {
                if (wanted["family"] != family) continue;
                const std::string file = wanted["file"];
                if (files.find(file) == files.end()) files[file] = rows_in(folder + "chat/" + file);
                const EncodedRow row = encoder.encode(row_of(files[file].at(wanted["row"].get<size_t>())));
                const std::string what = family + ", " + which + ", " + file + " " + wanted["row"].dump();
                EXPECT_EQ(text_of(*tokenizer, row.tokens), wanted["text"].get<std::string>()) << what;
                EXPECT_EQ(row.tokens.size(), wanted["tokens"].get<size_t>()) << what;
                EXPECT_EQ(runs_of(row.marks), wanted["mask_runs"].get<Runs>()) << what;
                const auto first = wanted["first_ids"].get<std::vector<int32_t>>();
                EXPECT_EQ(std::vector(row.tokens.begin(), row.tokens.begin() + std::ptrdiff_t(first.size())), first);
            }
        }
    }
}

}  // namespace
}  // namespace llmc
