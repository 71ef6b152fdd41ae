#include "llmc/base/threads.h"

#include "llmc/base/log.h"
#include "llmc/base/process_limits.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <latch>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace llmc {
namespace {

/// Besides those of OpenMP: the next batch is read in one, ranks watch over each other in one and exchange what they
/// have in one. The status line has one where there is room.
constexpr int kOthers = 3;

/// What a thread's stack may be. Most systems have 8 MiB.
constexpr size_t kSmallestStack = size_t{1} << 20, kLargestStack = size_t{8} << 20;

class ThreadAttributes {
  public:
    explicit ThreadAttributes(int64_t stack_bytes) {
        pthread_attr_init(&attributes_);
        valid_ = stack_bytes <= 0 || pthread_attr_setstacksize(&attributes_, static_cast<size_t>(stack_bytes)) == 0;
    }
    ~ThreadAttributes() { pthread_attr_destroy(&attributes_); }
    ThreadAttributes(const ThreadAttributes&) = delete;
    ThreadAttributes& operator=(const ThreadAttributes&) = delete;
    bool valid() const { return valid_; }
    const pthread_attr_t* get() const { return &attributes_; }

  private:
    pthread_attr_t attributes_ = {};
    bool valid_ = false;
};

int64_t threads_now() {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("Threads:")) return std::atoll(line.c_str() + std::string_view("Threads:").size());
    }
    return 0;
}

/// A thread that was joined counts a little longer.
void wait_until_only(int64_t threads) {
    for (int turn = 0; turn < 1000 && threads_now() > threads; ++turn) {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
}

/// How many of `wanted` more threads exist at a time.
int startable(int wanted, int64_t stack_bytes) {
    const ThreadAttributes attributes(stack_bytes);
    if (!attributes.valid()) return 0;
    const int64_t before = threads_now();
    std::latch over(1);
    const auto wait = [](void* latch) -> void* {
        static_cast<std::latch*>(latch)->wait();
        return nullptr;
    };
    std::vector<pthread_t> started;
    for (pthread_t thread; static_cast<int>(started.size()) < wanted;) {
        if (pthread_create(&thread, attributes.get(), wait, &over) != 0) break;
        started.push_back(thread);
    }
    over.count_down();
    for (const pthread_t thread : started) pthread_join(thread, nullptr);
    wait_until_only(before);
    return static_cast<int>(started.size());
}

void warn_of_fewer(int wanted, int granted, bool by_openmp) {
    const std::string limit = memory_limit_of_process() ? ", or of address space: ulimit -v" : "";
    spdlog::warn("threads {} wanted, {} possible: {}", wanted, granted,
                 by_openmp ? "OMP_THREAD_LIMIT"
                           : "the limit of processes (ulimit -u, or pids.max of the control group" + limit + ")");
}

}  // namespace

std::optional<int> threads_by_environment() {
    const char* text = std::getenv("OMP_NUM_THREADS");
    if (text == nullptr) return std::nullopt;
    std::string_view rest(text);
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    int number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    const bool is_last = end == rest.data() + rest.size() || *end == ',' || *end == ' ' || *end == '\t';
    if (error != std::errc() || number < 1 || !is_last) return std::nullopt;
    return std::min(number, omp_get_num_procs());
}

int possible_threads(int wanted) {
    static int granted = 1, refused = INT_MAX;
    if (wanted <= granted) return wanted;
    if (wanted >= refused) return granted;
    const int limit = omp_get_thread_limit();
    const int asked = std::min(wanted, limit);
    const int more = startable(asked - 1 + kOthers, omp_stack_bytes().value_or(0));
    const int possible = std::clamp(more + 1 - kOthers, 1, asked);
    granted = std::max(granted, possible);
    if (possible == wanted) return possible;
    refused = wanted;
    warn_of_fewer(wanted, possible, possible == limit);
    return possible;
}

void settle_threads(int64_t threads) {
    pthread_attr_t usual;
    if (pthread_getattr_default_np(&usual) == 0) {
        size_t bytes = 0;
        pthread_attr_getstacksize(&usual, &bytes);
        const size_t right = std::clamp(bytes, kSmallestStack, kLargestStack);
        if (right != bytes && pthread_attr_setstacksize(&usual, right) == 0) pthread_setattr_default_np(&usual);
        pthread_attr_destroy(&usual);
    }
    const int usual_count = threads_by_environment().value_or(omp_get_num_procs());
    omp_set_num_threads(possible_threads(threads > 0 ? static_cast<int>(threads) : usual_count));
}

bool can_start_thread(int64_t stack_bytes) { return startable(1, stack_bytes) == 1; }

std::optional<int64_t> omp_stack_bytes() {
    for (const char* name : {"OMP_STACKSIZE", "GOMP_STACKSIZE"}) {
        const char* text = std::getenv(name);
        if (text == nullptr) continue;
        char* end = nullptr;
        const int64_t number = std::strtoll(text, &end, 10);
        const std::string unit(end);
        const size_t first = unit.find_first_not_of(" \t");
        const char letter = first == std::string::npos ? 'K' : unit[first];
        const size_t at = std::string_view("BKMG").find(static_cast<char>(letter & ~0x20));
        const bool is_last =
            first == std::string::npos || unit.find_first_not_of(" \t", first + 1) == std::string::npos;
        if (end == text || number <= 0 || at == std::string_view::npos || !is_last) continue;
        if (number > (INT64_MAX >> (10 * at))) return INT64_MAX;
        return number << (10 * at);
    }
    return std::nullopt;
}

}  // namespace llmc
