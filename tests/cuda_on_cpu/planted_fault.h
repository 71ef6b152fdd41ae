// Runs a kernel with a planted fault under several schedules: each must report it, in the words and at the line given.
#pragma once

#include "dev/cuda_on_cpu/control.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace llmc::cuda {

/// "file.cu:41" for the line of the source file that ends in the comment "// fault: mark".
inline std::string place_of(const std::string& mark, const std::string& file) {
    std::ifstream source(file);
    std::string text;
    for (int line = 1; std::getline(source, text); ++line) {
        if (text.ends_with("// fault: " + mark)) return file + ":" + std::to_string(line);
    }
    ADD_FAILURE() << "no line of " << file << " is marked // fault: " << mark;
    return file;
}

/// `run` launches kernels; the report must have these words and name the marked line.
template <typename Run>
void expect_report(Run run, const std::string& words, const std::string& mark, const std::string& file,
                   uint64_t seeds = 8) {
    cuda_on_cpu::set_quiet(true);
    const std::string place = place_of(mark, file);
    for (uint64_t seed = 0; seed < seeds; ++seed) {
        cuda_on_cpu::set_seed(seed);
        run();
        EXPECT_NE(cudaDeviceSynchronize(), cudaSuccess) << "seed " << seed;
        const std::string text = cuda_on_cpu::last_report();
        EXPECT_TRUE(text.find(words) != std::string::npos && text.find(place) != std::string::npos)
            << "seed " << seed << ": no \"" << words << "\" or no " << place << " in: " << text;
        cuda_on_cpu::clear_report();
    }
}

/// The same kernel without the fault must run clean.
template <typename Run>
void expect_clean(Run run, uint64_t seeds = 8) {
    for (uint64_t seed = 0; seed < seeds; ++seed) {
        cuda_on_cpu::set_seed(seed);
        run();
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << "seed " << seed;
        EXPECT_EQ(cuda_on_cpu::last_report(), "") << "seed " << seed;
        cuda_on_cpu::clear_report();
    }
}

}  // namespace llmc::cuda
