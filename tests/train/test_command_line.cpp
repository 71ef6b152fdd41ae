// What a command line has wrong is said in our words: option, value, remedy. And every remedy is taken.
#include "llmc/train/options.h"

#include "tests/io/temp_dir.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>

#include <regex>

namespace llmc {
namespace {

/// The phrases of CLI11 that say nothing to a user.
void expect_our_words(const std::string& message) {
    for (const char* phrase : {"required but received", "required TEXT missing", "required N missing", "not expected",
                               "Could not convert", "disallowed flag", "arguments were"}) {
        EXPECT_EQ(message.find(phrase), std::string::npos) << message;
    }
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

/// An option as a command takes it.
struct Taken {
    const OptionRow* row;
    Words command;  ///< {"plan"}, or nothing for training.
};
std::vector<Taken> every_option() {
    std::vector<Taken> all;
    for (const OptionRow& row : option_table()) {
        if (row.stands_alone()) continue;
        if ((row.commands & kTrain) != 0) all.push_back({&row, {}});
        for (const CommandRow& command : subcommand_table()) {
            if ((row.commands & command.mask) != 0) all.push_back({&row, {command.name}});
        }
    }
    return all;
}

bool is_flag(const OptionRow& row) { return std::holds_alternative<bool Options::*>(row.field); }

std::string value_for(const OptionRow& row) {
    if (!row.choices.empty()) return row.choices.front();
    if (std::holds_alternative<std::string Options::*>(row.field)) return "x";
    const bool is_whole = std::holds_alternative<int64_t Options::*>(row.field);
    return is_whole ? fmt::format("{:.0f}", row.maximum) : fmt::format("{}", row.maximum);
}

Words with(Words words, std::initializer_list<std::string> more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST(CommandLine, AValueMissing) {
    for (const auto& [row, command] : every_option()) {
        if (is_flag(*row) || row->implied != nullptr) continue;
        const std::string name = "--" + row->name();
        for (const Words& words : {with(command, {name}), with(command, {name, "--log-level=info"}),
                                   with(command, {name, "--log-level", "info"}), with(command, {name, "--help"}),
                                   with(command, {name + "="}), with(command, {name + "=", "--log-level=info"})}) {
            const std::string message = refusal(words);
            EXPECT_TRUE(has(message, {name + ": ", " value", "write " + name + "="})) << words.back();
            expect_our_words(message);
        }
    }
    EXPECT_TRUE(
        has(refusal({"-b", "--seq-len=4"}), {"-b (--batch-size): needs a value, but '--seq-len=4' comes next"}));
    EXPECT_EQ(parse({"generate", "--run=x", "--prompt=--data"}).prompt, "--data") << "as the remedy says";
    EXPECT_EQ(parse({"generate", "--run=x", "--prompt", ""}).prompt, "");
}

TEST(CommandLine, AnOptionTwice) {
    for (const auto& [row, command] : every_option()) {
        if (is_flag(*row) || row->repeats) continue;
        const std::string word = "--" + row->name() + "=" + value_for(*row);
        const std::string message = refusal(with(command, {word, word}));
        EXPECT_TRUE(has(message, {"--" + row->name() + ": was given 2 times, as ", "give it once"}));
        expect_our_words(message);
    }
}

TEST(CommandLine, AFlagWithAValue) {
    for (const auto& [row, command] : every_option()) {
        if (!is_flag(*row)) continue;
        const std::string name = "--" + row->name();
        EXPECT_TRUE(has(refusal(with(command, {name + "=maybe"})), {name + ": must be true or false"}));
        EXPECT_TRUE(has(refusal(with(command, {name + "=300"})), {name + ": must be true or false"}));
        EXPECT_TRUE(has(refusal(with(command, {name + "="})), {name + ": there is no value"}));
        const std::string message = refusal(with(command, {name, "maybe"}));
        if (command == Words{"tokenize"}) continue;  // A file's name.
        EXPECT_TRUE(has(message, {name + ": takes no value", "'maybe'", name + "=false"}));
        expect_our_words(message);
    }
    EXPECT_FALSE(parse({"plan", "--json=false"}).json);
}

TEST(CommandLine, UnknownOptionsAndWhatWasMeant) {
    for (const auto& [row, command] : every_option()) {
        const std::string name = row->name();
        std::string with_bars = name, slip = name, letter_less = name;
        std::replace(with_bars.begin(), with_bars.end(), '-', '_');
        std::swap(slip[1], slip[2]);
        letter_less.erase(name.size() / 2, 1);
        for (const std::string& given : {with_bars, slip, letter_less}) {
            if (given == name || name.size() < 5 || given.ends_with('-')) continue;
            const std::string message = refusal(with(command, {"--" + given + "=1"}));
            if (message.find("does not have this option") != std::string::npos) continue;  // It is another's name.
            EXPECT_TRUE(has(message, {"--" + given + ": there is no such option; did you mean --", " --help"}));
            if (given == with_bars) {
                EXPECT_TRUE(has(message, {"did you mean --" + name + "?"}));
            }
            expect_our_words(message);
        }
    }
    EXPECT_TRUE(has(refusal({"--frobnicate"}), {"--frobnicate: there is no such option; see train_gpt --help"}));
    EXPECT_TRUE(has(refusal({"plan", "--frobnicate=3"}), {"--frobnicate: ", "see train_gpt plan --help"}));
    EXPECT_TRUE(has(refusal({"--total-batch=64"}), {"did you mean --total-batch-size?"}));
    EXPECT_TRUE(has(refusal({"-Z"}), {"-Z: there is no such option"}));
    EXPECT_TRUE(has(refusal({"plan", "--steps=3"}), {"--steps: plan does not have this option, only training"}));
    EXPECT_TRUE(has(refusal({"-seq-len=4"}), {"'-seq-len=4': a long name has two dashes; write --seq-len=4"}));
    EXPECT_TRUE(has(refusal({"-seq_len", "4"}), {"write --seq-len"}));
    EXPECT_EQ(parse({"-b4"}).batch_size, 4);
}

TEST(CommandLine, SubcommandsAndWhatWasMeant) {
    for (const CommandRow& command : subcommand_table()) {
        std::string slip = command.name;
        std::swap(slip[2], slip[3]);
        const std::string message = refusal({slip, "--run=x", "--seed=3"});
        EXPECT_TRUE(has(message, {"'" + slip + "': there is no such subcommand; did you mean " + command.name + "?"}));
        expect_our_words(message);
    }
    EXPECT_TRUE(has(refusal({"evalute", "--run"}), {"'evalute': there is no such subcommand; did you mean evaluate?"}));
    EXPECT_TRUE(has(refusal({"eval"}), {"did you mean evaluate?"}));
    EXPECT_TRUE(has(refusal({"train", "--steps=5"}), {"'train': training is no subcommand", "leave it out"}));
    EXPECT_TRUE(has(refusal({"frobnicate"}), {"'frobnicate'", "plan, generate, evaluate", "--data=FILE"}));
    EXPECT_TRUE(has(refusal({"plan", "generate"}), {"'generate': ", "one subcommand at a time"}));
}

TEST(CommandLine, WordsThatStandAlone) {
    const TempDir dir;
    const std::string file = dir.write("a.txt", "text");
    for (const auto& [words, option] :
         {std::pair(Words{file}, "data"), std::pair(Words{"plan", "gpt2"}, "model"),
          std::pair(Words{"generate", "--run=x", "Once upon"}, "prompt"), std::pair(Words{"evaluate", file}, "data"),
          std::pair(Words{"import", file}, "from"), std::pair(Words{"export", "--out=y", "runs/x"}, "run")}) {
        const std::string message = refusal(words);
        std::smatch advice;
        ASSERT_TRUE(std::regex_search(message, advice, std::regex("write --([a-z]+)='?([^',]*)'?"))) << message;
        EXPECT_EQ(advice[1], option);
        EXPECT_EQ(advice[2], words.back());
        expect_our_words(message);
        Words taken = words;
        taken.back() = fmt::format("--{}={}", advice[1].str(), advice[2].str());
        const std::string then = refusal(taken);
        EXPECT_EQ(then.find("stands alone"), std::string::npos) << then;
    }
}

TEST(CommandLine, WordsOfCommandsThatTakeNone) {
    EXPECT_TRUE(
        has(refusal({"manual", "x"}), {"'x': manual takes no such word; leave it out, or see train_gpt manual"}));
    EXPECT_TRUE(has(refusal({"help"}), {"'help': is an option; write train_gpt --help"}));
    EXPECT_TRUE(has(refusal({"plan", "help"}), {"'help': is an option; write train_gpt plan --help"}));
}

TEST(CommandLine, AdaptersOnRandomWeightsAreWarnedOf) {
    const auto remarks = [](const Words& words) { return fmt::format("{}", fmt::join(parse(words).remarks, "\n")); };
    EXPECT_TRUE(has(remarks({"--model=gpt2", "--lora=4"}), {"--lora=4: --model=gpt2 is an architecture"}));
    EXPECT_EQ(remarks({"--model=./gpt2", "--lora=4"}), "");
    EXPECT_EQ(remarks({"--model=gpt2"}), "");
    EXPECT_EQ(remarks({"plan", "--model=gpt2", "--lora=4"}), "");
}

TEST(CommandLine, LevelsMisspelled) {
    EXPECT_TRUE(has(refusal({"--recompute=sqr"}), {"--recompute=sqr: no such policy; did you mean sqrt?"}));
    EXPECT_EQ(refusal({"--recompute=zzzzzzzz"}).find("did you mean"), std::string::npos);
}

TEST(CommandLine, NumbersWrittenOtherwise) {
    for (const auto& [given, digits] :
         {std::pair("1e3", "1000"), std::pair("4_096", "4096"), std::pair("64.0", "64"), std::pair("1,000", "1000")}) {
        const std::string message = refusal({std::string("--steps=") + given});
        EXPECT_TRUE(has(message, {"--steps: must be a whole number", std::string("; write ") + digits}));
        EXPECT_EQ(parse({std::string("--steps=") + digits}).steps, std::stoll(digits));
    }
    EXPECT_EQ(refusal({"--steps=many"}).find("write"), std::string::npos);
    EXPECT_EQ(refusal({"--steps=1e30"}).find("write"), std::string::npos);
}

TEST(CommandLine, HelpIsAResult) {
    for (const Words& words : {Words{"--help"}, Words{"plan", "--help"}, Words{"--version"}}) {
        const Options options = parse(words);
        EXPECT_EQ(options.command, Command::Help);
        EXPECT_GT(options.help_text.size(), 10u);
    }
    EXPECT_TRUE(has(parse({"tokenize", "--help"}).help_text, {"--train-bpe"}));
}

TEST(Validate, NotesWhatTheChosenModeDoesNotHave) {
    const auto noted = [](const Words& words, std::initializer_list<std::string_view> parts) {
        EXPECT_EQ(refusal(words), "");
        std::string lines;
        for (const std::string& line : parse(words).remarks) lines += line + "\n";
        EXPECT_TRUE(has(lines, parts));
        EXPECT_TRUE(has(lines, {"has no effect"}));
    };
    noted({"--optimizer=lion", "--adam-epsilon=1e-6"}, {"--adam-epsilon: ", "only --optimizer=adamw has it"});
    noted({"--comm-init=none", "--comm-timeout=5"}, {"--comm-timeout: ", "--comm-init=none"});
    noted({"--dry-run", "--profile=x"}, {"--profile: ", "--dry-run"});
    noted({"plan", "--device-profile=h100", "--calibrate"}, {"--calibrate: ", "--device-profile"});
    noted({"generate", "--run=x", "--temperature=0", "--top-k=5"}, {"--top-k: ", "--temperature=0"});
    noted({"generate", "--run=x", "--temperature=0", "--top-p=0.5"}, {"--top-p: ", "--temperature=0"});
    noted({"generate", "--run=x", "--special-tokens"}, {"--special-tokens: ", "--prompt"});
    for (const Words& command : {Words{"evaluate", "--run=x"}, Words{"plan"}}) {
        noted(with(command, {"--data-format=text"}), {"--data-format: ", "--data"});
        noted(with(command, {"--jsonl-field=text"}), {"--jsonl-field: ", "--data"});
        noted(with(command, {"--special-tokens"}), {"--special-tokens: ", "--data"});
        noted(with(command, {"--jsonl-field=a", "--skip-bad-lines"}), {"--data"});
        EXPECT_EQ(refusal(with(command, {"--data=x", "--jsonl-field=text", "--special-tokens"})), "");
    }
    noted({"evaluate", "--run=x", "--document-token=x"}, {"--document-token: "});
    noted({"evaluate", "--run=x", "--hellaswag=h", "--seq-len=5"}, {"--seq-len: ", "--hellaswag"});
    noted({"evaluate", "--run=x", "--hellaswag=h", "--no-scan"}, {"--no-scan: "});
    EXPECT_EQ(refusal({"evaluate", "--run=x", "--seq-len=5"}), "");
    EXPECT_EQ(refusal({"--optimizer=lion", "--beta2=0.9"}), "");
    EXPECT_EQ(refusal({"generate", "--run=x", "--temperature=0", "--seed=5"}), "");
}

TEST(Validate, LearningNeedsAVocabularySize) {
    const std::string message = refusal({"tokenize", "--train-bpe", "--out=x", "a.txt"});
    EXPECT_TRUE(has(message, {"--train-bpe needs --vocab-size=N", "such as 4096"}));
    EXPECT_EQ(refusal({"tokenize", "--train-bpe", "--vocab-size=4096", "--out=x", "a.txt"}), "");
    EXPECT_TRUE(has(refusal({"tokenize", "--train-bpe", "--vocab-size=9", "--out=x", "a.txt"}), {"--vocab-size=9"}));
}

}  // namespace
}  // namespace llmc
