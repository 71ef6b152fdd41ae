#include "llmc/base/prepare_process.h"

#include "llmc/base/error.h"
#include "llmc/base/threads.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <unistd.h>

namespace llmc {
namespace {

cpu_set_t mask_at_start;
bool has_mask_at_start = false;

/// Functions of this section run before those of libraries, libgomp's too.
__attribute__((no_sanitize("address", "undefined"))) void note_mask_at_start(int /*argc*/, char** /*argv*/,
                                                                             char** /*environment*/) {
    has_mask_at_start = sched_getaffinity(0, sizeof mask_at_start, &mask_at_start) == 0;
}
__attribute__((section(".preinit_array"), used)) void (*const run_first)(int, char**, char**) = note_mask_at_start;

constexpr const char* kGuard = "LLMC_PROCESS_PREPARED";  ///< Set in the second process; to what was taken back.
constexpr const char* kSelf = "/proc/self/exe";

/// This program; or, from a package, the one beside it that was built for processors with wider vectors.
std::string best_program() {
#if defined(__x86_64__) && !defined(__AVX512BF16__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl")) {
        std::error_code error;
        const auto self = std::filesystem::read_symlink(kSelf, error);
        const auto wide = self.parent_path() / "lib/avx512-bf16" / self.filename();
        if (!error && std::filesystem::exists(wide, error)) return wide.string();
    }
#endif
    return kSelf;
}

void open_standard_descriptors() {
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; ++descriptor) {
        if (fcntl(descriptor, F_GETFD) != -1) continue;
        const int opened = open("/dev/null", O_RDWR);  // Gets the lowest number that is free.
        if (opened < 0) [[maybe_unused]]
            const int held = open("/", O_PATH);  // A bare container; nobody can write to it.
    }
}

/// "2-5,9".
std::string in_ranges(const std::set<int>& numbers) {
    std::string text;
    for (auto first = numbers.begin(); first != numbers.end();) {
        auto end = first;
        int last = *first;
        while (++end != numbers.end() && *end == last + 1) last = *end;
        text += fmt::format("{}{}", text.empty() ? "" : ",", *first);
        if (last > *first) text += fmt::format("-{}", last);
        first = end;
    }
    return text;
}

/// The places of libgomp as OMP_PLACES has them, without processors that are not there; nothing where all are there.
std::optional<std::string> places_without_absent(const cpu_set_t& present, std::set<int>* absent) {
    std::string places;
    for (int place = 0; place < omp_get_num_places(); ++place) {
        std::vector<int> ids(static_cast<size_t>(omp_get_place_num_procs(place)));
        omp_get_place_proc_ids(place, ids.data());
        std::string kept;
        for (const int id : ids) {
            if (id >= CPU_SETSIZE || !CPU_ISSET(id, &present)) {
                absent->insert(id);
            } else {
                kept += (kept.empty() ? "" : ",") + std::to_string(id);
            }
        }
        if (!kept.empty()) places += (places.empty() ? "{" : ",{") + kept + "}";
    }
    if (absent->empty()) return std::nullopt;
    return places;
}

/// Takes places back that libgomp could not start threads on.
void correct_places(std::string* taken_back) {
    std::set<int> absent;
    const auto places = has_mask_at_start ? places_without_absent(mask_at_start, &absent) : std::nullopt;
    if (!places) return;
    const char* name = std::getenv("GOMP_CPU_AFFINITY") != nullptr ? "GOMP_CPU_AFFINITY" : "OMP_PLACES";
    *taken_back +=
        fmt::format("{}: processors {} are not there, or not for this process; {}\n", name, in_ranges(absent),
                    places->empty() ? "threads are not bound" : "threads are bound to " + *places);
    unsetenv("GOMP_CPU_AFFINITY");
    unsetenv("OMP_PLACES");
    if (places->empty()) return void(unsetenv("OMP_PROC_BIND"));
    setenv("OMP_PLACES", places->c_str(), 1);
    setenv("OMP_PROC_BIND", "true", 0);
}

void correct_stacks(std::string* taken_back) {
    constexpr int64_t kLeast = int64_t{256} << 10;
    const std::optional<int64_t> bytes = omp_stack_bytes();
    if (!bytes || (*bytes >= kLeast && can_start_thread(*bytes))) return;
    *taken_back +=
        fmt::format("OMP_STACKSIZE: a thread cannot have a stack of {} bytes; the usual size is used\n", *bytes);
    unsetenv("OMP_STACKSIZE");
    unsetenv("GOMP_STACKSIZE");
}

/// Threads made from here on, and programs started, may run where this one might.
bool restore_mask() {
    cpu_set_t now;
    if (!has_mask_at_start || sched_getaffinity(0, sizeof now, &now) != 0 || CPU_EQUAL(&now, &mask_at_start)) {
        return false;
    }
    return sched_setaffinity(0, sizeof mask_at_start, &mask_at_start) == 0;
}

}  // namespace

// How long an idle OpenMP thread spins before it sleeps, which libgomp decides before main() begins. Time of a series
// of parallel regions, each thread 30 % uneven, over the time their work needs; two cores of a virtual AMD Zen 5, where
// waking a sleeping thread takes 40 us; 2-20 us regions / 20-200 us / 200-4000 us:
//
//                           nothing else running        another process wants a core
//   default (about 5 ms)    1.09 / 1.02 / 1.06          27-565 / 42-64 / 9-13
//   never (passive)         3.9  / 2.9  / 2.8           2.5-4.7 / 3.6-5.3 / 3.0-4.5
//   passive, 300 spins      5.3  / 2.2  / 1.9           7-12 / 3.9-7.6 / 3.2-4.6
//   passive, 1000 spins     1.05 / 1.04 / 1.01          13-20 / 2.7-4.5 / 3.2-4.8    <- chosen
//   passive, 2000 spins     1.06 / 1.02 / 1.02          22-33 / 6-8 / 5-6
//   passive, 10000 spins    1.11 / 1.02 / 1.00          93 / 13 / 4
//
// 1000 spins (about 20 us) bridge the gaps between operations, and give the core away soon when another wants it.
void prepare_process(char** argv) {
    open_standard_descriptors();
    if (std::getenv(kGuard) != nullptr) return;
    const bool is_set = std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr;
    const std::string program = best_program();
    std::string taken_back;
    correct_places(&taken_back);
    correct_stacks(&taken_back);
    if (is_set && program == kSelf && taken_back.empty()) return;
    setenv(kGuard, taken_back.c_str(), 0);
    if (!is_set) {
        setenv("OMP_WAIT_POLICY", "passive", 0);
        setenv("GOMP_SPINCOUNT", "1000", 0);
    }
    restore_mask();
    execv(program.c_str(), argv);  // Returns only if it fails; then the run is right, only slower.
}

std::vector<std::string> settings_taken_back() {
    const char* text = std::getenv(kGuard);
    std::vector<std::string> lines;
    std::string_view rest = text == nullptr ? "" : text;
    for (size_t end; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
        lines.emplace_back(rest.substr(0, end));
    }
    return lines;
}

std::vector<int> processors_at_start() {
    std::vector<int> processors;
    for (int i = 0; has_mask_at_start && i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &mask_at_start)) processors.push_back(i);
    }
    return processors;
}

}  // namespace llmc
