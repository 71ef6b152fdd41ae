#include "llmc/model/family.h"

#include <iterator>

namespace llmc {
namespace {

constexpr Features kGpt2;

/// LLaMA 2 and 3 (Touvron et al. 2023; Dubey et al. 2024), which the others are described by.
constexpr Features kLlama = {.norm = NormKind::RmsNorm,
                             .activation = Activation::Swiglu,
                             .positions = Positions::Rotary,
                             .qkv_bias = false,
                             .att_proj_bias = false,
                             .mlp_bias = false};

constexpr Features with_qkv_bias(Features features) {
    features.qkv_bias = true;
    return features;
}

constexpr Features with_qk_norm(Features features) {
    features.qk_norm = true;
    return features;
}

constexpr FamilyRow kFamilies[] = {
    {Family::Gpt2, "gpt2", "GPT-2", kGpt2, /*grouped_queries=*/false, /*separate_projections=*/false},
    {Family::Llama, "llama", "LLaMA", kLlama, true, true},
    {Family::Mistral, "mistral", "Mistral", kLlama, true, true},
    {Family::Qwen2, "qwen2", "Qwen2", with_qkv_bias(kLlama), true, true},
    {Family::Qwen3, "qwen3", "Qwen3", with_qk_norm(kLlama), true, true},
    {Family::SmolLm3, "smollm3", "SmolLM3", kLlama, true, true},
    {Family::Phi3, "phi3", "Phi-3", kLlama, true, false},
};

constexpr bool in_order() {
    for (size_t i = 0; i < std::size(kFamilies); ++i) {
        if (kFamilies[i].family != static_cast<Family>(i)) return false;
    }
    return true;
}
static_assert(in_order(), "the table is indexed by the family");
static_assert(std::size(kFamilies) == static_cast<size_t>(Family::Phi3) + 1, "a family without a row");

}  // namespace

std::span<const FamilyRow> families() { return kFamilies; }

const FamilyRow& row_of(Family family) { return kFamilies[static_cast<size_t>(family)]; }

}  // namespace llmc
