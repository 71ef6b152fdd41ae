#include "llmc/backend/cpu/documents.h"

namespace llmc::cpu {

std::vector<DocumentRows> documents_in(Tensor documents, int64_t B, int64_t T) {
    CHECK(!documents || documents.count() == B * T, documents.count(), B, T);
    const int32_t* starts = documents ? documents.as<int32_t>() : nullptr;
    std::vector<DocumentRows> result;
    for (int64_t b = 0; !documents && b < B; ++b) result.push_back({b * T, T});
    for (int64_t n = 0; documents && n < B * T; ++n) {
        const int64_t slot = n % T;
        const bool begins = slot == 0 || starts[n] != starts[n - 1];
        CHECK(starts[n] == (begins ? slot : slot - result.back().count), starts[n], slot);
        if (begins) result.push_back({n, 0});
        ++result.back().count;
    }
    return result;
}

}  // namespace llmc::cpu
