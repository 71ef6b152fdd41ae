// The CPU as a device: memory, copies, conversions; and how a backend is made.
#include "llmc/backend/make_backend.h"

#include "llmc/base/error.h"
#include "llmc/base/prepare_process.h"
#include "tests/backend/backend_testing.h"
#include "tests/sanitizers.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace llmc {
namespace {

/// Pages of this range that are in memory.
int64_t resident_bytes(void* start, int64_t bytes) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    std::vector<unsigned char> present(static_cast<size_t>(ceil_div(bytes, page)));
    CHECK(mincore(start, static_cast<size_t>(bytes), present.data()) == 0);
    return std::count_if(present.begin(), present.end(), [](unsigned char bits) { return bits & 1; }) * page;
}

TEST(Device, AllocateIsZeroedAlignedAndResident) {
    cpu::CpuBackend backend(2);
    for (const int64_t bytes : {0, 1, 4096, 100000, (2 << 20) - 1, 2 << 20, 5'000'001}) {
        void* memory = backend.allocate(bytes, "test");
        ASSERT_NE(memory, nullptr);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % kTensorAlignment, 0u);
        EXPECT_GE(resident_bytes(memory, std::max<int64_t>(bytes, 1)), bytes);
        const auto* first = static_cast<const char*>(memory);
        EXPECT_TRUE(std::all_of(first, first + bytes, [](char byte) { return byte == 0; })) << bytes;
        std::memset(memory, 1, static_cast<size_t>(bytes));
        backend.release(memory);
    }
    backend.release(nullptr);
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(backend.release(&backend), "allocate");
}

TEST(Device, AllocateSaysWhatDidNotFit) {
    cpu::CpuBackend backend(1);
    try {
        backend.allocate(int64_t{1} << 50, "the activations");
        FAIL() << "a petabyte was granted";
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitFailed);
        const std::string text = error.what();
        EXPECT_NE(text.find("the activations"), std::string::npos) << text;
        EXPECT_NE(text.find("1.00 PiB"), std::string::npos) << text;
        EXPECT_NE(text.find("available"), std::string::npos) << text;
    }
}

TEST(Device, CopiesAndZero) {
    cpu::CpuBackend backend(2);
    for (const int64_t count : {1, 1000, 300001}) {
        const TestBuffer source = random_buffer(DType::F32, count, 1, 1, 1);
        const TestBuffer there(DType::F32, count), back(DType::F32, count);
        backend.copy_to_device(there, source.tensor().data);
        backend.copy_to_host(back.tensor().data, there);
        EXPECT_TRUE(back.bytes() == source.bytes());
        backend.zero(there);
        EXPECT_EQ(largest_magnitude(there.values()), 0);
        EXPECT_TRUE(there.intact() && back.intact());
    }
}

TEST(Device, Convert) {
    cpu::CpuBackend backend(2);
    for (const int64_t count : {1, 37, 200003}) {
        const TestBuffer x = random_buffer(DType::F32, count, 1, 1, 1), narrow(DType::BF16, count),
                         wide(DType::F32, count);
        backend.convert(narrow, x);
        backend.convert(wide, narrow);
        for (int64_t i = 0; i < count; ++i) {
            const float expected = to_float(to_bf16(x.tensor().as<float>()[i]));
            ASSERT_EQ(wide.tensor().as<float>()[i], expected) << i;
        }
        backend.convert(wide, x);
        EXPECT_TRUE(wide.bytes() == x.bytes());
        EXPECT_TRUE(wide.intact() && narrow.intact());
    }
}

TEST(Device, ConvertRoundsToNearestEvenAndKeepsNaN) {
    cpu::CpuBackend backend(1);
    const double infinity = std::numeric_limits<double>::infinity();
    const TestBuffer x(
        DType::F32, 8, 1,
        Values{1 + 0x1p-8, 1 + 3 * 0x1p-8, 1 + 0x1.1p-8, -0.0, 3.4e38, -infinity, std::nan(""), 0x1p-130});
    const TestBuffer narrow(DType::BF16, 8);
    backend.convert(narrow, x);
    const Values values = narrow.values();
    EXPECT_EQ(values[0], 1);               // A tie goes to the even neighbour,
    EXPECT_EQ(values[1], 1 + 4 * 0x1p-8);  // whichever side it is on.
    EXPECT_EQ(values[2], 1 + 2 * 0x1p-8);
    EXPECT_TRUE(values[3] == 0 && std::signbit(values[3]));
    EXPECT_EQ(values[4], infinity);
    EXPECT_EQ(values[5], -infinity);
    EXPECT_TRUE(std::isnan(values[6]));
    EXPECT_NE(values[7], 0);  // bf16 has fp32's subnormal numbers, with fewer digits.
}

