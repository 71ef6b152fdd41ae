// Files of rows as training data, directly and as token files with marks.
#include "llmc/io/chat/row_source.h"
#include "llmc/io/marks_file.h"
#include "llmc/io/token_file.h"
#include "llmc/io/token_source.h"
#include "tests/io/packed_file.h"
#include "tests/io/temp_dir.h"
#include "tests/io/warnings.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmc {
namespace {

const std::string kRows =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yo\"},"
    "{\"role\":\"user\",\"content\":\"?\"},{\"role\":\"assistant\",\"content\":\"!\"}]}\n\n"
    "{\"instruction\":\"Say\",\"output\":\" \"}\n"
    "{\"text\":\"ab\"}\n"
    "{\"prompt\":\"c\",\"completion\":\"d\"}\n";

/// All of a source: what is scored in brackets, and a bar where a document starts. End-of-text is '$'.
std::string shown(const TokenSource& source) {
    std::vector<int32_t> tokens(static_cast<size_t>(source.size()));
    std::vector<uint8_t> marks(tokens.size());
    source.read(0, tokens);
    source.read_marks(0, marks);
    std::string text;
    bool inside = false;
    for (size_t i = 0; i < tokens.size(); ++i) {
        const bool scored = (marks[i] & kScored) != 0;
        if (inside && (!scored || (marks[i] & kDocumentStart) != 0)) text += ']', inside = false;
        if ((marks[i] & kDocumentStart) != 0) text += '|';
        if (scored && !inside) text += '[', inside = true;
        text += tokens[i] == source.end_of_text() ? '$' : static_cast<char>(tokens[i]);
    }
    return inside ? text + "]" : text;
}

DataReading chatml(const std::string& score = "assistant") {
    DataReading reading;
    reading.chat_template = "chatml";
    reading.score = score;
    return reading;
}

std::unique_ptr<TokenSource> open(const std::string& path, const DataReading& reading) {
    return open_token_source(path, "--data", nullptr, reading);
}

const std::string kUser = "<|im_start|>user\n", kAssistant = "<|im_start|>assistant\n", kEnd = "<|im_end|>";

TEST(RowSource, MarksWhatIsScored) {
    const TempDir dir;
    const auto source = open(dir.write("x.jsonl", kRows), chatml());
    EXPECT_TRUE(source->is_marked());
    EXPECT_EQ(shown(*source), "|" + kUser + "Hi" + kEnd + "\n" + kAssistant + "[Yo" + kEnd + "]\n" + kUser + "?" +
                                  kEnd + "\n" + kAssistant + "[!" + kEnd + "]\n" + "|<s>[ab" + kEnd + "]|<s>c[d" +
                                  kEnd + "]");
    EXPECT_NE(source->where(0).find("x.jsonl' line 1, token 0 of the row"), std::string::npos) << source->where(0);
    EXPECT_NE(source->where(source->size() - 1).find("line 5"), std::string::npos);
    EXPECT_NE(source->describe().find("is instruction rows, chat template 'chatml', read as bytes"), std::string::npos)
        << source->describe();
}

TEST(RowSource, ScoresAllOrTheLastAnswer) {
    const TempDir dir;
    const std::string path = dir.write("x.jsonl", kRows);
    EXPECT_EQ(shown(*open(path, chatml("all"))), "|[" + kUser + "Hi" + kEnd + "\n" + kAssistant + "Yo" + kEnd + "\n" +
                                                     kUser + "?" + kEnd + "\n" + kAssistant + "!" + kEnd +
                                                     "\n]|<s>[ab" + kEnd + "]|<s>[cd" + kEnd + "]");
    EXPECT_EQ(shown(*open(path, chatml("completion"))), "|" + kUser + "Hi" + kEnd + "\n" + kAssistant + "Yo" + kEnd +
                                                            "\n" + kUser + "?" + kEnd + "\n" + kAssistant + "[!" +
                                                            kEnd + "]\n|<s>[ab" + kEnd + "]|<s>c[d" + kEnd + "]");
}

TEST(RowSource, PackedAndAsArrayIsTheSame) {
    const TempDir dir;
    const std::string plain = shown(*open(dir.write("x.jsonl", kRows), chatml()));
    std::string array = "[";
    for (const char c : kRows) array += c == '\n' && array.back() == '}' ? std::string(",\n") : std::string(1, c);
    array.erase(array.rfind(','));
    EXPECT_EQ(shown(*open(dir.write("x.json", array + "]"), chatml())), plain);
    EXPECT_EQ(shown(*open(dir.write("x.jsonl.gz", gzip_of(kRows)), chatml())), plain);
    EXPECT_EQ(shown(*open(dir.write("x.jsonl.zst", zstd_of(kRows)), chatml())), plain);
}

TEST(RowSource, IsKnownByItsContent) {
    const TempDir dir;
    const std::string path = dir.write("x.jsonl", kRows), texts = dir.write("t.jsonl", "{\"text\":\"ab\"}\n");
    EXPECT_FALSE(open(texts, {})->is_marked());
    EXPECT_EQ(shown(*open(texts, {.data_format = "rows"})), "|$[ab$]");
    EXPECT_FALSE(open(path, {.data_format = "text"})->is_marked());
    const std::string fault = error_of([&] { open(path, {}); });
    EXPECT_NE(
        fault.find("x.jsonl' line 1: it is a conversation, and the tokenizer 'bytes' has no chat template; name one "
                   "with --chat-template: chatml, llama2, llama3, mistral, zephyr, qwen"),
        std::string::npos)
        << fault;
    EXPECT_NE(error_of([&] { open(dir.write("y.txt", "words"), {.data_format = "rows"}); }).find("no instruction rows"),
              std::string::npos);
}

TEST(RowSource, RefusesBadRowsByFileLineAndKey) {
    const TempDir dir;
    const std::string bad = kRows + "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}\n{\"text\":\"z\"}\n";
    const std::string path = dir.write("x.jsonl", bad);
    const std::string fault = error_of([&] { open(path, chatml()); });
    EXPECT_NE(fault.find("--data: '" + path + "' line 6 has 'messages[0].role' 'tool'"), std::string::npos) << fault;
    EXPECT_NE(fault.find("--data-format=rows --skip-bad-lines"), std::string::npos) << fault;
    DataReading skipping = chatml();
    skipping.skip_bad_lines = true;
    const Warnings warnings;
    const std::string text = shown(*open(path, skipping));
    EXPECT_TRUE(text.ends_with("|<s>[z<|im_end|>]")) << text;
    EXPECT_NE(warnings.text().find("1 bad row was skipped (--skip-bad-lines); the first, '" + path + "' line 6"),
              std::string::npos)
        << warnings.text();
}

TEST(RowSource, AFileOfWhichAllIsSkippedIsNotOneWithNothingScored) {
    const TempDir dir;
    const std::string path = dir.write("x.jsonl", "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}\n");
    DataReading skipping = chatml();
    skipping.skip_bad_lines = true;
    skipping.data_format = "rows";
    const std::string fault = error_of([&] { open(path, skipping); });
    EXPECT_NE(fault.find("x.jsonl' has no row that can be used: its one row was skipped"), std::string::npos) << fault;
    EXPECT_NE(fault.find("line 1 has 'messages[0].role' 'tool'"), std::string::npos) << fault;
    // A template is missing to all of them: none is bad, and skipping no remedy.
    for (const bool skips : {false, true}) {
        const std::string lacking =
            error_of([&] { open(dir.write("y.jsonl", kRows), {.data_format = "rows", .skip_bad_lines = skips}); });
        EXPECT_NE(lacking.find("name one with --chat-template"), std::string::npos) << lacking;
        EXPECT_EQ(lacking.find("skip"), std::string::npos) << lacking;
    }
}

TEST(RowSource, RefusesAFileWithNothingScored) {
    const TempDir dir;
    const std::string path = dir.write("x.jsonl", "{\"instruction\":\"Say\",\"output\":\" \"}\n");
    const std::string fault = error_of([&] { open(path, chatml()); });
    EXPECT_NE(fault.find("has nothing to learn from: 1 of its rows has no token that is scored"), std::string::npos)
        << fault;
    // A template that leaves answers out.
    DataReading reading = chatml();
    reading.chat_template =
        dir.write("t.jinja", "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}");
    EXPECT_NE(error_of([&] {
                  open(dir.write("y.jsonl", kRows.substr(0, kRows.find('\n') + 1)), reading);
              }).find("has nothing to learn from"),
              std::string::npos);
}

TEST(RowSource, WarnsOfNamesInContentsAndOfAnswersWithoutEnd) {
    const TempDir dir;
    const std::string row = "{\"instruction\":\"<|endoftext|>\",\"output\":\"b\"}\n";
    {
        const Warnings warnings;
        const auto source = open(dir.write("x.jsonl", row), chatml());
        EXPECT_NE(warnings.text().find("in contents of rows stands '<|endoftext|>' 1 time, which become"),
                  std::string::npos)
            << warnings.text();
        EXPECT_NE(shown(*source).find("user\n$<|im_end|>"), std::string::npos);
    }
    DataReading reading = chatml();
    reading.chat_template = dir.write("t.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    const Warnings warnings;
    EXPECT_EQ(shown(*open(dir.write("y.jsonl", "{\"instruction\":\"a\",\"output\":\"b\"}\n"), reading)),
              "|user: a\nassistant: [b]\n");
    EXPECT_NE(warnings.text().find("behind 1 answer the template puts no token that ends a turn"), std::string::npos)
        << warnings.text();
}

TEST(RowSource, ABeginningTokenStandsOnce) {
    const TempDir dir;
    const std::string text = dir.write("x.jsonl", "{\"text\":\"<|endoftext|>ab\"}\n");
    EXPECT_EQ(shown(*open(text, {.data_format = "rows"})), "|$[ab$]");
    DataReading reading = {.data_format = "rows"};
    reading.chat_template =
        dir.write("t.jinja", "<|endoftext|><|endoftext|>{% for m in messages %}{{ m.content }}{% endfor %}");
    const std::string fault =
        error_of([&] { open(dir.write("y.jsonl", "{\"instruction\":\"a\",\"output\":\"b\"}\n"), reading); });
    EXPECT_NE(fault.find("line 1: its text begins with '<|endoftext|>' twice"), std::string::npos) << fault;
}

/// Token files and marks of the rows, in shards of at most so many tokens.
void write_shards(const TokenSource& source, const std::string& prefix, int64_t shard_tokens) {
    std::vector<int32_t> tokens(static_cast<size_t>(source.size()));
    std::vector<uint8_t> marks(tokens.size());
    source.read(0, tokens);
    source.read_marks(0, marks);
    TokenFormat format = kGpt2Tokens;
    format.vocab_size = 257;
    TokenShardWriter writer(prefix, format, shard_tokens);
    for (size_t i = 0; i < tokens.size();) {
        size_t end = i + 1;
        while (end < tokens.size() && (marks[end] & kDocumentStart) == 0) ++end;
        writer.append_marked(std::span(tokens).subspan(i, end - i), std::span(marks).subspan(i, end - i));
        i = end;
    }
    writer.close();
}

TEST(MarkedTokenFiles, HoldWhatTheRowsSay) {
    const TempDir dir;
    const auto source = open(dir.write("x.jsonl", kRows), chatml());
    const std::string wanted = shown(*source);
    const ByteTokenizer bytes;
    for (const int64_t shard : {1000, 20, 1}) {
        const std::string prefix = dir / ("n" + std::to_string(shard) + "_train");
        write_shards(*source, prefix, shard);
        const auto again = open_token_source(prefix + "_*.bin", "--data", &bytes);
        EXPECT_TRUE(again->is_marked());
        EXPECT_EQ(shown(*again), wanted) << shard;
        // No row is cut.
        const size_t shards = again->token_files().size();
        EXPECT_EQ(shards, shard == 1000 ? 1u : shard == 20 ? 3u : 3u);
        for (const TokenFile* file : again->token_files()) {
            uint8_t mark = 0;
            file->read_marks(0, std::span(&mark, 1));
            EXPECT_EQ(mark & kDocumentStart, int{kDocumentStart});
        }
    }
}

TEST(MarkedTokenFiles, DamageIsRefused) {
    const TempDir dir;
    const auto source = open(dir.write("x.jsonl", kRows), chatml());
    write_shards(*source, dir / "a_train", 1000);
    const std::string path = dir / "a_train_000000.bin", marks_path = dir / "a_train_000000.marks";
    const std::string tokens = slurp(path), marks = slurp(marks_path);
    const auto refused = [&](const std::string& changed, const std::string& wanted) {
        dir.write("a_train_000000.marks", changed);
        const std::string fault = error_of([&] { open_token_source(path, "--data"); });
        EXPECT_NE(fault.find("--data: '" + marks_path + "' says what is scored of '" + path + "', but " + wanted),
                  std::string::npos)
            << fault;
    };
    std::string bit = marks, version = marks, magic = marks;
    bit.back() ^= 1;
    version[4] = 9;
    magic[0] ^= 1;
    refused(marks.substr(0, 20), "it is cut");
    refused(marks.substr(0, marks.size() - 1), "it is cut or damaged");
    refused(bit, "it is damaged: its checksum differs");
    refused(version, "it has version 9");
    refused(magic, "it is a file of another kind");
    dir.write("a_train_000000.marks", marks);
    std::string other = tokens;
    other[other.size() - 2] ^= 1;
    dir.write("a_train_000000.bin", other);
    EXPECT_NE(error_of([&] { open_token_source(path, "--data"); }).find("it belongs to other tokens than these"),
              std::string::npos);
    dir.write("a_train_000000.bin", tokens);
    EXPECT_TRUE(open_token_source(path, "--data")->is_marked());
    std::filesystem::remove(marks_path);
    EXPECT_FALSE(open_token_source(path, "--data")->is_marked());
}

TEST(MarkedTokenFiles, AreLeftOutOfPatternsAndFolders) {
    const TempDir dir;
    const auto source = open(dir.write("rows.txt", kRows), chatml());
    std::filesystem::create_directory(dir / "f");
    write_shards(*source, dir / "f/a_train", 20);
    const Warnings warnings;
    EXPECT_EQ(open_token_source(dir / "f", "--data")->size(), source->size());
    EXPECT_EQ(open_token_source(dir / "f/a_train_*", "--data")->size(), source->size());
    EXPECT_EQ(warnings.text(), "");
}

}  // namespace
}  // namespace llmc
