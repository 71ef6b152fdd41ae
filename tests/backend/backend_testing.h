// What tests of backend operations share: host tensors between guard bytes, and the measure of error.
//
// An operation is compared with a reference that is written once, plainly, as a template over its arithmetic: in double
// it is the truth, in float it is what a plain implementation would give. Our error may be at most twice the latter's.
#pragma once

#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/rng.h"
#include "llmc/base/units.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <vector>

namespace llmc {

using Values = std::vector<double>;

/// Owns the memory of one tensor on the host. Starts as NaN (all bits set), so that an output cannot rely on zeros.
/// Like a Tensor, it is const where only its content changes.
class TestBuffer {
  public:
    explicit TestBuffer(DType dtype, int64_t d0, int64_t d1 = 1, int64_t d2 = 1)
        : view_(dtype, nullptr, d0, d1, d2),
          memory_(static_cast<size_t>(view_.bytes() + 2 * kGuardBytes + kTensorAlignment), std::byte{kGuard}) {
        std::memset(tensor().data, 0xff, static_cast<size_t>(view_.bytes()));
    }
    TestBuffer(DType dtype, int64_t d0, int64_t d1, const Values& values) : TestBuffer(dtype, d0, d1) { set(values); }
    /// A vector of int32.
    explicit TestBuffer(const std::vector<int32_t>& values)
        : TestBuffer(DType::I32, static_cast<int64_t>(values.size())) {
        std::copy(values.begin(), values.end(), tensor().as<int32_t>());
    }

    TestBuffer(TestBuffer&&) = default;  ///< A copy would start at another remainder of the alignment.

    Tensor tensor() const {
        Tensor view = view_;
        view.data = reinterpret_cast<void*>(
            round_up(reinterpret_cast<intptr_t>(memory_.data()) + kGuardBytes, kTensorAlignment));
        return view;
    }
    operator Tensor() const { return tensor(); }
    DType dtype() const { return view_.dtype; }
    int64_t count() const { return view_.count(); }

    void set(const Values& values) const {
        CHECK(static_cast<int64_t>(values.size()) == count(), values.size(), count());
        for (int64_t i = 0; i < count(); ++i) {
            const float value = static_cast<float>(values[i]);
            if (dtype() == DType::BF16) tensor().as<bf16>()[i] = to_bf16(value);
            if (dtype() == DType::F32) tensor().as<float>()[i] = value;
            if (dtype() == DType::F64) tensor().as<double>()[i] = values[i];
        }
    }

    Values values() const {
        Values values(static_cast<size_t>(count()));
        for (int64_t i = 0; i < count(); ++i) {
            if (dtype() == DType::BF16) values[i] = to_float(tensor().as<bf16>()[i]);
            if (dtype() == DType::F32) values[i] = tensor().as<float>()[i];
            if (dtype() == DType::F64) values[i] = tensor().as<double>()[i];
        }
        return values;
    }

    std::vector<std::byte> bytes() const {
        const auto* first = static_cast<const std::byte*>(tensor().data);
        return {first, first + view_.bytes()};
    }

    /// Nothing was written before or after the tensor.
    bool intact() const {
        const auto* first = static_cast<const std::byte*>(tensor().data);
        const auto is_guard = [](std::byte byte) { return byte == std::byte{kGuard}; };
        return std::all_of(memory_.data(), first, is_guard) &&
               std::all_of(first + view_.bytes(), memory_.data() + memory_.size(), is_guard);
    }

  private:
    static constexpr int64_t kGuardBytes = 256;
    static constexpr uint8_t kGuard = 0x5a;
    Tensor view_;
    std::vector<std::byte> memory_;
};

/// Normals of this spread. `item` keeps tensors of one test apart.
inline TestBuffer random_buffer(DType dtype, int64_t d0, int64_t d1, double stddev, uint32_t item) {
    std::vector<float> normals(static_cast<size_t>(d0 * d1));
    fill_normal(normals.data(), d0 * d1, static_cast<float>(stddev), 7, RngStream::Test, item);
    return TestBuffer(dtype, d0, d1, Values(normals.begin(), normals.end()));
}

/// Integers in [0, limit).
inline std::vector<int32_t> random_integers(int64_t count, int64_t limit, uint32_t item) {
    std::vector<int32_t> integers(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i)
        integers[i] = static_cast<int32_t>(uniform(7, RngStream::Test, item, i) * static_cast<double>(limit));
    return integers;
}

inline TestBuffer zeros(DType dtype, int64_t d0, int64_t d1 = 1) {
    return TestBuffer(dtype, d0, d1, Values(static_cast<size_t>(d0 * d1), 0.0));
}

/// A tensor of one fp32 number, where a backend wants it in memory of the device.
inline TestBuffer scalar(float value) { return TestBuffer(DType::F32, 1, 1, Values{value}); }

inline TestBuffer workspace_buffer(int64_t bytes) { return TestBuffer(DType::U8, std::max<int64_t>(bytes, 1)); }

/// The largest distance; infinite where a NaN stands on one side only.
inline double largest_error(const Values& values, const Values& exact) {
    CHECK(values.size() == exact.size(), values.size(), exact.size());
    double error = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
        const double distance = std::fabs(values[i] - exact[i]);
        if (std::isnan(exact[i]) ? !std::isnan(values[i]) : std::isnan(distance))
            return std::numeric_limits<double>::infinity();
        if (distance > error) error = distance;
    }
    return error;
}

