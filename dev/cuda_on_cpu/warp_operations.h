// Operations of a warp: the lanes named by a mask meet, and the last to come does the work for all.
//
// Every lane must call the same operation from the same line with the same mask; a mask must name the caller and nobody
// who has exited. Only __syncwarp orders memory inside a warp, shuffles do not.
#pragma once

#include "dev/cuda_on_cpu/report.h"

#include <cstdint>

namespace cuda_on_cpu {

enum class Shuffle { Index, Up, Down, Xor };
enum class Reduction { Add, Min, Max, And, Or, Xor };

/// The bits of another lane's value.
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int argument, int width, const Where& where);
unsigned ballot(unsigned mask, bool predicate, const char* name, const Where& where);
unsigned reduce(Reduction kind, unsigned mask, unsigned value, bool is_signed, const Where& where);
void warp_barrier(unsigned mask, const Where& where);

/// As in language.cuh; matrices: 1, 2 or 4.
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, const float* c, const Where& where);
void ldmatrix(uint32_t* r, int matrices, bool transposed, const void* row, const Where& where);

}  // namespace cuda_on_cpu
