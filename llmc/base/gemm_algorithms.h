// Which of its algorithms a library forms each of a run's matrix products with, or whether a kernel of our own does, as
// data. An algorithm decides the last bits of its product: what is noted here and given back to the same library on the
// same kind of device gives the same bits again. Noted in run folder and checkpoint (train/gemm_choice.h).
#pragma once

#include "llmc/base/dtype.h"

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// What a product does with its sums before, or beside, storing them.
enum class Epilogue : uint8_t {
    None,
    Bias,          ///< D's rows each get their number of a bias (m) of D's type.
    BiasGradient,  ///< Stores the row sums of op(B), (n) of D's type, beside D.
    GeluGradient,  ///< Multiplies by the derivative of GELU's tanh form at a matrix of D's shape and type.
};

/// D (m, n) = op(A) op(B) [+ C], column-major as the library counts. A and B have the type `input`; D, C and bias the
/// type `output`; products are summed in fp32.
struct GemmShape {
    int64_t m = 0, n = 0, k = 0;
    bool transpose_a = false, transpose_b = false;
    DType input = DType::F32, output = DType::F32;
    Epilogue epilogue = Epilogue::None;
    bool adds_c = false;
    auto operator<=>(const GemmShape&) const = default;
};

/// All that an algorithm is chosen by.
struct GemmKey {
    GemmShape shape;
    bool tf32 = false;                       ///< Operands in fp32 are rounded to TF32.
    std::array<uint32_t, 4> alignment = {};  ///< Of A, B, C and D, in bytes; powers of two up to 128.
    int64_t workspace_bytes = 0;             ///< What the library may use.
    auto operator<=>(const GemmKey&) const = default;
};

/// The one word of our own kernel for compute capability 9.0; another number whenever the order of its sums changes.
constexpr uint64_t kOwnGemm = 1;

struct GemmAlgorithm {
    GemmKey key;
    std::vector<uint64_t> words;  ///< The library's own description of it, to be handed back as it is; or kOwnGemm.
    bool is_own() const { return words.size() == 1 && words[0] == kOwnGemm; }
    bool operator==(const GemmAlgorithm&) const = default;
};

struct GemmAlgorithms {
    std::string library;  ///< With its version; empty: a device whose products have one algorithm each.
    std::string device;   ///< The kind of card that they were found on.
    std::vector<GemmAlgorithm> chosen;

    bool is_of_same_kind(const GemmAlgorithms& other) const {
        return library == other.library && device == other.device;
    }
    bool operator==(const GemmAlgorithms&) const = default;
};

/// One product of a plan, as Backend::time_gemms() is asked about it: which operation, and its sizes. A product is the
/// same with something that the library does not have and without, as a repeat or --no-fuse has it; those with it come
/// first, and decide for both.
enum class GemmKind : uint8_t {
    ForwardAndGelu,
    ForwardAndSwiglu,
    ForwardAndRope,
    Forward,
    InputGradientAndSwiglu,
    InputGradient,
    WeightGradient,
    InputGradientAndGelu,
    WeightAndBiasGradient
};

struct GemmQuery {
    GemmKind kind = GemmKind::Forward;
    DType dtype = DType::F32;  ///< Of activations.
    int64_t N = 0, OC = 0, IC = 0;
    bool has_bias = false, has_residual = false;  ///< Of a forward.
    int64_t workspace_bytes = 0;                  ///< That the operation is given.
    int64_t head_size = 0, rotated_columns = 0;   ///< Of ForwardAndRope: the first of OC, of heads that turn whole.
    auto operator<=>(const GemmQuery&) const = default;
};

}  // namespace llmc
