// A loop over independent pieces of work on several threads.
#pragma once

#include <cstdint>
#include <exception>
#include <omp.h>
#include <vector>

namespace llmc {

/// Runs work(index, thread) for every 0 <= index < count, thread < threads. If some throw, the one with the lowest
/// index is thrown again: the error is the same at any number of threads.
template <typename Work>
void parallel_for(int threads, int64_t count, Work work) {
    std::vector<std::exception_ptr> errors(static_cast<size_t>(count));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
        try {
            work(i, omp_get_thread_num());
        } catch (...) {
            errors[static_cast<size_t>(i)] = std::current_exception();
        }
    }
    for (const std::exception_ptr& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace llmc
