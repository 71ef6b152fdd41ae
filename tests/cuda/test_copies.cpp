// Copies beside the kernels: they begin after what was called before, whoever waits finds them done, and recordings
// hold them.
#include "llmc/train/step_numbers.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <vector>

namespace llmc {
namespace {

constexpr int64_t kCount = 1 << 12;

class HostMemory {
  public:
    explicit HostMemory(int64_t floats)
        : data_(static_cast<float*>(cuda_backend().allocate_host(floats * 4, "a test's"))) {}
    ~HostMemory() { cuda_backend().release_host(data_); }
    HostMemory(const HostMemory&) = delete;
    HostMemory& operator=(const HostMemory&) = delete;
    float* data() const { return data_; }

  private:
    float* data_;
};

class DeviceFloats {
  public:
    explicit DeviceFloats(float value = 0)
        : tensor_(DType::F32, cuda_backend().allocate(kCount * 4, "a test's"), kCount) {
        set(value);
    }
    ~DeviceFloats() { cuda_backend().release(tensor_.data); }
    DeviceFloats(const DeviceFloats&) = delete;
    DeviceFloats& operator=(const DeviceFloats&) = delete;

    Tensor tensor() const { return tensor_; }
    void set(float value) {
        const std::vector<float> values(kCount, value);
        cuda_backend().copy_to_device(tensor_, values.data());
    }
    std::vector<float> values() const {
        std::vector<float> result(kCount);
        cuda_backend().copy_to_host(result.data(), tensor_);
        return result;
    }

  private:
    Tensor tensor_;
};

std::vector<float> filled(float value) { return std::vector<float>(kCount, value); }

TEST(CudaCopies, OutAndBackWithTheSlotReused) {
    cuda::for_each_seed([] {
        Backend& backend = cuda_backend();
        const HostMemory host(3 * kCount);
        DeviceFloats slot, result;
        for (int turn = 0; turn < 4; ++turn) {
            for (int i = 0; i < 3; ++i) {
                slot.set(static_cast<float>(10 * turn + i));
                const CopyTicket out = backend.copy_out(host.data() + i * kCount, slot.tensor());
                backend.wait_copy(out);
            }
            for (int i = 2; i >= 0; --i) {
                const CopyTicket in = backend.copy_in(slot.tensor(), host.data() + i * kCount);
                backend.wait_copy(in);
                backend.convert(result.tensor(), slot.tensor());
                EXPECT_EQ(result.values(), filled(static_cast<float>(10 * turn + i)));
            }
        }
    });
}

TEST(CudaCopies, SeveralUnderWayAreWaitedForInAnyOrder) {
    cuda::for_each_seed([] {
        Backend& backend = cuda_backend();
        const HostMemory host(2 * kCount);
        DeviceFloats a(1), b(2), c, d;
        const CopyTicket out_a = backend.copy_out(host.data(), a.tensor());
        const CopyTicket out_b = backend.copy_out(host.data() + kCount, b.tensor());
        backend.wait_copy(out_b);
        backend.zero(b.tensor());
        backend.wait_copy(out_a);
        backend.zero(a.tensor());
        const CopyTicket in_d = backend.copy_in(d.tensor(), host.data() + kCount);
        const CopyTicket in_c = backend.copy_in(c.tensor(), host.data());
        backend.wait_copy(in_c);
        backend.wait_copy(in_d);
        EXPECT_EQ(c.values(), filled(1));
        EXPECT_EQ(d.values(), filled(2));
    });
}

TEST(CudaCopies, ArePartOfARecording) {
    cuda::for_each_seed([] {
        Backend& backend = cuda_backend();
        const HostMemory host(2 * kCount);
        DeviceFloats x, slot, result;
        int calls = 0;
        const auto work = [&] {
            ++calls;
            backend.convert(slot.tensor(), x.tensor());
            const CopyTicket out = backend.copy_out(host.data(), slot.tensor());
            const CopyTicket again = backend.copy_out(host.data() + kCount, slot.tensor());
            backend.wait_copy(out);
            backend.wait_copy(again);
            backend.zero(slot.tensor());
            const CopyTicket in = backend.copy_in(slot.tensor(), host.data() + kCount);
            backend.wait_copy(in);
            backend.convert(result.tensor(), slot.tensor());
        };
        for (int turn = 1; turn <= 4; ++turn) {
            x.set(static_cast<float>(turn));
            backend.repeat(&calls, work);
            EXPECT_EQ(result.values(), filled(static_cast<float>(turn)));
            if (turn == 2) work();  // As it is, between replays.
        }
        EXPECT_EQ(calls, 2) << "once to record it, once as it is";
        backend.forget(&calls);
    });
}

TEST(CudaCopies, MoreHostMemoryThanThereIsSaysSo) {
    try {
        cuda_backend().allocate_host(int64_t{1} << 60, "boundaries");
        ADD_FAILURE() << "there is no such memory";
    } catch (const std::exception& error) {
        EXPECT_NE(
            std::string(error.what()).find("not enough memory of the host: 1024.0 PiB cannot be pinned for boundaries"),
            std::string::npos)
            << error.what();
    }
}

TEST(CudaCopies, NumbersOfAStepAreReadWhileTheNextOneRuns) {
    cuda::for_each_seed([] {
        Backend& backend = cuda_backend();
        StepNumbers numbers(backend, 2);
        const DeviceBuffer memory(backend, size_of(DType::F64), "a test's");
        const Tensor number(DType::F64, memory.data(), 1);
        const auto set = [&](double value) { backend.copy_to_device(number, &value); };
        for (int step = 0; step < 3; ++step) {
            for (const int loss : {0, 1}) {
                set(10 * step + loss);
                numbers.copy_loss(loss, number);
            }
            set(10 * step + 2);
            numbers.copy_norm(number);
            set(-1);  // The next step's.
            numbers.wait();
            EXPECT_EQ(numbers.losses()[0], 10 * step);
            EXPECT_EQ(numbers.losses()[1], 10 * step + 1);
            EXPECT_EQ(numbers.norm(), 10 * step + 2);
        }
    });
}

}  // namespace
}  // namespace llmc
