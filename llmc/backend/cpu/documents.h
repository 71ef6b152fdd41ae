// Documents that share a sequence (backend.h), as stretches of rows. A kernel treats each as a sequence of its own,
// with tiles that begin where it begins; so results are those of the document alone wherever in a sequence it lies.
#pragma once

#include "llmc/backend/backend.h"

#include <cstdint>
#include <vector>

namespace llmc::cpu {

struct DocumentRows {
    int64_t first = 0, count = 0;
};

/// Of B sequences of T rows, in order; where `documents` is empty the sequences themselves.
std::vector<DocumentRows> documents_in(Tensor documents, int64_t B, int64_t T);

/// The position of row n in its document, or its sequence.
inline int64_t position_of(const int32_t* documents, int64_t n, int64_t T) {
    return documents ? n % T - documents[n] : n % T;
}

inline int64_t value_of(const FirstPosition& first) {
    return first.offset + (first.on_device ? *first.on_device.as<int32_t>() : 0);
}

}  // namespace llmc::cpu
