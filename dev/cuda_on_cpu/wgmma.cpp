#include "dev/cuda_on_cpu/wgmma.h"

#include "dev/cuda_on_cpu/async_work.h"
#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"
#include "dev/cuda_on_cpu/wgmma_tile.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace cuda_on_cpu {

namespace {

constexpr int kThreads = 128, kM = 64, kK = 16, kMostN = 256, kRegistersOfA = 4;
constexpr int kWord = 4;  // Bytes of a register.

/// The sums of one accumulator of a warpgroup, from its first product to the wait.
struct Sums {
    int n;
    std::vector<float> values;  // (64, n)
};

/// Where a thread's fragments lie: "wgmma.mma_async.m64nNk16" in the PTX ISA.
int row_of(int thread, int half) { return thread / kLanes * 16 + 8 * half + thread % kLanes / 4; }
int column_of(int thread, int eight) { return 8 * eight + 2 * (thread % 4); }

struct Product {
    WgmmaShape shape;
    uint64_t a, b;
    bool accumulate;
    Where where;
    const void* pc;
    int joined = 0;
    unsigned warps = 0;  // Of the warpgroup, whose clock is in it.
    uint64_t ticket = 0;
    uint32_t moment = 0;
    race::AsyncAccess access = {};
    std::shared_ptr<Sums> sums = nullptr;
    std::vector<uint32_t> a_registers = std::vector<uint32_t>();  // (128, 4)
    bool issued() const { return joined == kThreads; }
};

struct Warpgroup {
    std::vector<std::unique_ptr<Product>> products;
    std::vector<int> waiting;  // Threads, for a product to be issued.
};
Warpgroup warpgroups[race::kWarpgroups];

/// Registers of a thread that belong to products under way.
struct Held {
    const char* begin;
    size_t bytes;
    size_t last;                 // Product that uses them.
    std::shared_ptr<Sums> sums;  // Null for registers of A.
};

struct Registers {
    size_t joined = 0;               // Products,
    std::vector<size_t> group_ends;  // and how many there were at each commit.
    std::vector<Held> held;
    uint32_t epoch = 0;             // Of the last wgmma.fence, numbered through all threads and blocks.
    std::vector<uint32_t> touched;  // For each word of the stack: the epoch of its last access.
};
Registers registers_of[kMaxThreads];
uint32_t last_epoch = 0;

size_t word_of(const char* p) { return static_cast<size_t>(p - self().stack.low) / kWord; }

// Every access of a thread to its local variables, once it has used wgmma.
void watch(const char* p, size_t bytes, race::Access kind, const void* pc) {
    Registers& mine = registers_of[self().number];
    if (mine.epoch == 0) return;
    for (const Held& held : mine.held) {
        if (p + bytes <= held.begin || p >= held.begin + held.bytes) continue;
        const ExecutorScope scope;
        kernel_fault(format("registers in use: %s of %s of a wgmma before its wait, at %s",
                            kind == race::Access::Read ? "read" : "write", held.sums ? "the sums" : "the A registers",
                            lines_of(pc).c_str()));
    }
    const size_t first = word_of(p), end = word_of(p + bytes - 1) + 1;
    std::fill(mine.touched.begin() + static_cast<std::ptrdiff_t>(first),
              mine.touched.begin() + static_cast<std::ptrdiff_t>(end), mine.epoch);
}

/// Put into words only when a fault needs it.
struct Place {
    const void* pc;
    const Where& where;
    std::string text() const { return lines_of(pc, where); }
};

void check_untouched(const Registers& mine, const void* p, size_t bytes, const char* what, const Place& place) {
    if (mine.epoch == 0) kernel_fault(format("missing wgmma.fence: none before the wgmma at %s", place.text().c_str()));
    const size_t first = word_of(static_cast<const char*>(p));
    for (size_t word = first; word < first + bytes / kWord; ++word) {
        if (mine.touched[word] == mine.epoch)
            kernel_fault(
                format("missing wgmma.fence: %s were accessed after the last one, at %s", what, place.text().c_str()));
    }
}

float from_bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

void move_sums(Sums& sums, int thread, float* d, bool to_thread) {
    for (int i = 0; i < sums.n / 2; ++i) {
        const int row = row_of(thread, i % 4 / 2), column = column_of(thread, i / 4) + i % 2;
        float& value = sums.values[static_cast<size_t>(row * sums.n + column)];
        (to_thread ? d[i] : value) = to_thread ? value : d[i];
    }
}

/// The tile's elements as (16, rows).
void load(const WgmmaTile& tile, float* elements) {
    for (int major = 0; major < (tile.mn_major() ? kK : tile.rows()); ++major) {
        for (int minor = 0; minor < (tile.mn_major() ? tile.rows() : kK); minor += 8) {
            const int row = tile.mn_major() ? minor : major, k = tile.mn_major() ? major : minor;
            uint16_t eight[8];
            std::memcpy(eight, shared_pointer(tile.address(row, k)), sizeof eight);
            for (int i = 0; i < 8; ++i) {
                const int r = tile.mn_major() ? row + i : row, c = tile.mn_major() ? k : k + i;
                elements[c * tile.rows() + r] = from_bf16(eight[i]);
            }
        }
    }
}

void load_registers(const std::vector<uint32_t>& registers, float* elements) {
    for (int thread = 0; thread < kThreads; ++thread) {
        for (int i = 0; i < kRegistersOfA; ++i) {
            const uint32_t pair = registers[static_cast<size_t>(kRegistersOfA * thread + i)];
            const int row = row_of(thread, i % 2), k = column_of(thread, i / 2);
            elements[k * kM + row] = from_bf16(pair & 0xffffu);
            elements[(k + 1) * kM + row] = from_bf16(pair >> 16);
        }
    }
}

bool faulty_at_first() {
    const char* text = std::getenv("LLMC_CUDA_FAULT");
    return text != nullptr && std::strcmp(text, "wgmma") == 0;
}
bool is_wrong = faulty_at_first();

void multiply(Product& product) {
    static float a[kK * kM], b[kK * kMostN];
    const WgmmaShape& shape = product.shape;
    if (shape.a_in_registers)
        load_registers(product.a_registers, a);
    else
        load({product.a, kM, shape.a_mn_major}, a);
    load({product.b, shape.n, shape.b_mn_major}, b);
    if (is_wrong) std::fill_n(a, kM, 0.0f);
    float* const sums = product.sums->values.data();
    for (int m = 0; m < kM; ++m) {
        float* const row = sums + m * shape.n;
        if (!product.accumulate) std::fill_n(row, shape.n, 0.0f);
        for (int k = 0; k < kK; ++k) {
            const float factor = a[k * kM + m];
            for (int n = 0; n < shape.n; n += 8) {
                for (int i = 0; i < 8; ++i) row[n + i] += factor * b[k * shape.n + n + i];
            }
        }
    }
    product.a_registers = {};
}

void check_tile(const WgmmaTile& tile, const char* what, const Product& product) {
    const std::string problem = tile.problem();
    const Place place{product.pc, product.where};
    if (!problem.empty())
        kernel_fault(format("the descriptor of %s at %s: %s", what, place.text().c_str(), problem.c_str()));
    for (int major = 0; major < (tile.mn_major() ? kK : tile.rows()); ++major) {
        for (int minor = 0; minor < (tile.mn_major() ? tile.rows() : kK); minor += 8) {
            const uint32_t address = tile.mn_major() ? tile.address(minor, major) : tile.address(major, minor);
            race::async_access(shared_pointer(address), 16, race::Access::Read, product.access, product.pc);
        }
    }
}

/// All threads have come.
void issue(Product& product, int group) {
    product.access.agent = race::kFirstAgent + group;
    product.access.moment = product.moment = race::next_moment();
    product.access.block_barrier = race::last_block_barrier();
    if (!product.shape.a_in_registers) check_tile({product.a, kM, product.shape.a_mn_major}, "A", product);
    check_tile({product.b, product.shape.n, product.shape.b_mn_major}, "B", product);
    Product* const one = &product;
    product.ticket = start_async_work(group, [one] { multiply(*one); });
    for (const int thread : warpgroups[group].waiting) wake(thread_of_block(thread));
    warpgroups[group].waiting.clear();
}

void check_alike(const Product& product, const WgmmaShape& shape, uint64_t a, uint64_t b, bool accumulate,
                 const Where& where, const Place& place) {
    const char* difference = "";
    if (!same_place(product.where, where))
        difference = "come to different wgmmas";
    else if (product.shape.n != shape.n || product.a != a || product.b != b)
        difference = "have different descriptors";
    else if (product.accumulate != accumulate)
        difference = "differ in whether to accumulate";
    if (*difference)
        kernel_fault(format("divergent wgmma: threads of a warpgroup %s, at %s and %s", difference,
                            place.text().c_str(), lines_of(product.pc, product.where).c_str()));
}

/// A clock that has only what both have.
void keep_common(race::Clock& clock, const race::Clock& other) {
    for (int agent = 0; agent < race::kAgents; ++agent) clock[agent] = std::min(clock[agent], other[agent]);
}

/// The sums behind `d`, whose product is the thread's next: those under way, or taken over from the registers.
std::shared_ptr<Sums> hold_sums(Registers& mine, Product& product, size_t index, float* d, const Place& place) {
    const auto* begin = reinterpret_cast<const char*>(d);
    const size_t bytes = static_cast<size_t>(product.shape.n) / 2 * sizeof(float);
    for (Held& held : mine.held) {
        if (begin + bytes <= held.begin || begin >= held.begin + held.bytes) continue;
        if (held.begin != begin || held.bytes != bytes || !held.sums)
            kernel_fault(format("missing wgmma.fence: the sums at %s are registers of another shape under way",
                                place.text().c_str()));
        held.last = index;
        return held.sums;
    }
    check_untouched(mine, d, bytes, "the sums", place);
    std::shared_ptr<Sums> sums = product.sums;
    if (!sums) {
        sums = std::make_shared<Sums>();
        sums->n = product.shape.n;
        sums->values.resize(static_cast<size_t>(kM * sums->n));
    }
    move_sums(*sums, self().number % kThreads, d, false);
    std::memset(d, 0xff, bytes);  // NaN.
    mine.held.push_back({begin, bytes, index, sums});
    return sums;
}

void hold_a(Registers& mine, Product& product, size_t index, const uint32_t* a, const Place& place) {
    const size_t bytes = kRegistersOfA * sizeof *a;
    const auto same = std::find_if(mine.held.begin(), mine.held.end(), [a](const Held& held) {
        return held.begin == reinterpret_cast<const char*>(a) && !held.sums;
    });
    if (same == mine.held.end()) {
        check_untouched(mine, a, bytes, "the A registers", place);
        mine.held.push_back({reinterpret_cast<const char*>(a), bytes, index, nullptr});
    } else {
        same->last = index;
    }
    product.a_registers.resize(kThreads * kRegistersOfA);
    std::memcpy(&product.a_registers[static_cast<size_t>(self().number % kThreads * kRegistersOfA)], a, bytes);
}

}  // namespace

