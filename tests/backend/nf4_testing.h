// What tests of weights in four bits share between backends: the operands of a quantised tensor.
#pragma once

#include "llmc/base/dynamic_map.h"
#include "llmc/base/nf4.h"
#include "tests/backend/backend_testing.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace llmc {

/// Sizes with whole and short blocks, a lone last element, and several blocks of blocks.
constexpr int64_t kNf4Counts[] = {1, 7, 64, 65, 100, 4096, 64 * 256 + 63, 40003};

/// A tensor in NF4 as operands of a backend.
struct Nf4Buffers {
    Nf4Tensor tensor;
    TestBuffer codes, absmax, nested_absmax, offset;

    Nf4Buffers(int64_t count, bool is_double) : Nf4Buffers(quantised(count, is_double)) {}
    explicit Nf4Buffers(Nf4Tensor quantised)
        : tensor(std::move(quantised)),
          codes(of_bytes(tensor.codes)),
          absmax(is_double() ? of_bytes(tensor.absmax_codes) : of_floats(tensor.absmax)),
          nested_absmax(of_floats(tensor.nested_absmax)),
          offset(scalar(tensor.offset)) {}

    bool is_double() const { return !tensor.absmax_codes.empty(); }
    /// `on` gives the tensor where the backend has it.
    template <typename On>
    Nf4Operands operands(const On& on) const {
        if (!is_double()) return {on(codes), on(absmax)};
        return {on(codes), on(absmax), on(nested_absmax), on(offset)};
    }
    /// Every product and sum in double, which holds them exactly, rounded one by one.
    std::vector<float> expected() const {
        std::vector<float> values(static_cast<size_t>(tensor.count));
        for (size_t i = 0; i < values.size(); ++i) {
            const int byte = tensor.codes[i / 2], code = i % 2 == 0 ? byte / 16 : byte % 16;
            volatile float absmax_of_block = 0, product = 0;
            if (is_double()) {
                const float entry = signed_map()[tensor.absmax_codes[i / 64]];
                product = static_cast<float>(double{entry} * double{tensor.nested_absmax[i / 64 / 256]});
                absmax_of_block = static_cast<float>(double{product} + double{tensor.offset});
            } else {
                absmax_of_block = tensor.absmax[i / 64];
            }
            values[i] = static_cast<float>(double{kNf4Values[static_cast<size_t>(code)]} * double{absmax_of_block});
        }
        return values;
    }

  private:
    static Nf4Tensor quantised(int64_t count, bool is_double) {
        std::vector<float> values(static_cast<size_t>(count));
        fill_normal(values.data(), count, 0.05f, 7, RngStream::Test, 3);
        return quantise_nf4(values, is_double);
    }
    static TestBuffer of_bytes(const std::vector<uint8_t>& bytes) {
        TestBuffer buffer(DType::U8, static_cast<int64_t>(bytes.size()));
        std::copy(bytes.begin(), bytes.end(), static_cast<uint8_t*>(buffer.tensor().data));
        return buffer;
    }
    static TestBuffer of_floats(const std::vector<float>& values) {
        TestBuffer buffer(DType::F32, std::max<int64_t>(1, static_cast<int64_t>(values.size())));
        std::copy(values.begin(), values.end(), buffer.tensor().as<float>());
        return buffer;
    }
};

/// `run(backend operation)` on every size, kind and type: exactly the expected values, and nothing beside them.
template <typename Run>
void expect_dequantised(const Run& run) {
    for (const bool is_double : {false, true})
        for (const DType dtype : kActivationTypes)
            for (const int64_t count : kNf4Counts) {
                SCOPED_TRACE(fmt::format("{} {} {}", is_double ? "double" : "single", name_of(dtype), count));
                const Nf4Buffers x(count, is_double);
                const TestBuffer out(dtype, count);
                run([&](Backend& backend, auto on) { backend.dequantize_nf4(on(out), x.operands(on)); });
                const std::vector<float> expected = x.expected();
                const Values ours = out.values();
                for (size_t i = 0; i < expected.size(); ++i) {
                    const float value = dtype == DType::BF16 ? to_float(to_bf16(expected[i])) : expected[i];
                    ASSERT_EQ(ours[i], value) << i;
                }
                EXPECT_TRUE(out.intact());
            }
}

}  // namespace llmc
