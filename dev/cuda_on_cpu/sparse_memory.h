// Device memory of which only the pages exist that something has touched; the others read as zeros. It may be larger
// than any machine, so that kernels can be run on tensors of more than 2^32 elements
// (tests/cuda_on_cpu/test_offsets*.cpp).
//
// Races in it, and reads of what nobody wrote, are not looked for. On both sides of an allocation lies more closed
// address space than offsets that overflow in 32 bits can cross.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

/// nullptr if there is no address space.
void* allocate_sparse(size_t bytes);
void free_sparse(void* p);

/// The whole range lies in one such allocation.
bool is_sparse(const void* p, size_t bytes);

}  // namespace cuda_on_cpu