/// Every bit but the sign of zero; a NaN equals nothing.
inline bool same_values(const TestBuffer& a, const TestBuffer& b) { return a.values() == b.values(); }

/// `sum` holds the fp32 sums of both, each rounded once.
inline void expect_rounded_sums(const TestBuffer& sum, const TestBuffer& a, const TestBuffer& b) {
    const Values ours = sum.values(), first = a.values(), second = b.values();
    for (size_t i = 0; i < ours.size(); ++i) ASSERT_EQ(ours[i], static_cast<float>(first[i] + second[i])) << i;
}

inline double largest_magnitude(const Values& values) { return largest_error(values, Values(values.size(), 0.0)); }

/// Our error is at most twice a plain float implementation's (rounded to our type), plus two fp32 roundings: of the
/// result, or of the terms it is the sum of, where those cancel.
inline void expect_as_good_as_plain(const TestBuffer& ours, const Values& plain, const Values& exact,
                                    double terms = 0) {
    const TestBuffer rounded(ours.dtype(), ours.count(), 1, plain);
    const double slack = 0x1p-22 * std::max(largest_magnitude(exact), terms);
    EXPECT_LE(largest_error(ours.values(), exact), 2 * largest_error(rounded.values(), exact) + slack);
    EXPECT_TRUE(ours.intact());
}

/// `gradient` is the derivative of `function` at `x`, by central differences in double.
inline void expect_is_derivative(const Values& gradient, const std::function<double(const Values&)>& function,
                                 const Values& x) {
    constexpr double kStep = 1e-5;
    for (size_t i = 0; i < x.size(); ++i) {
        Values above = x, below = x;
        above[i] += kStep;
        below[i] -= kStep;
        const double difference = (function(above) - function(below)) / (2 * kStep);
        EXPECT_NEAR(gradient[i], difference, 1e-7 * (1 + std::fabs(difference))) << "element " << i;
    }
}

inline double dot(const Values& a, const Values& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// `run` gives the same bits with one, two and three threads, and when it is repeated. Its tensors should be large
/// enough that the work is really divided.
inline void expect_same_bits_at_every_thread_count(const std::function<std::vector<std::byte>(Backend&)>& run) {
    std::vector<std::byte> expected;
    for (const int threads : {1, 2, 3, 3}) {
        cpu::CpuBackend backend(threads);
        const std::vector<std::byte> bytes = run(backend);
        if (expected.empty()) expected = bytes;
        EXPECT_TRUE(bytes == expected) << threads << " threads";
    }
}

inline std::vector<std::byte> joined(std::initializer_list<const TestBuffer*> buffers) {
    std::vector<std::byte> all;
    for (const TestBuffer* buffer : buffers) {
        const std::vector<std::byte> bytes = buffer->bytes();
        all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
}

constexpr DType kActivationTypes[] = {DType::F32, DType::BF16};
constexpr int64_t kRaggedRows[] = {1, 5, 37};
constexpr int64_t kRaggedColumns[] = {1, 8, 48, 100, 768, 1000};

/// Every type on every ragged shape.
inline void for_each_case(const std::function<void(DType, int64_t N, int64_t C)>& test) {
    for (const DType dtype : kActivationTypes)
        for (const int64_t N : kRaggedRows)
            for (const int64_t C : kRaggedColumns) {
                SCOPED_TRACE(fmt::format("{} N={} C={}", name_of(dtype), N, C));
                test(dtype, N, C);
            }
}

}  // namespace llmc
