#include "llmc/io/hellaswag.h"
#include "tests/io/hellaswag_file.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

const std::vector<HellaswagExample> kExamples = {{{5, 6, 7}, {{1}, {2, 3}, {50256}, {4, 4, 4, 4}}, 3},
                                                 {{65534}, {{9, 9}, {8}, {8}, {1}}, 0}};

std::string error_for(const std::string& bytes) {
    const TempDir dir;
    const std::string path = dir.write("h.bin", bytes);
    const std::string message = error_of([&] { read_hellaswag(path, "--hellaswag"); });
    EXPECT_TRUE(has(message, {"--hellaswag", path}));
    return message;
}

TEST(Hellaswag, ReadsEveryExample) {
    const TempDir dir;
    const auto read = read_hellaswag(dir.write("h.bin", hellaswag_bytes(kExamples)), "--hellaswag");
    ASSERT_EQ(read.size(), kExamples.size());
    for (size_t i = 0; i < read.size(); ++i) {
        EXPECT_EQ(read[i].context, kExamples[i].context);
        EXPECT_EQ(read[i].endings, kExamples[i].endings);
        EXPECT_EQ(read[i].label, kExamples[i].label);
    }
}

TEST(Hellaswag, NamesTheExampleThatIsWrong) {
    const std::string good = hellaswag_bytes(kExamples);
    const auto changed = [&](size_t item, uint16_t value) {
        std::string bytes = good;
        std::memcpy(bytes.data() + 1024 + 2 * item, &value, 2);
        return error_for(bytes);
    };
    EXPECT_TRUE(has(changed(0, 1), {"example 0", "65535"}));
    EXPECT_TRUE(has(changed(1, 1), {"example 0", "by its header 1"}));
    EXPECT_TRUE(has(changed(3, 4), {"example 0", "label 4"}));
    EXPECT_TRUE(has(changed(4, 1), {"example 0", "1 endings"}));
    EXPECT_TRUE(has(changed(5, 0), {"example 0", "empty"}));
    EXPECT_TRUE(has(changed(5, 60000), {"example 0", "the file ends"}));
    EXPECT_TRUE(has(error_for(good.substr(0, good.size() - 2)), {"example 1", "the file ends"}));
    EXPECT_TRUE(has(error_for(good + "xx"), {"2 examples", "2 more bytes"}));
    EXPECT_TRUE(has(error_for(hellaswag_bytes({})), {"0 examples"}));
    EXPECT_TRUE(has(error_for(good.substr(0, 100)), {"not a HellaSwag file"}));
    EXPECT_TRUE(has(error_for("x" + good.substr(1)), {"not a HellaSwag file"}));
}

}  // namespace
}  // namespace llmc
