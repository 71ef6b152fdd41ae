// The 8-bit maps and blocks against values made elsewhere, and the search against its definition.
#include "llmc/base/dynamic_map.h"

#include "llmc/io/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace llmc {
namespace {

template <typename T>
std::vector<T> elements(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsView* view = file.find(name);
    EXPECT_NE(view, nullptr) << name;
    std::vector<T> all(view->bytes.size() / sizeof(T));
    std::memcpy(all.data(), view->bytes.data(), view->bytes.size());
    return all;
}

std::vector<float> values_of(const DynamicMap& map) { return {map.values().begin(), map.values().end()}; }

/// The nearest value by looking at all of them; the lower one of two that are as near.
uint8_t searched(const DynamicMap& map, float x) {
    int best = 0;
    for (int code = 1; code < 256; ++code) {
        const double distance = std::fabs(double{map.values()[static_cast<size_t>(code)]} - x);
        if (distance < std::fabs(double{map.values()[static_cast<size_t>(best)]} - x)) best = code;
    }
    return static_cast<uint8_t>(best);
}

TEST(DynamicMap, NearestIsByDefinition) {
    for (const DynamicMap* map : {&signed_map(), &unsigned_map()}) {
        const float lowest = map == &signed_map() ? -1.0f : 0.0f;
        std::vector<float> tried = {lowest, -0.0f, 0.0f, 1.0f, 1e-30f, 1.1e-7f, 1.2e-7f, 1.6e-7f};
        for (int i = 0; i < 20000; ++i) tried.push_back(lowest + (1 - lowest) * static_cast<float>(i) / 20000);
        for (int i = 0; i < 20000; ++i) tried.push_back(std::exp2(-static_cast<float>(i) / 800));
        for (size_t i = 0; i + 1 < 256; ++i) {  // Around every middle.
            const float middle = (map->values()[i] + map->values()[i + 1]) / 2;
            for (const float x : {std::nextafter(middle, -2.0f), middle, std::nextafter(middle, 2.0f)})
                tried.push_back(x);
            tried.push_back(map->values()[i]);
        }
        for (const float x : tried) ASSERT_EQ(map->nearest(x), searched(*map, x)) << x;
        if (lowest == 0) continue;
        for (const float x : tried) ASSERT_EQ(map->nearest(-x), searched(*map, -x)) << -x;
    }
}

TEST(DynamicMap, MapsAndBlocksOfTheFixture) {
    const SafetensorsFile file("tests/golden/optimizer_state.safetensors");
    for (const auto& [name, map] : {std::pair("m", &signed_map()), std::pair("v", &unsigned_map())}) {
        EXPECT_EQ(values_of(*map), elements<float>(file, std::string(name) + ".map"));
        const auto x = elements<float>(file, std::string(name) + ".input");
        std::vector<uint8_t> codes(x.size());
        std::vector<float> largest, back(x.size());
        for (size_t first = 0; first < x.size(); first += kStateBlock) {
            const int64_t count = std::min<int64_t>(kStateBlock, static_cast<int64_t>(x.size() - first));
            largest.push_back(quantise_block(&codes[first], &x[first], count, *map));
            dequantise_block(&back[first], &codes[first], largest.back(), count, *map);
        }
        EXPECT_EQ(codes, elements<uint8_t>(file, std::string(name) + ".codes"));
        EXPECT_EQ(largest, elements<float>(file, std::string(name) + ".largest"));
        for (size_t i = 0; i < x.size(); ++i) {
            const float scale = largest[i / kStateBlock];
            ASSERT_EQ(back[i], map->values()[codes[i]] * scale);
            // In the last decade parts are 0.9/64 or 0.9/128 wide, and never wider below.
            ASSERT_LE(std::fabs(back[i] - x[i]), scale * 0.9f / 64 / 2 * 1.001f) << i;
        }
    }
}

// What bitsandbytes 0.50.2 makes, where the project's shared cases are there.
TEST(DynamicMap, MapsOfBitsandbytes) {
    const std::string path = "../shared/cases/finetune/nf4.safetensors";
    if (!path_exists(path)) GTEST_SKIP() << "'" << path << "' is not there";
    const SafetensorsFile file(path);
    EXPECT_EQ(values_of(signed_map()), elements<float>(file, "dynamic_signed"));
    EXPECT_EQ(values_of(unsigned_map()), elements<float>(file, "dynamic_unsigned"));
    for (const auto& [name, map, wrong] :
         {std::tuple("adam_m", &signed_map(), 0), std::tuple("adam_v", &unsigned_map(), 20)}) {
        const auto x = elements<float>(file, std::string(name) + ".input");
        const auto theirs = elements<uint8_t>(file, std::string(name) + ".q");
        const auto largest = elements<float>(file, std::string(name) + ".absmax");
        const auto dequantised = elements<float>(file, std::string(name) + ".dequantised");
        int others = 0;
        for (size_t first = 0; first < x.size(); first += kStateBlock) {
            uint8_t codes[kStateBlock];
            float back[kStateBlock];
            ASSERT_EQ(quantise_block(codes, &x[first], kStateBlock, *map), largest[first / kStateBlock]);
            dequantise_block(back, &theirs[first], largest[first / kStateBlock], kStateBlock, *map);
            for (size_t i = 0; i < kStateBlock; ++i) {
                ASSERT_EQ(back[i], dequantised[first + i]);
                others += codes[i] != theirs[first + i];
            }
        }
        EXPECT_LE(others, wrong) << name << ": codes of theirs that are not the nearest";
    }
}

}  // namespace
}  // namespace llmc
