// The option table and its parser: the list itself, every range, config files, and combinations that make no sense.
#include "llmc/train/options.h"

#include "tests/io/temp_dir.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

/// Subcommands by the bit that stands for them.
struct Subcommand {
    CommandMask mask;
    const char* word;
};
constexpr Subcommand kSubcommands[] = {{kPlan, "plan"},     {kGenerate, "generate"}, {kEvaluate, "evaluate"},
                                       {kImport, "import"}, {kExport, "export"},     {kTokenize, "tokenize"}};

std::string flags_of(CommandMask command) {
    std::string text;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & command) != 0) text += std::string(row.flags) + " ";
    }
    return text;
}

// ---- the list
// --------------------------------------------------------------------------------------------------------

// Scripts rely on these names: adding one is a decision, removing one breaks somebody's script.
TEST(OptionTable, HoldsExactlyThese) {
    EXPECT_EQ(flags_of(kTrain),
              "-e,--model --layers --channels --heads --kv-heads --head-size --ffn-size --vocab-size --max-seq-len "
              "--rope-theta --tied "
              "-i,--data --tokenizer --document-token --tokenizer-pattern --data-format --jsonl-field --chat-template "
              "--score --special-tokens --skip-bad-lines --no-scan "
              "-j,--val-data --pack -b,--batch-size -t,--seq-len -d,--total-batch-size -x,--steps "
              "-l,--learning-rate -k,--lr-schedule -u,--warmup -q,--final-lr-fraction --lr-decay-fraction "
              "-c,--weight-decay --optimizer --moments -w,--masters --gradients --beta1 --beta2 --adam-epsilon "
              "--grad-clip --freeze --trainable --lora --lora-alpha --rslora --lora-targets --lora-bias "
              "--lora-dropout --dropout --max-skipped-steps "
              "-r,--recompute --base-format --offload --update --calibrate --link-gbs --memory-budget "
              "--host-memory-budget "
              "--logits-chunk --block-tokens --tile-tokens --no-fuse "
              "-z,--zero --rank-invariant --check-ranks --no-overlap --comm-init "
              "--comm-timeout --comm-insecure "
              "--device --dtype --threads --cpu-products --kernels --tf32 --gemm-algorithms --peak-tflops "
              "-o,--output-dir -y,--resume --config --seed -v,--val-every --val-sequences -s,--sample-every "
              "-g,--sample-length --sample-prompt -n,--checkpoint-every --checkpoint-minutes --keep-checkpoints "
              "--keep-best --log-every "
              "--log-level "
              "--profile --dry-run --adapter ");
    EXPECT_EQ(
        flags_of(kPlan),
        "-e,--model --layers --channels --heads --kv-heads --head-size --ffn-size --vocab-size --max-seq-len "
        "--rope-theta --tied -i,--data --tokenizer --data-format --jsonl-field --chat-template --score "
        "--special-tokens --skip-bad-lines --pack -b,--batch-size -t,--seq-len -d,--total-batch-size "
        "--optimizer --moments -w,--masters --gradients --freeze --trainable --lora --lora-alpha --rslora "
        "--lora-targets --lora-bias --lora-dropout --dropout -r,--recompute --base-format --offload "
        "--update --calibrate --device-profile --link-gbs --memory-budget "
        "--host-memory-budget --logits-chunk --block-tokens --tile-tokens --no-fuse "
        "--ranks -z,--zero --rank-invariant "
        "--device --dtype --threads --cpu-products --kernels --tf32 --gemm-algorithms --config --log-level --json "
        "--bytes "
        "--list-steps --frontier "
        "--plot --timeline --what-fits --all-presets --emit-config ");
    EXPECT_EQ(flags_of(kGenerate),
              "-e,--model --tokenizer --chat-template --special-tokens --device --threads --cpu-products --tf32 --seed "
              "--log-level --run --adapter --prompt --chat --system --no-bos --ignore-eos --stop --length --samples "
              "--temperature --top-k "
              "--top-p ");
    EXPECT_EQ(flags_of(kEvaluate),
              "-e,--model -i,--data --tokenizer --document-token --tokenizer-pattern --data-format --jsonl-field "
              "--special-tokens --skip-bad-lines --no-scan "
              "-b,--batch-size -t,--seq-len --device --dtype --threads --cpu-products --kernels --tf32 --log-level "
              "--hellaswag "
              "--run --adapter ");
    EXPECT_EQ(flags_of(kImport), "--tokenizer --log-level --from --out ");
    EXPECT_EQ(flags_of(kExport),
              "--base-format --dtype --log-level --run --adapter --format --merge --gguf-type --out ");
    EXPECT_EQ(flags_of(kTokenize),
              "--vocab-size --tokenizer --document-token --tokenizer-pattern --data-format --jsonl-field "
              "--chat-template --score --special-tokens --skip-bad-lines --threads --log-level "
              "--out files --shard-tokens --val-fraction --val-tokens --llmc-tokenizer --train-bpe ");
}

