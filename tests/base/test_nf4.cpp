// NF4 to the byte as bitsandbytes makes it (dev/oracle/make_nf4.py), and against plain loops in double.
#include "llmc/base/dynamic_map.h"
#include "llmc/base/nf4.h"
#include "llmc/base/rng.h"
#include "llmc/io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

namespace llmc {
namespace {

template <typename T>
std::vector<T> values_of(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsView* view = file.find(name);
    EXPECT_NE(view, nullptr) << name;
    if (view == nullptr) return {};
    std::vector<T> values(view->bytes.size() / sizeof(T));
    std::memcpy(values.data(), view->bytes.data(), view->bytes.size());
    return values;
}

/// As elements() in make_nf4.py.
std::vector<float> elements(const std::string& name, size_t count, bool is_bf16) {
    std::vector<float> values(count);
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t x = i * 2654435761u;
        x = (x ^ (x >> 15)) * 2246822519u;
        x ^= x >> 13;
        double value = (static_cast<double>(x >> 8) - 0x1p23) * 0x1p-27 * (1 + i / 64 % 7);
        if (name.starts_with("zeros") && i >= 64) value = 0;
        if (name.starts_with("equal")) value = 0.25;
        values[i] = static_cast<float>(value);
        if (is_bf16) values[i] = to_float(to_bf16(values[i]));
    }
    return values;
}

struct Case {
    const char* name;
    size_t count;
};

TEST(Nf4, BytesOfBitsandbytes) {
    const SafetensorsFile file("tests/golden/nf4/cases.safetensors");
    constexpr Case kCases[] = {{"single_f32", 300},      {"single_bf16", 320},   {"odd_f32", 231},
                               {"double_f32", 999},      {"double_bf16", 16960}, {"zeros_f32", 192},
                               {"equal_double_f32", 256}};
    for (const auto& [name, count] : kCases) {
        SCOPED_TRACE(name);
        const std::string key = name;
        const bool is_double = key.find("double") != std::string::npos;
        const Nf4Tensor ours = quantise_nf4(elements(key, count, key.ends_with("bf16")), is_double);
        EXPECT_EQ(ours.codes, values_of<uint8_t>(file, key + ".codes"));
        if (!is_double) {
            EXPECT_EQ(ours.absmax, values_of<float>(file, key + ".absmax"));
            continue;
        }
        EXPECT_EQ(ours.absmax_codes, values_of<uint8_t>(file, key + ".absmax"));
        EXPECT_EQ(ours.nested_absmax, values_of<float>(file, key + ".nested_absmax"));
        EXPECT_EQ(ours.offset, values_of<float>(file, key + ".offset").at(0));
    }
}

std::vector<float> fp32_of(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsView* view = file.find(name);
    EXPECT_NE(view, nullptr) << name;
    if (view == nullptr) return {};
    std::vector<float> values(view->bytes.size() / static_cast<size_t>(size_of(*view->dtype)));
    read_as_fp32(*view, values);
    return values;
}

TEST(Nf4, SharedFixture) {
    const std::string path = "../shared/cases/finetune/nf4.safetensors";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
    const SafetensorsFile file(path);
    EXPECT_TRUE(std::ranges::equal(values_of<float>(file, "nf4_table"), kNf4Values));
    for (const std::string name : {"plain_f32", "double_bf16", "tail_f32"}) {
        SCOPED_TRACE(name);
        const bool is_double = name.starts_with("double");
        const Nf4Tensor ours = quantise_nf4(fp32_of(file, name + ".input"), is_double);
        EXPECT_EQ(ours.codes, values_of<uint8_t>(file, name + ".weight"));
        std::vector<float> back = dequantise_nf4(ours);
        if (is_double) {
            EXPECT_EQ(ours.absmax_codes, values_of<uint8_t>(file, name + ".weight.absmax"));
            EXPECT_EQ(ours.nested_absmax, values_of<float>(file, name + ".weight.nested_absmax"));
            for (float& value : back) value = to_float(to_bf16(value));
        } else {
            EXPECT_EQ(ours.absmax, values_of<float>(file, name + ".weight.absmax"));
        }
        EXPECT_EQ(back, fp32_of(file, name + ".dequantised"));
    }
}

std::vector<float> normals(int64_t count, uint32_t item) {
    std::vector<float> values(static_cast<size_t>(count));
    fill_normal(values.data(), count, 0.05f, 7, RngStream::Test, item);
    return values;
}

int code_of(const Nf4Tensor& tensor, size_t i) {
    const int byte = tensor.codes[i / 2];
    return i % 2 == 0 ? byte / 16 : byte % 16;
}

TEST(Nf4, EveryCodeIsTheNearest) {
    for (const int64_t count : {1, 2, 63, 64, 65, 127, 1000, 64 * 300 + 5}) {
        const std::vector<float> values = normals(count, 1);
        const Nf4Tensor tensor = quantise_nf4(values, false);
        ASSERT_EQ(static_cast<int64_t>(tensor.codes.size()), (count + 1) / 2);
        for (size_t i = 0; i < values.size(); ++i) {
            const size_t first = i / 64 * 64, end = std::min(values.size(), first + 64);
            float largest = 0;
            for (size_t k = first; k < end; ++k) largest = std::max(largest, std::fabs(values[k]));
            ASSERT_EQ(tensor.absmax[i / 64], largest);
            const double x = double{values[i]} / double{largest};
            double least = std::numeric_limits<double>::infinity();
            for (const float value : kNf4Values) least = std::min(least, std::fabs(x - double{value}));
            const double distance = std::fabs(x - double{kNf4Values[static_cast<size_t>(code_of(tensor, i))]});
            ASSERT_LE(distance, least + 0x1p-23) << count << " " << i;
        }
        if (count % 2 == 1) {
            EXPECT_EQ(tensor.codes.back() & 15, kNf4Zero);
        }
    }
}

/// In the middle between two values the lower code wins, and one step of fp32 above it the upper.
TEST(Nf4, TiesGoToTheLowerCode) {
    for (const float scale : {1.0f, 2.0f, 0.25f}) {
        std::vector<float> middles(64, 0.0f), above(64, 0.0f);
        middles[40] = scale, above[40] = -scale;
        for (size_t i = 0; i < 15; ++i) {
            const float middle = (kNf4Values[i] + kNf4Values[i + 1]) / 2;
            middles[i] = middle * scale;
            above[i] = std::nextafter(middle, 2.0f) * scale;
        }
        const Nf4Tensor lower = quantise_nf4(middles, false), upper = quantise_nf4(above, false);
        for (size_t i = 0; i < 15; ++i) {
            EXPECT_EQ(code_of(lower, i), static_cast<int>(i));
            EXPECT_EQ(code_of(upper, i), static_cast<int>(i) + 1);
        }
    }
}

/// Their error is what the nearest of 256 values costs, and a step of the library's table, 2/65535.
TEST(Nf4, DoubleScalesAreNearTheirValues) {
    for (const int64_t count : {64, 640, 64 * 256, 64 * 700 + 3}) {
        const std::vector<float> values = normals(count, 2);
        const Nf4Tensor single = quantise_nf4(values, false), twice = quantise_nf4(values, true);
        EXPECT_EQ(single.codes, twice.codes);
        EXPECT_TRUE(twice.absmax.empty());
        double mean = 0;
        for (const float largest : single.absmax) mean += double{largest} / static_cast<double>(single.absmax.size());
        EXPECT_NEAR(twice.offset, mean, 1e-6 * mean);
        const std::vector<float> absmax = nf4_absmax(twice.absmax_codes, twice.nested_absmax, twice.offset);
        ASSERT_EQ(absmax.size(), single.absmax.size());
        for (size_t i = 0; i < absmax.size(); ++i) {
            const double rest = double{single.absmax[i]} - double{twice.offset}, top = twice.nested_absmax[i / 256];
            EXPECT_LE(std::fabs(rest), top);
            double least = std::numeric_limits<double>::infinity();
            for (const float value : signed_map().values()) least = std::min(least, std::fabs(rest - value * top));
            EXPECT_LE(std::fabs(absmax[i] - single.absmax[i]), least + 3.1e-5 * top + 1e-8) << i;
        }
    }
}

TEST(Nf4, DequantisedInOneRounding) {
    const std::vector<float> values = normals(1001, 3);
    for (const bool is_double : {false, true}) {
        const Nf4Tensor tensor = quantise_nf4(values, is_double);
        const std::vector<float> back = dequantise_nf4(tensor);
        ASSERT_EQ(back.size(), values.size());
        for (size_t i = 0; i < back.size(); ++i) {
            double absmax =
                is_double ? double{signed_map()[tensor.absmax_codes[i / 64]]} : double{tensor.absmax[i / 64]};
            if (is_double) {
                absmax = static_cast<float>(absmax * double{tensor.nested_absmax[0]});
                absmax = static_cast<float>(absmax + double{tensor.offset});
            }
            const double value = kNf4Values[static_cast<size_t>(code_of(tensor, i))];
            ASSERT_EQ(back[i], static_cast<float>(value * absmax)) << i;
        }
    }
}

}  // namespace
}  // namespace llmc
