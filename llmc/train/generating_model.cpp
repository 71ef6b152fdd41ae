#include "llmc/train/generating_model.h"

#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/load_weights.h"

#include <utility>

namespace llmc {

GeneratingModel::GeneratingModel(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer,
                                 int64_t context)
    : backend_(make_backend(options.device, static_cast<int>(options.threads), options.cpu_products)),
      context_(context) {
    const Model& model = weights.model();
    const DType dtype = inference_dtype(weights, *backend_);
    Options portable = options;  // Attention over a cache has no other kernels.
    portable.kernels = kPortableKernels;
    settle_arithmetic(portable, model.config, dtype, *backend_);
    GenerationPlan generation = plan_generation(model, dtype, context, *backend_);
    state_.emplace(*backend_, model, dtype, context, generation.layout.arena_bytes, /*training=*/false);
    load_weights(weights, *state_);
    spdlog::info("{}; {} parameters, {}, {}", weights.describe(), format_count(model.parameter_count()), name_of(dtype),
                 format_bytes(state_->allocated_bytes()));
    generator_.emplace(*state_, std::move(generation));
    generator_->draw_only_tokens_of(tokenizer);
}

SamplerSettings sampler_settings(const Options& options) {
    return {options.temperature, options.top_k, options.top_p, static_cast<uint64_t>(options.seed)};
}

}  // namespace llmc
