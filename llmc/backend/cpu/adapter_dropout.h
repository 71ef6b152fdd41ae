// Products of an adapter's A with a dropped input, D(x): each group of the adapter has a mask of its own. Nothing of
// the input's size is stored: a tile of D(x) is made where it is used.
#pragma once

#include "llmc/backend/cpu/adapter_products.h"
#include "llmc/base/adapter.h"
#include "llmc/base/dropout.h"

namespace llmc::cpu {

// For T = float, bf16. Group g has rows [g rank, (g + 1) rank) of A, such columns of z, and the site dropout.site + g.

/// z (N, R) = D(x) (N, IC) * a (R, IC)^T.
template <typename T>
void dropped_dots(const Matrix<float>& z, const Matrix<const T>& x, const Matrix<const float>& a,
                  const AdapterShape& shape, const Dropout& dropout);
/// d_a (R, IC) = or += d_z (N, R)^T * D(x).
template <typename T>
void dropped_sums(const Matrix<float>& d_a, bool adds, const Matrix<const float>& d_z, const Matrix<const T>& x,
                  const AdapterShape& shape, const Dropout& dropout);
/// d_x (N, IC) += D(d_z * a), which is D's own transpose; groups are added up in fp32 first.
template <typename T>
void dropped_spread(const Matrix<T>& d_x, const Matrix<const float>& d_z, const Matrix<const float>& a,
                    const AdapterShape& shape, const Dropout& dropout);

}  // namespace llmc::cpu