void wgmma(float* d, const uint32_t* a_registers, uint64_t a, uint64_t b, const WgmmaShape& shape, bool accumulate,
           const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    preempt();
    Thread& thread = self();
    Registers& mine = registers_of[thread.number];
    const Place place{pc, where};
    if (thread_count() % kThreads) kernel_fault("wgmma in a block that is no whole warpgroups, at " + place.text());
    const int group = thread.number / kThreads;
    auto& products = warpgroups[group].products;
    const size_t index = mine.joined++;
    if (index == products.size()) {
        products.push_back(std::make_unique<Product>(Product{shape, a, b, accumulate, where, pc}));
    }
    Product& product = *products[index];
    check_alike(product, shape, a, b, accumulate, where, place);
    std::shared_ptr<Sums> sums = hold_sums(mine, product, index, d, place);
    if (product.sums && product.sums != sums)
        kernel_fault("divergent wgmma: threads of a warpgroup name different sums, at " + place.text());
    product.sums = std::move(sums);
    if (a_registers) hold_a(mine, product, index, a_registers, place);
    const unsigned bit = 1u << thread.warp() % 4;
    if (product.warps == 0)
        product.access.clock = race::clock_of(thread.warp());
    else if (!(product.warps & bit))
        keep_common(product.access.clock, race::clock_of(thread.warp()));
    product.warps |= bit;
    if (++product.joined == kThreads) issue(product, group);
}

