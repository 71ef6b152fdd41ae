// What a name that is no option may stand for.
#include "llmc/train/option_hints.h"

#include "llmc/base/nearest_word.h"
#include "llmc/train/options.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(OptionHints, OtherSpellings) {
    for (const char* name : {"learning_rate", "--learning_rate", "learningRate", "LEARNING_RATE", "learningrate",
                             "learning-rate", "learning rate"}) {
        EXPECT_EQ(similar_option(name, kTrain), "learning-rate") << name;
    }
    EXPECT_EQ(similar_option("top_k", kGenerate), "top-k");
    EXPECT_EQ(similar_option("total_batch", kTrain), "total-batch-size") << "a beginning";
}

TEST(OptionHints, SlipsOfTheFingers) {
    EXPECT_EQ(similar_option("leraning-rate", kTrain), "learning-rate");
    EXPECT_EQ(similar_option("lerning-rate", kTrain), "learning-rate");
    EXPECT_EQ(similar_option("--batch-szie", kTrain), "batch-size");
    EXPECT_EQ(similar_option("stepps", kTrain), "steps");
    EXPECT_EQ(similar_option("reccompute", kTrain), "recompute");
    EXPECT_EQ(similar_option("temprature", kGenerate), "temperature");
}

TEST(OptionHints, WhatOthersCallIt) {
    const std::pair<const char*, const char*> names[] = {{"lr", "learning-rate"},
                                                         {"block_size", "seq-len"},
                                                         {"max_steps", "steps"},
                                                         {"max_iters", "steps"},
                                                         {"n_layer", "layers"},
                                                         {"n_head", "heads"},
                                                         {"n_embd", "channels"},
                                                         {"hidden_size", "channels"},
                                                         {"batch_size", "batch-size"},
                                                         {"out_dir", "output-dir"},
                                                         {"dataset", "data"},
                                                         {"per_device_train_batch_size", "batch-size"},
                                                         {"warmup_steps", "warmup"},
                                                         {"max_grad_norm", "grad-clip"},
                                                         {"gradient_checkpointing", "recompute"},
                                                         {"eval_interval", "val-every"},
                                                         {"save_steps", "checkpoint-every"},
                                                         {"init_from", "model"}};
    for (const auto& [theirs, ours] : names) EXPECT_EQ(similar_option(theirs, kTrain), ours) << theirs;
    EXPECT_EQ(similar_option("max_new_tokens", kGenerate), "length");
    EXPECT_EQ(similar_option("ckpt", kGenerate), "run");
    EXPECT_EQ(did_you_mean("lr", kTrain), "; did you mean --learning-rate?");
    EXPECT_EQ(did_you_mean("n_layer", kTrain, ""), "; did you mean layers?");
    EXPECT_NE(did_you_mean("num_train_epochs", kTrain).find("--steps (it counts updates"), std::string::npos);
}

TEST(OptionHints, NothingWhereNothingIsNear) {
    for (const char* name : {"", "--", "x", "frobnicate", "wandb", "zzzzzzzz", "ab"}) {
        EXPECT_EQ(similar_option(name, kTrain), "") << name;
    }
    EXPECT_EQ(similar_option("learning_rate", kGenerate), "") << "not of this command";
}

TEST(OptionHints, EveryOptionIsFoundByItsOwnName) {
    for (const OptionRow& row : option_table()) {
        if (row.stands_alone()) continue;
        EXPECT_EQ(similar_option(row.name(), row.commands), row.name());
        std::string spelled = row.name();
        for (char& c : spelled) c = c == '-' ? '_' : c;
        EXPECT_EQ(similar_option(spelled, row.commands), row.name());
    }
}

TEST(OptionHints, SlipsAreCounted) {
    EXPECT_EQ(slips_between("steps", "steps"), 0);
    EXPECT_EQ(slips_between("steps", "stpes"), 1);
    EXPECT_EQ(slips_between("steps", "step"), 1);
    EXPECT_EQ(slips_between("steps", "stteps"), 1);
    EXPECT_EQ(slips_between("steps", "stops"), 1);
    EXPECT_EQ(slips_between("", "steps"), 5);
    EXPECT_EQ(slips_between("abc", "xyz"), 3);
}

}  // namespace
}  // namespace llmc