TEST(OptionTable, EveryRowIsComplete) {
    std::vector<std::string> names;
    for (const OptionRow& row : option_table()) {
        const std::string name = row.name();
        names.push_back(name);
        EXPECT_EQ(std::string(row.flags).find('_'), std::string::npos) << row.flags;
        EXPECT_NE(row.commands, 0) << name;
        EXPECT_GT(std::string(row.help).size(), 5u) << name;
        EXPECT_FALSE(std::string(row.group).empty()) << name;
        const bool is_number = std::holds_alternative<int64_t Options::*>(row.field) ||
                               std::holds_alternative<double Options::*>(row.field);
        EXPECT_EQ(row.maximum > row.minimum, is_number) << name;
    }
    std::sort(names.begin(), names.end());
    EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

TEST(OptionTable, DefaultsAreWithinTheirRanges) {
    const Options defaults;
    for (const OptionRow& row : option_table()) {
        std::visit(
            [&](auto member) {
                const auto& value = defaults.*member;
                using Value = std::remove_cvref_t<decltype(value)>;
                if constexpr (std::is_same_v<Value, std::string>) {
                    if (row.choices.empty() || value.empty()) return;
                    EXPECT_EQ(std::count(row.choices.begin(), row.choices.end(), value), 1) << row.name();
                } else if constexpr (std::is_same_v<Value, int64_t> || std::is_same_v<Value, double>) {
                    if (value == 0) return;  // Not given.
                    EXPECT_GE(static_cast<double>(value), row.minimum) << row.name();
                    EXPECT_LE(static_cast<double>(value), row.maximum) << row.name();
                }
            },
            row.field);
    }
}

// ---- values
// ------------------------------------------------------------------------------------------------------------

/// The command line that reaches an option, with a value for it.
Words line_for(const OptionRow& row, const std::string& value) {
    const std::string words = "--" + row.name() + "=" + value;
    if ((row.commands & kTrain) != 0) return {words};
    for (const Subcommand& subcommand : kSubcommands) {
        if ((row.commands & subcommand.mask) != 0) return {subcommand.word, words};
    }
    ADD_FAILURE() << row.name() << " belongs to no command";
    return {};
}

TEST(ParseOptions, EveryRangeIsCheckedAtBothEnds) {
    for (const OptionRow& row : option_table()) {
        Words inside, outside = {"x", "nan", "inf", "-inf", "1e400", "1x", "0x1", " 1", "1 ", "--5"};
        if (std::holds_alternative<int64_t Options::*>(row.field)) {
            inside = {fmt::format("{:.0f}", row.minimum), fmt::format("{:.0f}", row.maximum)};
            outside.push_back(fmt::format("{:.0f}", row.minimum - 1));
            outside.push_back(fmt::format("{:.0f}", row.maximum + 1));
            for (const char* text : {"99999999999999999999", "-99999999999999999999", "1.5", "1e3"})
                outside.push_back(text);
        } else if (std::holds_alternative<double Options::*>(row.field)) {
            inside = {fmt::format("{}", row.minimum), fmt::format("{}", row.maximum)};
            outside.push_back(fmt::format("{}", row.minimum - 1e-3));
            outside.push_back(fmt::format("{}", std::nextafter(row.maximum, HUGE_VAL)));
        } else {
            continue;
        }
        for (const std::string& value : outside) {
            EXPECT_TRUE(has(refusal(line_for(row, value)), {"--" + row.name() + ": must be a", "not '" + value + "'"}));
        }
        for (const std::string& value : inside) {  // Refused, if at all, for what it stands beside.
            EXPECT_EQ(refusal(line_for(row, value)).find("number from"), std::string::npos) << row.name() << value;
        }
    }
}

TEST(ParseOptions, ChoicesAreChecked) {
    for (const OptionRow& row : option_table()) {
        if (row.choices.empty()) continue;
        for (const std::string& choice : row.choices) {
            EXPECT_EQ(refusal(line_for(row, choice)).find("must be one of"), std::string::npos) << row.name();
        }
        const bool is_text = std::holds_alternative<std::string Options::*>(row.field);
        const std::string wanted = is_text ? ": must be one of" : ": must be " + row.choices.front() + " or a ";
        for (const char* value : {"other", "FP32", "0"}) {
            EXPECT_TRUE(has(refusal(line_for(row, value)), {"--" + row.name() + wanted, value, row.choices.back()}));
        }
    }
}

TEST(ParseOptions, WithoutWordsIsTheDemo) {
    const Options options = parse({}), defaults;
    EXPECT_EQ(options.command, Command::Train);
    EXPECT_EQ(to_toml(options), to_toml(defaults));
    EXPECT_FALSE(options.was_given("data"));
}

TEST(ParseOptions, ShortLettersMeanTheLongOptions) {
    const Options a = parse({"-b", "4", "-t", "64", "-l", "0.01", "-x", "9", "-u", "3", "-r", "2", "-o", "out"});
    const Options b = parse({"--batch-size=4", "--seq-len=64", "--learning-rate=0.01", "--steps=9", "--warmup=3",
                             "--recompute=2", "--output-dir=out"});
    EXPECT_EQ(to_toml(a), to_toml(b));
    EXPECT_EQ(a.batch_size, 4);
    EXPECT_EQ(a.output_dir, "out");
    EXPECT_TRUE(a.was_given("warmup") && a.was_typed("warmup"));
    EXPECT_FALSE(parse({}).was_given("warmup")) << "each parse stands for itself";
}

// llm.c's -w is 1 to keep master weights, and 0 not to.
TEST(ParseOptions, LlmcsMasters) {
    for (const Words& none : {Words{"-w", "0"}, Words{"-w0"}, Words{"-w", "none"}, Words{"--masters=none"}})
        EXPECT_EQ(parse(none).masters, "none") << none.front();
    for (const Words& kept : {Words{"-w", "1"}, Words{"-w1"}, Words{"-w", "fp32"}, Words{}})
        EXPECT_EQ(parse(kept).masters, "fp32");
    EXPECT_EQ(parse({"plan", "-w", "0"}).masters, "none");
    EXPECT_TRUE(has(refusal({"-w", "2"}), {"--masters", "2", "fp32", "none"}));
}

TEST(ParseOptions, SubcommandsHaveTheirOwnOptions) {
    const Options plan = parse({"plan", "--json", "--layers=3"});
    EXPECT_EQ(plan.command, Command::Plan);
    EXPECT_TRUE(plan.json);
    EXPECT_EQ(plan.layers, 3);
    const Options generate = parse({"generate", "--run=runs/x", "--top-p=0.5"});
    EXPECT_EQ(generate.command, Command::Generate);
    EXPECT_EQ(generate.top_p, 0.5);
    for (const OptionRow& row : option_table()) {
        for (const Subcommand& subcommand : kSubcommands) {
            if ((row.commands & subcommand.mask) != 0 || row.stands_alone()) continue;
            const bool is_flag = std::holds_alternative<bool Options::*>(row.field);
            const std::string message = refusal({subcommand.word, "--" + row.name() + (is_flag ? "" : "=1")});
            EXPECT_TRUE(
                has(message, {"--" + row.name() + ": " + subcommand.word + " does not have this option, only "}))
                << subcommand.word;
        }
    }
}

TEST(ParseOptions, WhatIsUnknownIsNamed) {
    EXPECT_TRUE(has(refusal({"--frobnicate"}), {"--frobnicate", "--help"}));
    EXPECT_TRUE(has(refusal({"--frobnicate=3"}), {"--frobnicate"}));
    EXPECT_TRUE(has(refusal({"frobnicate"}), {"frobnicate"}));
    EXPECT_TRUE(has(refusal({"-Z"}), {"-Z"}));
    EXPECT_TRUE(has(refusal({"plan", "extra"}), {"extra"}));
    EXPECT_TRUE(has(refusal({"plan", "generate"}), {"generate"}));
    EXPECT_TRUE(has(refusal({"--batch-size"}), {"--batch-size"}));
    EXPECT_TRUE(has(refusal({"--seed=1", "--seed=2"}), {"--seed"}));
    EXPECT_TRUE(has(refusal({"--layers=5", "plan"}), {"--layers: stands before", "write train_gpt plan --layers=5"}));
    EXPECT_TRUE(has(refusal({"--steps=5", "plan"}), {"--steps: plan does not have this option"}));
}

// ---- config files
// --------------------------------------------------------------------------------------------------------

/// Every saved option at a value that is not its default and needs all its digits or quotes.
Options unusual() {
    Options options;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & kTrain) == 0 || !row.shapes_run) continue;
        std::visit(
            [&](auto member) {
                auto& value = options.*member;
                using Value = std::remove_reference_t<decltype(value)>;
                if constexpr (std::is_same_v<Value, std::string>) {
                    value = row.choices.empty() ? "a # \"b\" 'c' \\ \t\n \xc3\xa9 =" : row.choices.back();
                } else if constexpr (std::is_same_v<Value, bool>) {
                    value = !value;
                } else if constexpr (std::is_same_v<Value, int64_t>) {
                    value = static_cast<int64_t>(row.minimum) + 2;
                } else if constexpr (std::is_same_v<Value, double>) {
                    value = row.minimum + (std::min(row.maximum, row.minimum + 1) - row.minimum) / 3;
                }
            },
            row.field);
    }
    options.recompute = "attn";
    options.trainable.clear();   // The parse has joined it to --freeze.
    options.gradients = "fp32";  // As --rank-invariant wants them.
    options.offload = "moments,boundaries";
    options.total_batch_size = 7 * options.batch_size * options.seq_len;
    return options;
}

