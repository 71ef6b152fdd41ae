// cuBLASLt, found when it is first needed rather than when the program starts: the same binary runs on machines that
// have none of CUDA's libraries.
#pragma once

#include <cublasLt.h>

#include <string>

namespace llmc::cuda {

/// The library's functions that we call, by their names without "cublasLt".
struct CublasLt {
    decltype(&cublasLtCreate) Create = nullptr;
    decltype(&cublasLtDestroy) Destroy = nullptr;
    decltype(&cublasLtGetStatusString) GetStatusString = nullptr;
    decltype(&cublasLtGetVersion) GetVersion = nullptr;
    decltype(&cublasLtMatmul) Matmul = nullptr;
    decltype(&cublasLtMatmulAlgoCheck) MatmulAlgoCheck = nullptr;
    decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic = nullptr;
    decltype(&cublasLtMatmulDescCreate) MatmulDescCreate = nullptr;
    decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy = nullptr;
    decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute = nullptr;
    decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate = nullptr;
    decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy = nullptr;
    decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute = nullptr;
    decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate = nullptr;
    decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy = nullptr;
    std::string problem;  ///< Why it cannot be used, in words for a user; empty if it can.
};

/// Looks for the library in the usual places and LD_LIBRARY_PATH, once.
const CublasLt& cublaslt();

}  // namespace llmc::cuda
