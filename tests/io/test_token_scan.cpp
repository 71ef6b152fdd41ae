#include "llmc/io/token_scan.h"

#include "llmc/io/token_file.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(TokenScan, FindsTheLargestAndTheFirstBeyond) {
    const TempDir dir;
    setenv("XDG_CACHE_HOME", (dir / "cache").c_str(), 1);
    for (const TokenFormat& format : {kGpt2Tokens, kLlama3Tokens}) {
        const std::string name = std::to_string(format.magic);
        std::vector<int32_t> tokens(3'500'000);
        for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 300);
        tokens[2'100'000] = 4000;
        tokens[3'400'001] = 5000;
        TokenShardWriter writer(dir / name, format, 3'000'000);
        writer.append(tokens);
        writer.close();
        const auto source = open_token_source(dir / (name + "_*.bin"), "--data");
        for (const int threads : {1, 3}) EXPECT_EQ(largest_id(*source, threads), 5000);
        EXPECT_EQ(find_id_beyond(*source, 300),
                  "token 4000 in '" + dir / (name + "_000000.bin") + "' at token 2100000");
        EXPECT_EQ(find_id_beyond(*source, 4001),
                  "token 5000 in '" + dir / (name + "_000001.bin") + "' at token 400001");
        EXPECT_EQ(find_id_beyond(*source, 5001), "");
    }
    EXPECT_EQ(largest_id(*open_token_source(dir.write("a.txt", "text"), "--data"), 2), -1);
    EXPECT_EQ(largest_id(*open_token_source(dir.write("b", std::string(8, '\xff')), "--data", nullptr,
                                            {.data_format = "uint32"}),
                         2),
              4294967295);
    unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace llmc
