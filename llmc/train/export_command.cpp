#include "llmc/train/export_command.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/pending_output.h"
#include "llmc/base/units.h"
#include "llmc/io/bpe_learn.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/gguf/gguf_architecture.h"
#include "llmc/io/gguf/gguf_model.h"
#include "llmc/io/gguf/gguf_vocabulary.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/llmc_model.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/io/peft/adapters.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "llmc/io/tokenizer.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>

namespace llmc {
namespace {

/// What text generation needs to know: the ids that came with the tokenizer, else its end-of-text for both ends.
std::string token_ids(const WeightSource& weights) {
    std::string ids = "{}";
    if (!weights.tokenizer_folder().empty()) ids = special_token_ids(weights.tokenizer_folder());
    if (ids != "{}") return ids;
    const std::unique_ptr<Tokenizer> tokenizer = make_models_tokenizer(weights.tokenizer());
    warn_if_unread(*tokenizer);
    const int32_t end_of_text = tokenizer->end_of_text();
    if (end_of_text < 0) return ids;
    return nlohmann::json({{"bos_token_id", end_of_text}, {"eos_token_id", end_of_text}}).dump();
}

/// Byte models have no tokenizer's files. To other programs they are byte-level BPE without a merge.
LearnedBpe bytes_as_bpe() {
    LearnedBpe bpe;
    for (int byte = 0; byte < ByteTokenizer::kEndOfText; ++byte) bpe.tokens.emplace_back(1, static_cast<char>(byte));
    bpe.tokens.emplace_back(kEndOfTextName);
    return bpe;
}

MatrixFormat matrix_format(const Options& options) {
    if (options.base_format == "nf4") return MatrixFormat::Nf4;
    return options.base_format == "nf4-double" ? MatrixFormat::Nf4Double : MatrixFormat::Plain;
}

void export_hf(const WeightSource& weights, DType dtype, MatrixFormat format, const PendingOutput& output) {
    make_directories(output.temporary(), "--out");
    write_hf_model(output.temporary(), weights, dtype, token_ids(weights), format);
    copy_tokenizer_files(weights.tokenizer_folder(), output.temporary());
    const std::string tokenizer = weights.tokenizer();
    if (tokenizer == "bytes") write_bpe(bytes_as_bpe(), output.temporary());
    if (tokenizer == "none") spdlog::info("the model's tokenizer is not known, so none is in '{}'", output.path());
}

void export_gguf(const Options& options) {
    const std::unique_ptr<WeightSource> weights = require_finite(adapted_weights(options, options.run, "--run"));
    const GgufType type = gguf_type(options.gguf_type);
    PendingOutput output(options.out, "--out", OutputIs::File);
    gguf_architecture_of(weights->model());  // What cannot be said is refused before the vocabulary is read.
    const GgufVocabulary vocabulary =
        gguf_vocabulary(weights->tokenizer(), weights->tokenizer_folder(), weights->model().config.V);
    output.write([&] { write_gguf_model(output.temporary(), *weights, type, vocabulary); });
    output.complete();
    spdlog::info("{}, {} parameters as {}, in '{}'; llama.cpp runs it: llama-completion -m {}", weights->describe(),
                 format_count(weights->model().parameter_count()), options.gguf_type, output.path(), output.path());
}

const CheckpointWeights& require_adapters_in(const WeightSource& weights, const char* option) {
    const auto* const checkpoint = dynamic_cast<const CheckpointWeights*>(&weights);
    if (checkpoint != nullptr && !checkpoint->adapter().empty()) return *checkpoint;
    fail_usage("{}: {} has no adapters; train some with --lora, or leave {} out", option, weights.describe(), option);
}

/// The adapters of a run alone.
void export_peft(const Options& options) {
    if (!options.adapter.empty()) {
        fail_usage("--adapter={}: it is a folder for PEFT already; choose another --format to merge it",
                   options.adapter);
    }
    const std::unique_ptr<WeightSource> weights = open_weights(options.run, "--run");
    const CheckpointWeights* const checkpoint = &require_adapters_in(*weights, "--format=peft");
    const Model& model = checkpoint->trained_model();
    if (model.config.tied && model.trains(model.wte)) {
        fail_usage(
            "--format=peft: the embedding was trained, and PEFT does not keep the head tied to it; export the whole "
            "model: --format=hf");
    }
    PendingOutput output(options.out, "--out", OutputIs::Folder);
    output.write([&] {
        make_directories(output.temporary(), "--out");
        write_peft_folder(
            output.temporary(), model, peft_config_from_json(checkpoint->adapter(), options.run),
            [&](int index) { return checkpoint->unmerged(model.parameters[static_cast<size_t>(index)]); });
    });
    output.complete();
    spdlog::info("the adapters of {}, {} parameters as fp32, in '{}'", weights->describe(),
                 format_count(model.trainable_count()), output.path());
}

}  // namespace

void export_command(const Options& options) {
    if (options.merge && options.adapter.empty()) require_adapters_in(*open_weights(options.run, "--run"), "--merge");
    if (options.format == "peft") return export_peft(options);
    if (options.format == "gguf") return export_gguf(options);
    const MatrixFormat format = matrix_format(options);
    const bool quantises = format != MatrixFormat::Plain;
    std::unique_ptr<WeightSource> weights = adapted_weights(options, options.run, "--run");
    if (quantises) weights = require_finite(std::move(weights));
    // Beside matrices in 4 bits the rest is in 16, unless it is asked for in more.
    const bool is_bf16 = options.dtype == "bf16" || (quantises && options.dtype == "auto");
    const DType dtype = is_bf16 ? DType::BF16 : DType::F32;
    const bool is_hf = options.format == "hf";
    PendingOutput output(options.out, "--out", is_hf ? OutputIs::Folder : OutputIs::File);
    output.write([&] {
        is_hf ? export_hf(*weights, dtype, format, output) : write_llmc_model(output.temporary(), *weights, dtype);
    });
    output.complete();
    const std::string matrices = quantises
                                     ? fmt::format("{}, matrices of layers as {}", name_of(dtype), options.base_format)
                                     : std::string(name_of(dtype));
    spdlog::info("{}, {} parameters as {}, in '{}'", weights->describe(),
                 format_count(weights->model().parameter_count()), matrices, output.path());
}

}  // namespace llmc