TEST(Device, Info) {
    cpu::CpuBackend backend(2);
    const DeviceInfo info = backend.info();
    EXPECT_NE(info.name.find(threads_there_are(2) == 2 ? "2 threads" : "1 thread"), std::string::npos) << info.name;
    EXPECT_GT(info.memory_total, info.memory_available);
    EXPECT_GT(info.memory_available, 0);
    EXPECT_GT(info.peak_flops_fp32, 1e9);
    EXPECT_LT(info.peak_flops_fp32, 1e13);
    EXPECT_EQ(info.peak_flops_bf16 > 0, info.supports_bf16);
    EXPECT_EQ(info.kind, "cpu");
    EXPECT_GE(info.attention_backward_products, 5);
}

// Of the machine every process gets its share; a limit of the process is its own.
TEST(Device, LimitsAreOfTheMachineOrOfTheProcess) {
    DeviceInfo info;
    info.memory_total = 1000;
    info.memory_available = 800;
    info.memory_limit = "a group";
    EXPECT_EQ(info.total(), 1000);
    EXPECT_EQ(info.available(), 800);
    EXPECT_EQ(info.limit(), "a group");
    info.process_available = 300;
    info.process_limit = "the process";
    EXPECT_EQ(info.total(), 300);
    EXPECT_EQ(info.available(), 300);
    EXPECT_EQ(info.limit(), "the process");
    EXPECT_EQ(info.available(4), 200);
    EXPECT_EQ(info.limit(4), "a group");
    info.process_reserve = 50;
    EXPECT_EQ(info.available(4), 150);
    EXPECT_EQ(info.available(40), 0);
}

TEST(Device, ALimitOnAddressSpaceIsKnown) {
    if (kWithAddressSanitizer || kWithThreadSanitizer) GTEST_SKIP() << "a sanitizer has reserved more already";
    const auto inside = [] {
        rlimit limit = {};
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, rlim_t{64} << 30);
        if (setrlimit(RLIMIT_AS, &limit) != 0) std::exit(3);
        const DeviceInfo info = cpu::CpuBackend(1).info();
        if (info.process_limit != "address space (ulimit -v)") std::exit(1);
        std::exit(info.process_available < (int64_t{64} << 30) ? 0 : 2);
    };
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(inside(), ::testing::ExitedWithCode(0), "");
}

TEST(MakeBackend, KnowsItsDevices) {
    EXPECT_NE(make_backend("auto", 0), nullptr);
    EXPECT_NE(make_backend("cpu", 1), nullptr);
    for (const char* device : {"tpu", "", "CPU"}) EXPECT_THROW(make_backend(device, 0), Error) << device;
    try {
        make_backend("cpu", -1);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        EXPECT_NE(std::string(error.what()).find("--threads"), std::string::npos);
    }
}

TEST(MakeBackend, PrepareProcessStartsAgainOnceWithSettings) {
    constexpr const char* kChild = "LLMC_TEST_OF_PREPARE_PROCESS";
    if (std::getenv(kChild)) {  // We are the program that was started again, see below.
        EXPECT_STREQ(std::getenv("OMP_WAIT_POLICY"), "passive");
        EXPECT_STREQ(std::getenv("GOMP_SPINCOUNT"), "1000");
        return;
    }
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    const auto prepare = [kChild] {
        for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "LLMC_PROCESS_PREPARED"}) unsetenv(name);
        setenv(kChild, "1", 1);
        std::string name = "test", filter = "--gtest_filter=MakeBackend.PrepareProcess*";
        char* arguments[] = {name.data(), filter.data(), nullptr};
        prepare_process(arguments);
        std::exit(99);  // It should not come back.
    };
    EXPECT_EXIT(prepare(), ::testing::ExitedWithCode(0), "");
    const auto leave_alone = [](const char* variable) {
        for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "LLMC_PROCESS_PREPARED"}) unsetenv(name);
        setenv(variable, "active", 1);
        prepare_process(nullptr);
        std::exit(42);
    };
    EXPECT_EXIT(leave_alone("OMP_WAIT_POLICY"), ::testing::ExitedWithCode(42), "");
    EXPECT_EXIT(leave_alone("LLMC_PROCESS_PREPARED"), ::testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace llmc