TEST(Config, ARoundTripKeepsEveryBit) {
    const TempDir dir;
    const Options written = unusual();
    const Options read = parse({"--config=" + dir.write("config.toml", to_toml(written))});
    EXPECT_EQ(to_toml(read), to_toml(written));
    for (const OptionRow& row : option_table()) {
        if (!row.shapes_run || (row.commands & kTrain) == 0) continue;
        std::visit([&](auto member) { EXPECT_EQ(read.*member, written.*member) << row.name(); }, row.field);
    }
    const Options defaults;
    EXPECT_EQ(to_toml(parse({"--config=" + dir.write("default.toml", to_toml(defaults))})), to_toml(defaults));
}

TEST(Config, TheCommandLineWins) {
    const TempDir dir;
    const std::string file = "--config=" + dir.write("c.toml", "steps = 40\nseed = 5\nwarmup = 30\ndry-run = true\n");
    const Options options = parse({file, "--steps=20"});
    EXPECT_EQ(options.steps, 20);
    EXPECT_EQ(options.seed, 5);
    EXPECT_TRUE(options.dry_run);
    EXPECT_TRUE(options.was_given("seed") && !options.was_typed("seed"));
    EXPECT_TRUE(options.was_given("steps") && options.was_typed("steps"));
    EXPECT_FALSE(options.was_given("model"));
    EXPECT_EQ(options.warmup, 30);  // Longer than these few steps, but not typed: no contradiction.
}

