// The tokenizer that is asked for in the place of a model's own.
#include "llmc/io/models_tokenizer.h"
#include "tests/io/tokenizer_testing.h"
#include "tests/io/warnings.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

const std::string kJson = std::string(kGoldenFolder) + "tokenizer.json";

std::string warning(const std::string& given, const std::string& models) {
    const Warnings warnings;
    make_given_tokenizer(given, models);
    EXPECT_LE(warnings.count(), 1);
    return warnings.text();
}

TEST(GivenTokenizer, OneWithOtherTokensThanTheModelsIsWarnedOf) {
    EXPECT_TRUE(has(warning("bytes", kJson), {"--tokenizer: 'bytes' is not that of the model, '" + kJson + "'",
                                              "(257 tokens, not ", "leave --tokenizer out"}));
    EXPECT_TRUE(has(warning(kJson, "bytes"), {" of its ids mean other tokens there"}));
}

TEST(GivenTokenizer, TheSameTokensAreNoMatter) {
    const TempDir dir;
    for (const std::string& models : {std::string(), std::string("none"), kJson, dir.write("copy.json", slurp(kJson)),
                                      dir.write("broken.json", "{\"model\": 1}"), dir / "nowhere"}) {
        EXPECT_EQ(warning(kJson, models), "") << models;
    }
}

TEST(GivenTokenizer, ErrorsNameTheOption) {
    const TempDir dir;
    for (const std::string& reference : {dir / "nowhere", dir.path(), dir.write("text", "just text\n")}) {
        EXPECT_TRUE(has(error_of([&] { make_given_tokenizer(reference, ""); }), {"--tokenizer: ", reference}));
    }
}

}  // namespace
}  // namespace llmc
