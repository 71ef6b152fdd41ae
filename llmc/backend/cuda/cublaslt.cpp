#include "llmc/backend/cuda/cublaslt.h"

#include <cuda_runtime_api.h>
#include <spdlog/fmt/fmt.h>

#include <dlfcn.h>

namespace llmc::cuda {
namespace {

#ifdef LLMC_CUDA_ON_CPU

/// The stand-in is part of the test program.
#define LLMC_FIND(function) found.function = &cublasLt##function

void* open_library(std::string*) { return nullptr; }

#else

#define LLMC_FIND(function)                                                                            \
    found.function = reinterpret_cast<decltype(found.function)>(dlsym(library, "cublasLt" #function)); \
    if (found.function == nullptr) found.problem = "CUDA's libcublasLt lacks cublasLt" #function

// A literal, so that scripts/gpu_machine.py can read it in the binary.
#if CUDART_VERSION >= 13000
[[gnu::used]] const char kLibrary[] = "libcublasLt.so.13";
#else
[[gnu::used]] const char kLibrary[] = "libcublasLt.so.12";
#endif

void* open_library(std::string* problem) {
    const std::string name = kLibrary;
    for (const std::string& path : {name, std::string(LLMC_CUDA_LIBRARIES "/") + name}) {
        if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    }
    *problem = fmt::format("{} was not found; install CUDA's libraries, or add their folder to LD_LIBRARY_PATH", name);
    return nullptr;
}

#endif

CublasLt find_functions() {
    CublasLt found;
    [[maybe_unused]] void* library = open_library(&found.problem);
    if (!found.problem.empty()) return found;
    LLMC_FIND(Create);
    LLMC_FIND(Destroy);
    LLMC_FIND(GetStatusString);
    LLMC_FIND(GetVersion);
    LLMC_FIND(Matmul);
    LLMC_FIND(MatmulAlgoCheck);
    LLMC_FIND(MatmulAlgoGetHeuristic);
    LLMC_FIND(MatmulDescCreate);
    LLMC_FIND(MatmulDescDestroy);
    LLMC_FIND(MatmulDescSetAttribute);
    LLMC_FIND(MatmulPreferenceCreate);
    LLMC_FIND(MatmulPreferenceDestroy);
    LLMC_FIND(MatmulPreferenceSetAttribute);
    LLMC_FIND(MatrixLayoutCreate);
    LLMC_FIND(MatrixLayoutDestroy);
    return found;
}

}  // namespace

const CublasLt& cublaslt() {
    static const CublasLt library = find_functions();
    return library;
}

}  // namespace llmc::cuda