TEST(Config, FaultsNameFileLineAndOption) {
    const TempDir dir;
    const auto refused = [&](const std::string& text, std::initializer_list<std::string_view> parts) {
        const std::string path = dir.write("c.toml", text);
        EXPECT_TRUE(has(refusal({"--config=" + path}), {path}));
        EXPECT_TRUE(has(refusal({"--config=" + path}), parts));
    };
    refused("steps = 3\nspeed = 5\n", {"line 2", "'speed'"});
    refused("batch-size = 0\n", {"line 1", "--batch-size: must be"});
    refused("learning-rate = nan\n", {"--learning-rate: must be"});
    refused("dtype = \"fp64\"\n", {"--dtype", "fp64", "bf16"});
    refused("dry-run = maybe\n", {"line 1", "dry-run"});
    refused("resume = \"x\"\n", {"'resume'"});
    refused("config = \"x\"\n", {"'config'"});
}

TEST(Config, OfATrainingRunServesPlan) {
    const TempDir dir;
    Options written;
    written.layers = 7;
    written.steps = 3;
    const Options plan = parse({"plan", "--config=" + dir.write("c.toml", to_toml(written)), "--seq-len=64"});
    EXPECT_EQ(plan.command, Command::Plan);
    EXPECT_EQ(plan.layers, 7);
    EXPECT_EQ(plan.seq_len, 64);
}

