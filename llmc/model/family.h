// What a model is made of, and the families people know by name. Everything that computes reads the features; a family
// is a description: a name, and the features that its models have. What a new family touches: dev/notes/models.md.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llmc {

enum class NormKind : uint8_t { LayerNorm, RmsNorm };             ///< LayerNorm has a bias.
enum class Activation : uint8_t { GeluTanh, GeluExact, Swiglu };  ///< Of the MLP; SwiGLU's has a gate.
enum class Positions : uint8_t { Learned, Rotary };

/// The parts of a block that a model may have or not.
struct Features {
    NormKind norm = NormKind::LayerNorm;
    Activation activation = Activation::GeluTanh;
    Positions positions = Positions::Learned;
    bool qkv_bias = true, att_proj_bias = true, mlp_bias = true;
    bool qk_norm = false;                ///< RMSNorm of each query and key head, before they are rotated.
    bool scale_scores = true;            ///< Attention's scores times 1/sqrt(HD).
    bool scale_scores_by_layer = false;  ///< Divided by the number of the layer, counted from 1.
    bool operator==(const Features&) const = default;
};

enum class Family : uint8_t { Gpt2, Llama, Mistral, Qwen2, Qwen3, SmolLm3, Phi3 };

struct FamilyRow {
    Family family;
    std::string_view key;       ///< In checkpoints.
    std::string_view name;      ///< In messages.
    Features features;          ///< Unless a configuration says otherwise.
    bool grouped_queries;       ///< Several query heads may share a key/value head.
    bool separate_projections;  ///< Queries, keys and values, and gate and up, are tensors of their own in its files.
};

/// One row each, in the order of the enumeration.
std::span<const FamilyRow> families();
const FamilyRow& row_of(Family family);
inline std::string_view name_of(Family family) { return row_of(family).name; }

}  // namespace llmc
