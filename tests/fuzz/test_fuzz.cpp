// Every parser of what comes from outside, given thousands of damaged files: it may refuse them with an Error and
// nothing else, whatever is in them. The cases are the same in every run. `make fuzz MINUTES=10` gives it that long,
// under sanitizers, `make test` some seconds and `make test-long` a few for each parser.
//
// A finding is named by parser and number: FUZZ_TARGET=tokenizer.json FUZZ_CASE=123 runs that one alone, and leaves its
// file in ./fuzz-case.
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/targets.h"
#include "tests/io/temp_dir.h"
#include "tests/long_tests.h"

#include "llmc/base/log.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <unistd.h>

namespace llmc {
namespace {

/// What is running, for a handler of signals.
char running[256];

void say_what_ran(int signal) {
    (void)!::write(STDERR_FILENO, running, std::strlen(running));
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

double setting(const char* name, double otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr && *text != '\0' ? std::atof(text) : otherwise;
}

/// Runs one case; what came out of it that should not have, or "".
std::string run_case(const FuzzTarget& target, int64_t number, const std::string& folder, bool keep) {
    constexpr unsigned kLongestSeconds = 30;
    std::snprintf(running, sizeof running, "\nfuzz: in FUZZ_TARGET='%s' FUZZ_CASE=%ld\n", target.name.c_str(),
                  static_cast<long>(number));
    Mutator mutator(static_cast<uint64_t>(number) * 1000003 + std::hash<std::string>()(target.name));
    const std::string content = number == 0 ? target.seeds[0] : mutator.next(target.seeds);
    if (keep) std::ofstream("fuzz-case", std::ios::binary) << content;
    alarm(kLongestSeconds);
    std::string fault;
    try {
        target.run(content, folder);
    } catch (const Error& error) {
        if (std::string(error.what()).empty()) fault = "an Error without words";
    } catch (const std::exception& other) {
        fault = fmt::format("{}: {}", typeid(other).name(), other.what());
    }
    alarm(0);
    return fault;
}

TEST(Fuzz, DamagedFilesAreRefusedAndNothingElse) {
    const std::filesystem::path memory = "/dev/shm";
    if (access(memory.c_str(), W_OK) == 0) setenv("TMPDIR", memory.c_str(), 1);
    const TempDir dir;
    setenv("XDG_CACHE_HOME", dir.path().c_str(), 1);
    std::filesystem::create_directories(dir / "own");
    std::vector<FuzzTarget> targets = fuzz_targets(dir / "own");
    const char* only = std::getenv("FUZZ_TARGET");
    if (only != nullptr) std::erase_if(targets, [&](const FuzzTarget& target) { return target.name != only; });
    ASSERT_FALSE(targets.empty()) << "FUZZ_TARGET names no parser";
    const double seconds = setting("FUZZ_SECONDS", long_tests() ? 60 : 6) / static_cast<double>(targets.size());
    const auto first = static_cast<int64_t>(setting("FUZZ_CASE", 0));
    const bool one_case = std::getenv("FUZZ_CASE") != nullptr;
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) std::signal(signal, say_what_ran);
    const auto level = spdlog::get_level();
    spdlog::set_level(spdlog::level::off);
    int64_t all = 0;
    for (const FuzzTarget& target : targets) {
        const double begin = now_seconds();
        int64_t number = first;
        do {
            if (number == first ||
                number % 64 == 0) {  // A fresh folder now and then: what a case leaves is for the next ones, too.
                std::filesystem::remove_all(dir / "work");
                std::filesystem::create_directory(dir / "work");
            }
            const std::string fault = run_case(target, number, dir / "work", one_case);
            EXPECT_EQ(fault, "") << "FUZZ_TARGET='" << target.name << "' FUZZ_CASE=" << number;
            ++number;
        } while (!one_case && now_seconds() - begin < seconds && !testing::Test::HasFailure());
        std::printf("fuzz: %-30s %9ld cases\n", target.name.c_str(), static_cast<long>(number - first));
        std::fflush(stdout);
        all += number - first;
    }
    spdlog::set_level(level);
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) std::signal(signal, SIG_DFL);
    std::printf("fuzz: %ld cases in all\n", static_cast<long>(all));
}

}  // namespace
}  // namespace llmc