TEST(Config, AResumedRunKeepsItsOptions) {
    const TempDir dir;
    std::filesystem::create_directories(dir / "run/checkpoints/step-00000010");
    Options written;
    written.layers = 5;
    written.learning_rate = 0.01 / 3;
    written.steps = 50;
    dir.write("run/config.toml", to_toml(written));
    for (const char* path : {"run", "run/checkpoints/step-00000010"}) {
        const Options options = parse({"--resume=" + (dir / path), "--steps=80", "--recompute=2"});
        EXPECT_EQ(options.layers, 5);
        EXPECT_EQ(options.learning_rate, 0.01 / 3);
        EXPECT_EQ(options.steps, 80);
        EXPECT_EQ(options.recompute, "2");
    }
    EXPECT_TRUE(has(refusal({"--resume=" + (dir / "run"), "--config=x.toml"}), {"--config=x.toml", "leave"}));
    EXPECT_TRUE(has(error_of([&] { parse({"--resume=" + (dir / "absent")}); }), {"--resume", "absent"}));
}

/// What a run has in its folder may be named as it was when it began, and no other may.
TEST(Config, ARepeatedCommandGoesOn) {
    const TempDir dir;
    for (const char* folder : {"run/checkpoints/step-00000010", "words", "others", "lora"})
        std::filesystem::create_directories(dir / folder);
    const std::string run = dir / "run";
    const Words began = {"--output-dir=" + run,
                         "-y1",
                         "--tokenizer=" + (dir / "words"),
                         "--document-token=<a>",
                         "--tokenizer-pattern=[a-z]+",
                         "--adapter=" + (dir / "lora")};
    const Options first = parse(began);
    EXPECT_EQ(first.resume, "") << "there is nothing to go on from";
    EXPECT_TRUE(first.was_typed("tokenizer"));
    dir.write("run/config.toml", config_of_run(first, run));
    dir.write("run/checkpoints/step-00000010/manifest.json", "");

    const Options again = parse(began);
    EXPECT_EQ(again.resume, run);
    for (const char* name : {"tokenizer", "document-token", "tokenizer-pattern", "adapter"}) {
        EXPECT_FALSE(again.was_typed(name)) << name;
    }
    EXPECT_EQ(again.tokenizer, dir / "words");
    EXPECT_TRUE(has(refusal({"--resume=" + run, began.back()}), {"--adapter=", "its own adapters"}));
    EXPECT_EQ(parse({"--resume=" + run, "--tokenizer=" + (dir / "others/../words/")}).resume, run);

    const auto refused = [&](const std::string& option, const std::string& others) {
        EXPECT_TRUE(has(refusal({"--resume=" + run, option}), {option + ": the run began " + others, "leave "}));
        EXPECT_EQ(refusal({"-y1", "--output-dir=" + run, option}), refusal({"--resume=" + run, option}));
    };
    refused("--tokenizer=" + (dir / "others"), "with '" + (dir / "words") + "'");
    refused("--tokenizer=bytes", "with '" + (dir / "words") + "'");
    refused("--document-token=<b>", "with '<a>'");
    refused("--tokenizer-pattern=x", "with '[a-z]+'");
    dir.write("run/config.toml", config_of_run(parse({}), run));
    refused("--tokenizer=bytes", "without, and keeps to that");
}

TEST(Config, ARepeatedCommandMayHaveAFile) {
    const TempDir dir;
    std::filesystem::create_directories(dir / "run/checkpoints/step-00000010");
    const std::string config = dir.write("c.toml", "steps = 50\nlayers = 5\ntokenizer = \"bytes\"\n");
    const Words words = {"--output-dir=" + (dir / "run"), "-y1", "--config=" + config, "--layers=6"};
    dir.write("run/config.toml", config_of_run(parse(words), dir / "run"));
    dir.write("run/checkpoints/step-00000010/manifest.json", "");
    dir.write("c.toml", "steps = 80\nlayers = 5\ntokenizer = \"bytes\"\n");
    const Options options = parse(words);
    EXPECT_EQ(options.resume, dir / "run");
    EXPECT_EQ(options.steps, 80) << "the file's, above those that the run had";
    EXPECT_EQ(options.layers, 6) << "and the command line's above those";
    dir.write("c.toml", "tokenizer = \"none\"\n");
    EXPECT_TRUE(has(refusal(words), {"--tokenizer=none: the run began with 'bytes'"}));
}

