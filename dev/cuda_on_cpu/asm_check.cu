// One kernel for each PTX instruction of language.cuh, for asm_check.sh: operands come from and go to memory in order.
#include "llmc/backend/cuda/device.cuh"

namespace llmc::cuda {

extern "C" __global__ void check_mma(float* out, const uint32_t* a, const uint32_t* b, const float* c) {
    const uint32_t a_part[4] = {a[0], a[1], a[2], a[3]}, b_part[2] = {b[0], b[1]};
    const float c_part[4] = {c[0], c[1], c[2], c[3]};
    float d[4];
    mma_m16n8k16(d, a_part, b_part, c_part);
    for (int i = 0; i < 4; ++i) out[i] = d[i];
}

extern "C" __global__ void check_ldmatrix_x4(uint32_t* out) {
    SHARED(bf16[256], tile);
    uint32_t r[4];
    ldmatrix_x4(r, tile + 8 * threadIdx.x);
    for (int i = 0; i < 4; ++i) out[i] = r[i];
}

extern "C" __global__ void check_ldmatrix_x4_trans(uint32_t* out) {
    SHARED(bf16[256], tile);
    uint32_t r[4];
    ldmatrix_x4_trans(r, tile + 8 * threadIdx.x);
    for (int i = 0; i < 4; ++i) out[i] = r[i];
}

}  // namespace llmc::cuda
