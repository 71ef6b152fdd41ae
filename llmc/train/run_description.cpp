#include "llmc/train/run_description.h"

#include "llmc/base/error.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/check_data.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/gemm_choice.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/offload.h"
#include "llmc/train/prompt.h"
#include "llmc/train/ranks.h"
#include "llmc/train/resume_options.h"

namespace llmc {

namespace {

/// The tokens of --sample-prompt, unless there are no samples: without a tokenizer there is no text to show.
std::vector<int32_t> sample_prompt(const Options& options, const Tokenizer& tokenizer, int64_t V) {
    if (options.sample_length == 0) return {};
    if (tokenizer.vocab_size() > 0) {
        return encode_prompt(options.sample_prompt, tokenizer, tokenizer.end_of_text(), V,
                             {"--sample-prompt", options.special_tokens});
    }
    if (options.was_typed("sample-prompt")) {
        fail_usage("--sample-prompt: has no effect; only token ids are known, so there are no samples: leave it out");
    }
    return {};
}

/// What the data's sequences are made of, which the plan goes by.
void make_sequences(RunDescription* run) {
    Options& options = run->options;
    const Data& data = run->data;
    SequenceSettings settings = {options.pack, options.seq_len, static_cast<int32_t>(run->model.config.V),
                                 static_cast<uint64_t>(options.seed), "--data"};
    run->sequences = training_sequences(*data.train, settings);
    if (data.val_source != nullptr) settings.option = "--val-data";
    run->val_sequences = validation_sequences(*data.validation, settings, options.val_sequences);
    options.packed = run->sequences->packed();
    options.partly_scored = run->sequences->partly_scored();
    if (options.pack == "auto") options.pack = options.packed ? "documents" : "none";
}

}  // namespace

std::unique_ptr<const RunDescription> describe_run(const Options& given, const Origin& origin, Comm& comm) {
    auto run = std::make_unique<RunDescription>();
    Options& options = run->options;
    options = given;
    place_rank(options, comm);
    const std::optional<ModelConfig> fixed = origin.config(options);
    if (fixed) settle_seq_len(options, *fixed);
    if (origin.weights != nullptr) settle_adapter(options, origin.weights->model());
    if (origin.weights == nullptr && !origin.checkpoint && !options.adapter.empty()) {
        fail_usage("--adapter={}: --model={} is an architecture without weights; name the model it was trained on",
                   options.adapter, options.model);
    }
    run->data = open_data(options, origin.tokenizer());
    run->model =
        model_to_train(options, fixed ? accept_model(options, *fixed, run->data.tokenizer.get())
                                      : resolve_model(options, run->data.vocab_size(), run->data.least_vocab_size()));
    if (origin.weights != nullptr) settle_base_format(options, *origin.weights, run->model);
    require_base(options, run->model);
    check_data(options, run->data, run->model.config.V, /*is_new=*/!fixed, comm);
    if (origin.checkpoint) keep_packing(options, *origin.checkpoint);
    make_sequences(run.get());
    run->sample_prompt = sample_prompt(options, *run->data.tokenizer, run->model.config.V);
    if (origin.checkpoint) {
        require_same_run(options, run->model.config, *origin.checkpoint);
        keep_total_batch(options, *origin.checkpoint);
        keep_arithmetic(options, *origin.checkpoint);
    }
    require_divisible(options);
    const bool is_imported = origin.checkpoint && progress_of(*origin.checkpoint).train_tokens == 0;
    settle_schedule(options, origin.weights != nullptr || is_imported);
    settle_adapter_schedule(options);

    // One kind of products for all ranks: that of rank 0's processor.
    if (options.cpu_products == "auto") options.cpu_products = comm.broadcast(usual_cpu_products());
    run->backend = make_backend(options.device, static_cast<int>(options.threads), options.cpu_products);
    Backend& backend = *run->backend;
    const DType dtype = dtype_of_option(options, backend);
    options.dtype = name_of(dtype);
    require_dtype(backend, dtype);
    require_same_run_everywhere(options, run->model, run->data, origin.describe(options), comm);
    settle_arithmetic(options, run->model.config, dtype, backend, comm);
    const GemmAlgorithms before = origin.checkpoint ? progress_of(*origin.checkpoint).gemms : GemmAlgorithms();
    settle_own_gemms(options, before, dtype, backend, comm);
    comm.open_transport(backend, options.rank_invariant);
    run->transport = std::make_unique<TransportGuard>(comm);
    share_memory(options, backend, comm);

    run->chosen = agree_on_plan(options, run->model, backend, comm);
    const Plan& plan = run->plan();
    run->chosen.gemms = settle_gemm_algorithms(options, before, run->model, plan, backend, comm);
    options.batch_size = plan.shape.B;
    if (run->chosen.placed) options.offload = offload_of(plan.places);
    options.total_batch_size = plan.parallel.ranks * plan.parallel.micro_batches * plan.shape.N();
    return run;
}

}  // namespace llmc