// ---- combinations
// ----------------------------------------------------------------------------------------------------------

TEST(Validate, RefusesWhatContradicts) {
    EXPECT_TRUE(has(refusal({"--batch-size=4", "--seq-len=10", "--total-batch-size=41"}),
                    {"--total-batch-size=41", "--batch-size", "--seq-len", "40"}));
    EXPECT_EQ(refusal({"--batch-size=4", "--seq-len=10", "--total-batch-size=120"}), "");
    EXPECT_TRUE(has(refusal({"--steps=5", "--warmup=6"}), {"--warmup=6", "--steps=5"}));
    EXPECT_EQ(refusal({"--steps=5", "--warmup=5"}), "");
    EXPECT_EQ(refusal({"--steps=5"}), "");  // The default warm-up is longer; that is nobody's mistake.
    EXPECT_TRUE(has(refusal({"--recompute=3"}), {"--recompute=3", "none", "sqrt"}));
    EXPECT_TRUE(has(refusal({"--memory-budget=lots"}), {"--memory-budget=lots", "6GiB"}));
    EXPECT_TRUE(has(refusal({"generate"}), {"--run"}));
    EXPECT_TRUE(has(refusal({"--rank-invariant", "--gradients=bf16"}), {"--rank-invariant", "--gradients=fp32"}));
    EXPECT_EQ(refusal({"--rank-invariant", "--moments=8bit"}), "");
}

/// What is said of the command line besides: nothing is refused merely because it has no effect.
std::string noted(const Words& words) {
    EXPECT_EQ(refusal(words), "");
    std::string text;
    for (const std::string& line : parse(words).remarks) text += line + "\n";
    return text;
}

TEST(Validate, NotesOptionsWithoutEffect) {
    EXPECT_TRUE(has(noted({"--lr-decay-fraction=0.5"}), {"--lr-decay-fraction: has no effect", "wsd"}));
    EXPECT_EQ(noted({"--lr-decay-fraction=0.5", "--lr-schedule=wsd"}), "");
    EXPECT_TRUE(has(noted({"--final-lr-fraction=0.5", "--lr-schedule=constant"}), {"--final-lr-fraction"}));
    EXPECT_TRUE(has(noted({"--sample-prompt=x", "--sample-length=0"}), {"--sample-prompt", "--sample-length=0"}));
    EXPECT_TRUE(has(noted({"--sample-every=5", "--sample-length=0"}), {"--sample-every", "--sample-length=0"}));
    EXPECT_TRUE(has(noted({"--val-sequences=5", "--val-every=0"}), {"--val-sequences", "--val-every=0"}));
    EXPECT_TRUE(has(noted({"--host-memory-budget=1GiB"}), {"--host-memory-budget", "--offload"}));
    EXPECT_TRUE(has(noted({"plan", "--zero=2"}), {"--zero", "--ranks"}));
    EXPECT_TRUE(has(noted({"plan", "--json", "--list-steps", "--bytes"}), {"--list-steps", "--json", "--bytes"}));
    EXPECT_TRUE(has(noted({"plan", "--plot=x.svg"}), {"--plot", "--frontier"}));
    EXPECT_TRUE(has(noted({"plan", "--frontier", "--recompute=1"}), {"--recompute", "--frontier"}));
    EXPECT_EQ(noted({"plan", "--frontier", "--memory-budget=1GiB"}), "");
    EXPECT_TRUE(has(noted({"plan", "--what-fits=1GiB", "--batch-size=2"}), {"--batch-size", "--what-fits"}));
    EXPECT_TRUE(has(noted({"plan", "--what-fits=1GiB", "--memory-budget=1GiB"}), {"--memory-budget", "--what-fits"}));
    EXPECT_EQ(noted({"plan", "--what-fits", "--memory-budget=1GiB"}), "");
}