void wgmma_fence() {
    const ExecutorScope scope;
    Registers& mine = registers_of[self().number];
    const Stack& stack = self().stack;
    mine.touched.resize(static_cast<size_t>(stack.high - stack.low) / kWord);
    mine.epoch = ++last_epoch;
    race::watch_registers = watch;
}

void wgmma_commit() {
    const ExecutorScope scope;
    Registers& mine = registers_of[self().number];
    mine.group_ends.push_back(mine.joined);
}

void wgmma_wait(int pending_groups) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    preempt();
    Thread& thread = self();
    Registers& mine = registers_of[thread.number];
    const int group = thread.number / kThreads, committed = static_cast<int>(mine.group_ends.size());
    if (pending_groups >= committed) return;
    const size_t end = mine.group_ends[static_cast<size_t>(committed - 1 - pending_groups)];
    if (end == 0) return;
    auto& products = warpgroups[group].products;
    while (!products[end - 1]->issued()) {
        warpgroups[group].waiting.push_back(thread.number);
        suspend(thread, State::AtWgmma, pc, Where());
    }
    finish_async_work(products[end - 1]->ticket);
    std::erase_if(mine.held, [&](const Held& held) {
        if (held.last >= end) return false;
        if (held.sums)
            move_sums(*held.sums, thread.number % kThreads, reinterpret_cast<float*>(const_cast<char*>(held.begin)),
                      true);
        return true;
    });
    race::Clock clock;
    clock[race::kFirstAgent + group] = products[end - 1]->moment + 1;
    race::acquire(thread.warp(), clock);
}

void set_wrong_wgmma(bool on) { is_wrong = on; }

void check_wgmmas_at_exit() {
    const Registers& mine = registers_of[self().number];
    if (mine.held.empty()) return;
    const Product& last = *warpgroups[self().number / kThreads].products[mine.held.front().last];
    kernel_fault("a wgmma is never waited for: " + lines_of(last.pc, last.where));
}

void reset_wgmmas() {
    for (Warpgroup& group : warpgroups) {
        group.products.clear();
        group.waiting.clear();
    }
    for (int i = 0; i < thread_count(); ++i) {
        Registers& mine = registers_of[i];
        mine.joined = 0;
        mine.group_ends.clear();
        mine.held.clear();
        mine.epoch = 0;
    }
}

}  // namespace cuda_on_cpu
