// Races that are there on purpose, one in each area with threads of its own: a thread sanitizer that does not report
// them would say nothing of real ones either. In builds without it there is nothing to see.
#include "llmc/base/log.h"
#include "llmc/comm/link.h"
#include "llmc/io/text_file.h"
#include "tests/io/temp_dir.h"
#include "tests/sanitizers.h"

#include <spdlog/sinks/null_sink.h>

#include <memory>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace llmc {
namespace {

#ifdef __SANITIZE_THREAD__
constexpr bool kWithThreadSanitizer = true;
#else
constexpr bool kWithThreadSanitizer = false;
#endif
constexpr int kExitOfSanitizer = 66;  // tests/run.sh

/// Both at once, often enough to meet; then the process ends as one without a race would.
template <typename First, typename Second>
[[noreturn]] void at_once(First first, Second second) {
    std::thread other([&] {
        for (int i = 0; i < 1000; ++i) second();
    });
    for (int i = 0; i < 1000; ++i) first();
    other.join();
    std::exit(0);
}

class PlantedRacesDeathTest : public testing::Test {
  protected:
    void SetUp() override {
        if (!kWithThreadSanitizer) GTEST_SKIP() << "only with TSAN=1";
        GTEST_FLAG_SET(death_test_style, "threadsafe");
    }
};

TEST_F(PlantedRacesDeathTest, TwoThreadsAtOneLink) {
    int both[2] = {};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, both), 0);
    Link link{Socket(both[0])};
    const Socket other(both[1]);
    const auto send = [&] { link.send(MessageType::Heartbeat, "text"); };
    EXPECT_EXIT(at_once(send, send), testing::ExitedWithCode(kExitOfSanitizer), "ThreadSanitizer: data race");
}

TEST_F(PlantedRacesDeathTest, TwoThreadsWithOneBufferOfTokens) {
    const TempDir folder;
    const std::string path = folder.write("text", std::string(1000, 'x'));
    std::vector<int32_t> tokens(100);
    DataFile file;
    file.file = MappedFile(path);
    const TextFile text(std::move(file));
    const auto read = [&] { text.read(1, tokens); };
    EXPECT_EXIT(at_once(read, read), testing::ExitedWithCode(kExitOfSanitizer), "ThreadSanitizer: data race");
}

TEST_F(PlantedRacesDeathTest, AValueThatALineOfTheLogReads) {
    int64_t value = 0;
    spdlog::logger quiet("quiet", std::make_shared<spdlog::sinks::null_sink_mt>());
    const auto say = [&] { quiet.info("{}", value); };
    const auto change = [&] { ++value; };
    EXPECT_EXIT(at_once(say, change), testing::ExitedWithCode(kExitOfSanitizer), "ThreadSanitizer: data race");
}

}  // namespace
}  // namespace llmc
