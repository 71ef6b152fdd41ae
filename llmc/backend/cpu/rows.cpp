// Gathers of rows: parallel over ranges of the rows that are written.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/check.h"

#include <algorithm>
#include <cstring>

namespace llmc::cpu {

void CpuBackend::gather_rows(Tensor out, Tensor x, Tensor rows) {
    const int64_t n = out.shape[0], C = out.shape[1], row_bytes = C * size_of(out.dtype);
    CHECK(rows.count() == n && x.shape[1] == C && x.dtype == out.dtype, rows.count(), n, x.shape[1], C);
    const int32_t* row = rows.as<int32_t>();
    char* to = static_cast<char*>(out.data);
    const char* from = static_cast<const char*>(x.data);
    for_each_range(n, std::max<int64_t>(1, kBlockElements / C), 2 * out.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            CHECK(row[i] < x.shape[0], row[i], x.shape[0]);
            const auto bytes = static_cast<size_t>(row_bytes);
            if (row[i] < 0) {
                std::memset(to + i * row_bytes, 0, bytes);
            } else {
                std::memcpy(to + i * row_bytes, from + row[i] * row_bytes, bytes);
            }
        }
    });
}

}  // namespace llmc::cpu
