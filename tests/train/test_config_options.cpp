// What a config file may say of options: sections, types, names, and where each fault is.
#include "llmc/train/config_options.h"

#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <map>

namespace llmc {
namespace {

ConfigOptions read(std::string_view text) {
    const TempDir dir;
    return options_in(read_config(dir.write("c.toml", text), "--config=c.toml"), "--config=c.toml");
}

/// The values by name.
std::map<std::string, std::string> values(std::string_view text) {
    std::map<std::string, std::string> result;
    for (const ConfigOption& option : read(text).options) result[option.row->name()] = option.value;
    return result;
}

void refused(std::string_view text, std::initializer_list<std::string_view> parts) {
    const std::string message = error_of([&] { read(text); });
    EXPECT_TRUE(has(message, {"--config=c.toml"})) << text;
    EXPECT_TRUE(has(message, parts)) << text;
}

TEST(ConfigOptions, ValuesAreThoseOfTheCommandLine) {
    const auto given = values(
        "steps = 1_000\nlearning-rate = 1e-3\nwarmup = 0x10\nrank-invariant = true\ntied = true\n"
        "batch-size = 'auto'\ndata = \"a.txt\"\nrecompute = 2\ndocument-token = 50256\nmemory-budget = 1_000_000\n"
        "grad-clip = 1\n");
    EXPECT_EQ(given.at("steps"), "1000");
    EXPECT_EQ(given.at("learning-rate"), "0.001");
    EXPECT_EQ(given.at("warmup"), "16");
    EXPECT_EQ(given.at("rank-invariant"), "true");
    EXPECT_EQ(given.at("tied"), "true");
    EXPECT_EQ(given.at("batch-size"), "auto");
    EXPECT_EQ(given.at("recompute"), "2");
    EXPECT_EQ(given.at("document-token"), "50256");
    EXPECT_EQ(given.at("memory-budget"), "1000000");
    EXPECT_EQ(given.at("grad-clip"), "1");
    EXPECT_EQ(values("recompute = [0, 'attn', \"auto\"]").at("recompute"), "0,attn,auto");
}

TEST(ConfigOptions, EverySectionHoldsItsGroup) {
    std::string flat, by_sections, section;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & kTrain) == 0 || !row.shapes_run) continue;
        const bool is_text = std::holds_alternative<std::string Options::*>(row.field);
        const std::string value = std::holds_alternative<bool Options::*>(row.field) ? "true"
                                  : !is_text ? fmt::format("{:.0f}", row.minimum)
                                             : quoted(row.choices.empty() ? "x" : row.choices.front());
        if (section != section_of_group(row.group)) {
            by_sections += "[" + (section = section_of_group(row.group)) + "]\n";
        }
        flat += row.name() + " = " + value + "\n";
        by_sections += row.name() + " = " + value + "\n";
    }
    EXPECT_GT(values(flat).size(), 40u);
    EXPECT_EQ(values(flat), values(by_sections));
    EXPECT_EQ(values("[\"Data and batch\"]\nsteps = 1\n[optimization]\nbeta1 = 0.5\n[MODEL]\nlayers = 1").size(), 3u);
}

TEST(ConfigOptions, AnotherSectionIsRefusedWithTheRightOne) {
    refused("[model]\nlayers = 1\nsteps = 5\n", {"line 3", "'steps'", "[model]", "[data]"});
    refused("[modle]\nlayers = 1\n", {"line 2", "[modle]", "did you mean [model]?"});
    refused("[training]\nsteps = 1\n", {"line 2", "no section [training]; did you mean [data]?", "[model], [data]"});
    refused("[optimizer]\nbeta1 = 0.5\n", {"line 2", "did you mean [optimisation]?", "above all"});
    refused("[steps]\nvalue = 1\n", {"line 2", "'steps' is an option", "no 'value'"});
    refused("[model.inner]\nlayers = 1\n", {"line 1", "'inner'", "table"});
    refused("[[model]]\nlayers = 1\n", {"line 1", "--model", "a table"});
    refused("layers = { a = 1 }\n", {"line 1", "'layers'"});
    refused("layers = 1\n[model]\nlayers = 2\n", {"'layers'", "lines 1 and 3"});
}

TEST(ConfigOptions, NamesThatAreNoneGetAHint) {
    refused("learning_rate = 1\n", {"line 1", "'learning_rate'", "did you mean learning-rate?"});
    refused("[data]\nblock_size = 1\n", {"line 2", "did you mean seq-len?"});
    refused("lr = 1\n", {"did you mean learning-rate?"});
    refused("frobnicate = 1\n", {"'frobnicate'", "--help"});
    refused("resume = \"x\"\n", {"'resume'", "--resume on the command line"});
    refused("config = \"x\"\n", {"'config'"});
    refused("prompt = \"x\"\n", {"'prompt'", "--prompt"});
}

TEST(ConfigOptions, AnotherTypeIsNamedWithWhatIsWanted) {
    refused("\nsteps = \"5\"\n",
            {"line 2", "--steps: must be a whole number from 1", "not \"5\", a string", "leave the quotes"});
    const std::string no_number = error_of([&] { read("steps = \"many\"\n"); });
    EXPECT_TRUE(has(no_number, {"--steps: must be a whole number from 1", "not \"many\", a string"}));
    EXPECT_FALSE(has(no_number, {"leave the quotes"})) << "which would not help";
    refused("steps = 5.0\n", {"--steps: must be a whole number from 1", "not 5"});
    refused("steps = true\n", {"--steps: must be a whole number", "not true"});
    refused("steps = [5]\n", {"--steps: must be a whole number", "a list"});
    refused("steps = 1979-05-27\n", {"--steps: must be a whole number", "a date"});
    refused("learning-rate = 07:32:00\n", {"--learning-rate: must be a number from 0", "a date or time"});
    refused("learning-rate = \"3e-4\"\n", {"--learning-rate: must be a number", "leave the quotes out"});
    refused("keep-best = 1\n", {"--keep-best: must be true or false", "not 1"});
    refused("keep-best = \"true\"\n", {"--keep-best: must be true or false", "leave the quotes out"});
    refused("data = 5\n", {"--data: must be a text in quotes", "not 5"});
    refused("data = [\"a\", \"b\"]\n", {"--data: must be a text", "a list"});
    refused("model = true\n", {"--model: must be a text"});
    refused("dtype = 16\n", {"--dtype: must be one of auto, fp32, bf16"});
    refused("tied = 1\n", {"--tied: must be one of true, false"});
    refused("batch-size = \"many\"\n", {"--batch-size: must be 'auto' or a whole number", "not \"many\", a string"});
    refused("data = \"a\\u0000b\"\n", {"--data", "code 0"});
    refused("recompute = [1, [2]]\n", {"--recompute", "a list"});
    refused("steps = \"a\\nb\"\n", {"--steps", "\"a\\nb\", a string"});
    refused("\"a\\nb\" = 1\n", {"'a?b'"});
    refused("recompute = []\n", {"--recompute", "empty"});
}

TEST(ConfigOptions, WhereARunWas) {
    EXPECT_EQ(read("steps = 1\n[written]\nfolder = \"/a/b\"\n").written_folder, "/a/b");
    EXPECT_EQ(read("steps = 1\n").written_folder, "");
    refused("[written]\nfolder = 5\n", {"line 2", "[written]"});
    refused("[written]\nsteps = 5\n", {"line 2", "[written]"});
}

}  // namespace
}  // namespace llmc
