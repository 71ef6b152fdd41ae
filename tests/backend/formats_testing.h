// What tests of optimiser state in less than fp32 share between backends: rows of a table in flat buffers, and a state
// in every combination of formats.
#pragma once

#include "llmc/base/dynamic_map.h"
#include "llmc/base/stochastic_rounding.h"
#include "tests/backend/optimizer_testing.h"

#include <algorithm>
#include <vector>

namespace llmc {

struct Formats {
    DType parameters = DType::BF16;
    bool master = false;
    DType moments = DType::F32, gradients = DType::F32;  ///< U8: 8-bit blocks.
    OptimizerKind kind = OptimizerKind::AdamW;

    std::string words() const {
        return fmt::format("{} parameters, {}, {} moments, {} gradients, {}", name_of(parameters),
                           master ? "master" : "no master", name_of(moments), name_of(gradients),
                           optimizer_row(kind).name);
    }
};

inline std::vector<Formats> all_formats() {
    std::vector<Formats> all;
    for (const auto kind : {OptimizerKind::AdamW, OptimizerKind::Lion})
        for (const auto& [parameters, master] :
             {std::pair(DType::F32, false), std::pair(DType::BF16, true), std::pair(DType::BF16, false)})
            for (const DType moments : {DType::F32, DType::BF16, DType::U8})
                for (const DType gradients : {DType::F32, DType::BF16})
                    all.push_back({parameters, master, moments, gradients, kind});
    return all;
}

/// Rows with and without decay; the second begins in its middle, as a rank's piece does; short blocks at the ends.
inline const std::vector<ParameterRange>& format_ranges() {
    static const std::vector<ParameterRange> ranges = {
        {0, 5000, true, 3, 0, 256}, {5120, 70000, true, 7, 512, 256}, {75264, 300, false, 9, 0, 256}};
    return ranges;
}
/// The same, cut after every `elements` of a row.
inline std::vector<ParameterRange> cut_format_ranges(int64_t elements) {
    std::vector<ParameterRange> cut;
    for (const ParameterRange& range : format_ranges())
        for (int64_t first = 0; first < range.count; first += elements) {
            ParameterRange part = range;
            part.offset += first, part.first += first, part.count = std::min(elements, range.count - first);
            cut.push_back(part);
        }
    return cut;
}
constexpr int64_t kFormatCount = 75264 + 512;

/// The buffers of an update in these formats, after some updates by a backend.
struct FormatsRun {
    explicit FormatsRun(const Formats& which, uint64_t seed = 1337, double gradient_spread = 0.01)
        : formats(which),
          parameters(which.parameters, kFormatCount),
          master(random_buffer(DType::F32, kFormatCount, 1, 0.1, 1)),
          m(zeroed(which.moments)),
          v(zeroed(which.moments)),
          m_scales(zeros(DType::F32, kFormatCount / kStateBlock + 1)),
          v_scales(zeros(DType::F32, kFormatCount / kStateBlock + 1)) {
        parameters.set(master.values());
        settings.kind = which.kind;
        settings.weight_decay = 0.1f;
        settings.seed = seed;
        for (uint32_t update = 1; update <= 3; ++update) {
            gradients.emplace_back(which.gradients, kFormatCount);
            gradients.back().set(random_buffer(DType::F32, kFormatCount, 1, gradient_spread, 100 + update).values());
        }
    }

    void train(Backend& backend, auto on, const std::vector<ParameterRange>& ranges = format_ranges()) const {
        const bool in_blocks = formats.moments == DType::U8, has_v = optimizer_row(formats.kind).second_moment;
        UpdateOperands operands = {on(parameters), formats.master ? on(master) : Tensor(), on(m),
                                   has_v ? on(v) : Tensor(), Tensor()};
        if (in_blocks) operands.m_scales = on(m_scales);
        if (in_blocks && has_v) operands.v_scales = on(v_scales);
        operands.controls = on(controls);
        for (const TestBuffer& gradient : gradients) {
            operands.gradients = on(gradient);
            backend.begin_update(on(factors), on(controls), on(norm), settings);
            backend.update(operands, ranges, settings, on(factors));
        }
    }

    bool intact() const {
        for (const TestBuffer* buffer : {&parameters, &master, &m, &v, &m_scales, &v_scales})
            if (!buffer->intact()) return false;
        return true;
    }
    std::vector<std::byte> all() const { return joined({&parameters, &master, &m, &v, &m_scales, &v_scales}); }
    const TestBuffer& weights() const { return formats.master ? master : parameters; }

    /// A moment of a range's element, in fp32.
    double moment(const TestBuffer& values, const TestBuffer& scales, const DynamicMap& map, int64_t at) const {
        if (formats.moments != DType::U8) return values.values()[static_cast<size_t>(at)];
        const auto code = static_cast<const uint8_t*>(values.tensor().data)[at];
        return map[code] * scales.tensor().as<float>()[at / kStateBlock];
    }

    static TestBuffer zeroed(DType dtype) {
        TestBuffer buffer(dtype, kFormatCount + 256);
        std::memset(buffer.tensor().data, 0, static_cast<size_t>(buffer.tensor().bytes()));
        return buffer;
    }

    Formats formats;
    OptimizerSettings settings;
    TestBuffer parameters, master, m, v, m_scales, v_scales;
    TestBuffer controls = controls_buffer(1e-3f, 0), factors = TestBuffer(DType::F32, kNumFactors);
    TestBuffer norm = TestBuffer(DType::F64, 1, 1, Values{0.7});
    std::vector<TestBuffer> gradients;
};

}  // namespace llmc
