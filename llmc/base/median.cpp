#include "llmc/base/median.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <cstddef>

namespace llmc {

double median(std::vector<double> values) {
    CHECK(!values.empty());
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace llmc