TEST(WhatFits, TakesTheDeviceWhereNothingIsSaid) {
    EXPECT_EQ(parse({"plan"}).what_fits, "");
    EXPECT_EQ(parse({"plan", "--what-fits"}).what_fits, kWholeDevice);
    EXPECT_EQ(parse({"plan", "--what-fits", "--json"}).what_fits, kWholeDevice);
    EXPECT_TRUE(parse({"plan", "--what-fits", "--json"}).json);
    EXPECT_EQ(parse({"plan", "--what-fits=3GiB"}).what_fits, "3GiB");
    EXPECT_EQ(parse({"plan", "--what-fits", "3GiB"}).what_fits, "3GiB");
    EXPECT_EQ(parse({"plan", "--all-presets"}).what_fits, kWholeDevice);
    EXPECT_EQ(parse({"plan", "--emit-config=x.toml"}).what_fits, kWholeDevice);
    EXPECT_TRUE(has(refusal({"plan", "--what-fits", "--emit-config=x.json"}), {"--emit-config=x.json", ".toml"}));
    EXPECT_TRUE(has(refusal({"plan", "--all-presets", "--emit-config=x.toml"}), {"--emit-config", "--all-presets"}));
}

TEST(Validate, AProfileMustBeOne) {
    EXPECT_TRUE(
        has(refusal({"plan", "--device-profile=rtx4099"}), {"--device-profile=rtx4099", "did you mean rtx409"}));
    EXPECT_TRUE(has(refusal({"plan", "--device-profile=4090"}), {"did you mean rtx4090?"}));
    EXPECT_TRUE(has(refusal({"plan", "--device-profile=abacus"}), {"no such profile; choose one of", "h100"}));
    EXPECT_TRUE(has(refusal({"plan", "--device-profile=gone.toml"}), {"gone.toml", "no such file", "--calibrate"}));
    EXPECT_TRUE(has(refusal({"plan", "--link-gbs=0"}), {"--link-gbs"}));
}

TEST(Validate, APlanIsOneReport) {
    EXPECT_EQ(refusal({"plan", "--frontier", "--plot=x.svg"}), "");
    EXPECT_EQ(refusal({"plan", "--what-fits=80%", "--recompute=0,auto"}), "");
    EXPECT_EQ(refusal({"plan", "--recompute=auto", "--timeline=x.svg"}), "");
    EXPECT_TRUE(has(refusal({"plan", "--frontier", "--what-fits=1GiB"}), {"--what-fits", "--frontier"}));
    EXPECT_TRUE(has(refusal({"plan", "--frontier", "--recompute=1", "--timeline=x.svg"}), {"--timeline", "leave"}));
    EXPECT_TRUE(has(refusal({"plan", "--timeline=x.svg"}), {"--timeline=x.svg", "--recompute=1"}));
    EXPECT_TRUE(has(refusal({"plan", "--timeline=x.svg", "--recompute=0,1"}), {"--timeline=x.svg", "one"}));
    EXPECT_TRUE(has(refusal({"plan", "--frontier", "--plot=x.pdf"}), {"--plot=x.pdf", ".svg"}));
    EXPECT_TRUE(has(refusal({"plan", "--what-fits=lots"}), {"--what-fits=lots", "6GiB"}));
    EXPECT_TRUE(has(refusal({"plan", "--what-fits="}), {"--what-fits"}));
}

TEST(ParseBudget, ReadsSizesAndShares) {
    EXPECT_EQ(parse_budget("--memory-budget", "1500B", 8), 1500);
    EXPECT_EQ(parse_budget("--memory-budget", "1048576", 8), 1048576);
    EXPECT_EQ(parse_budget("--memory-budget", "6GiB", 8), int64_t{6} << 30);
    EXPECT_EQ(parse_budget("--memory-budget", "512MiB", 8), int64_t{512} << 20);
    EXPECT_EQ(parse_budget("--memory-budget", "80%", 1000), 800);
    EXPECT_EQ(parse_budget("--memory-budget", "100%", 1000), 1000);
    for (const char* text : {"", "0", "-5", "x", "5X", "0%", "101%", "-1%", "%", "5%%", "1e30", "nan", "nan%"}) {
        EXPECT_TRUE(has(error_of([&] { parse_budget("--memory-budget", text, 1000); }), {"--memory-budget"})) << text;
    }
    EXPECT_TRUE(has(error_of([] { parse_budget("--what-fits", "24", 8); }), {"--what-fits=24: 24 bytes; write 24GiB"}));
    EXPECT_TRUE(has(error_of([] { parse_budget("--what-fits", "1048575", 8); }), {"1048575 bytes"}));
}

}  // namespace
}  // namespace llmc
