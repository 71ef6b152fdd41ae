// --freeze and --trainable: one list in the order of the command line, as config.toml keeps it.
#include "llmc/train/setup.h"
#include "tests/io/temp_dir.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(FreezeOptions, JoinInTheOrderOfTheCommandLine) {
    EXPECT_EQ(parse({}).freeze, "");
    EXPECT_EQ(parse({"--freeze=wte"}).freeze, "wte");
    EXPECT_EQ(parse({"--freeze=wte", "--freeze=wpe,lnf_*"}).freeze, "wte,wpe,lnf_*");
    EXPECT_EQ(parse({"--freeze=wte", "--trainable=wte"}).freeze, "wte,!wte");
    EXPECT_EQ(parse({"--trainable=wte", "--freeze=wte"}).freeze, "!wte,wte");
    EXPECT_EQ(parse({"--freeze=a", "--trainable=b", "--freeze=c", "--trainable=d,e"}).freeze, "a,!b,c,!d,!e");
    EXPECT_EQ(parse({"plan", "--freeze", "a", "--trainable", "b"}).freeze, "a,!b");
    for (const Words& words : {Words{"--trainable=b", "--freeze=a"}, Words{"--freeze=a"}}) {
        EXPECT_EQ(parse(words).trainable, "") << "it has joined the other";
    }
}

TEST(FreezeOptions, TrainableAloneFreezesTheRest) {
    EXPECT_EQ(parse({"--trainable=*_bias,lnf_weight"}).freeze, "*,!*_bias,!lnf_weight");
    EXPECT_EQ(parse({"--freeze=!wte"}).freeze, "*,!wte");
    EXPECT_EQ(parse({"--trainable=!wte"}).freeze, "wte") << "that is --freeze";
}

TEST(FreezeOptions, AreKeptInAFile) {
    const TempDir folder;
    const Options options = parse({"--trainable=*_bias", "--trainable=wte"});
    EXPECT_NE(to_toml(options).find("freeze = \"*,!*_bias,!wte\"\n"), std::string::npos);
    EXPECT_EQ(to_toml(options).find("trainable"), std::string::npos);
    const std::string path = folder.write("run.toml", to_toml(options));
    EXPECT_EQ(parse({"--config=" + path}).freeze, options.freeze);
    EXPECT_EQ(parse({"--config=" + path, "--trainable=wpe"}).freeze, options.freeze + ",!wpe");
    EXPECT_EQ(parse({"--config=" + path, "--freeze=wpe"}).freeze, "wpe") << "the command line wins";
    const std::string own = folder.write("own.toml", "trainable = \"wte\"\n");
    EXPECT_EQ(parse({"--config=" + own}).freeze, "*,!wte");
}

TEST(FreezeOptions, MakeTheModel) {
    const Options options = parse({"--freeze=layers.*", "--trainable=layers.*.ln[12]_*"});
    const Model model = model_to_train(options, resolve_model(options, 257, 257));
    EXPECT_TRUE(model.has_frozen());
    for (const ParameterRow& row : model.parameters) {
        const bool in_layers = row.name.starts_with("layers.");
        EXPECT_EQ(row.trainable, !in_layers || row.name.find(".ln") != std::string::npos) << row.name;
    }
    EXPECT_THROW(parse({"--freeze=wte,,wpe"}), Error);
}

}  // namespace
}  // namespace llmc
