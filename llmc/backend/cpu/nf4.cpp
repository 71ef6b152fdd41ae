// Weights in four bits: a thread takes whole blocks, whose largest magnitude it looks up once.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/nf4.h"

#include <algorithm>

namespace llmc::cpu {
namespace {

static_assert(kBlockElements % kNf4Block == 0);

const uint8_t* bytes_of(Tensor tensor) { return static_cast<const uint8_t*>(tensor.data); }

template <typename Out, typename Absmax>
void dequantize(Tensor out, Tensor codes, const Absmax& absmax) {
    for_each_range(out.count(), kBlockElements, out.bytes() + codes.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t first = begin; first < end; first += kNf4Block) {
            dequantise_nf4_block(out.as<Out>() + first, bytes_of(codes) + first / 2, absmax(first / kNf4Block),
                                 std::min(kNf4Block, end - first));
        }
    });
}

template <typename Out>
void dequantize(Tensor out, const Nf4Operands& x) {
    if (x.absmax.dtype == DType::F32) {
        dequantize<Out>(out, x.codes, [absmax = x.absmax.as<float>()](int64_t block) { return absmax[block]; });
        return;
    }
    dequantize<Out>(out, x.codes,
                    [codes = bytes_of(x.absmax), nested = x.nested_absmax.as<float>(), offset = *x.offset.as<float>()](
                        int64_t block) { return nf4_absmax(codes[block], nested[block / kNf4NestedBlock], offset); });
}

}  // namespace

void CpuBackend::dequantize_nf4(Tensor out, const Nf4Operands& x) {
    x.check(out);
    if (out.dtype == DType::BF16)
        dequantize<bf16>(out, x);
    else
        dequantize<float>(out, x);
}

}  // namespace llmc::cpu
