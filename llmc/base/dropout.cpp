#include "llmc/base/dropout.h"

#include "llmc/base/check.h"
#include "llmc/base/philox.h"
#include "llmc/base/units.h"

#include <algorithm>

namespace llmc {

void fill_dropout_factors(float* out, const Dropout& dropout, int64_t first_row, int64_t rows, int64_t first,
                          int64_t channels) {
    constexpr int kLanes = 16;  // Counters at a time.
    CHECK(first % kDropoutChannels == 0 && dropout.rows.shape[0] >= first_row + rows, first, first_row, rows);
    const int64_t groups = ceil_div(channels, kDropoutChannels), first_group = first / kDropoutChannels;
    const int64_t counters = rows * groups;
    const auto* const of_rows = dropout.rows.as<int32_t>() + 2 * first_row;
    const uint32_t threshold = dropout.threshold(), place = dropout.place();
    const float scale = dropout.scale();
    for (int64_t begin = 0; begin < counters; begin += kLanes) {
        const auto here = static_cast<int>(std::min<int64_t>(kLanes, counters - begin));
        uint32_t words[4][kLanes] = {};
        for (int lane = 0; lane < here; ++lane) {
            const int64_t row = (begin + lane) / groups, group = first_group + (begin + lane) % groups;
            const auto counter =
                dropout_counter(static_cast<uint32_t>(of_rows[2 * row]), static_cast<uint32_t>(of_rows[2 * row + 1]),
                                place, static_cast<uint32_t>(group));
            for (size_t word = 0; word < 4; ++word) words[word][lane] = counter[word];
        }
        philox_of_lanes(words, dropout.key());
        float* const to = out + begin * kDropoutChannels;
        for (int lane = 0; lane < here; ++lane) {
            for (int word = 0; word < 4; ++word) {
                const uint32_t draws = words[word][lane];
                float* const pair = to + lane * kDropoutChannels + 2 * word;
                pair[0] = (draws & 0xffffu) >= threshold ? scale : 0.0f;
                pair[1] = draws >> 16 >= threshold ? scale : 0.0f;
            }
        }
    }
}

}  // namespace llmc
