#include "llmc/train/option_hints.h"

#include "llmc/base/nearest_word.h"
#include "llmc/train/options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

namespace llmc {
namespace {

/// A name that others have for an option, as words() writes it, and what a user of it must know.
struct OtherName {
    std::string_view theirs;
    const char* ours;
    const char* note = "";
};

constexpr const char* kEpochs = " (it counts updates, not passes over the data)";
constexpr const char* kTokens = " (it counts tokens per update)";
constexpr const char* kFraction = " (a fraction of the peak)";
constexpr const char* kUpdates = " (it counts updates)";
constexpr const char* kLevels = " (1 keeps each layer's input only)";
constexpr const char* kSequences = " (it counts sequences)";

constexpr std::array kOtherNames = {
    // The model: nanoGPT, Hugging Face's config.json, LLaMA's params.json.
    OtherName{"n-layer", "layers"},
    OtherName{"n-layers", "layers"},
    OtherName{"num-layers", "layers"},
    OtherName{"num-hidden-layers", "layers"},
    OtherName{"depth", "layers"},
    OtherName{"n-head", "heads"},
    OtherName{"n-heads", "heads"},
    OtherName{"num-heads", "heads"},
    OtherName{"num-attention-heads", "heads"},
    OtherName{"n-kv-head", "kv-heads"},
    OtherName{"n-kv-heads", "kv-heads"},
    OtherName{"num-kv-heads", "kv-heads"},
    OtherName{"num-key-value-heads", "kv-heads"},
    OtherName{"n-embd", "channels"},
    OtherName{"n-embed", "channels"},
    OtherName{"dim", "channels"},
    OtherName{"d-model", "channels"},
    OtherName{"hidden-size", "channels"},
    OtherName{"hidden-dim", "channels"},
    OtherName{"embedding-size", "channels"},
    OtherName{"head-dim", "head-size"},
    OtherName{"d-ff", "ffn-size"},
    OtherName{"n-inner", "ffn-size"},
    OtherName{"ffn-dim", "ffn-size"},
    OtherName{"ffn-hidden-size", "ffn-size"},
    OtherName{"intermediate-size", "ffn-size"},
    OtherName{"vocabulary-size", "vocab-size"},
    OtherName{"n-vocab", "vocab-size"},
    OtherName{"n-positions", "max-seq-len"},
    OtherName{"n-ctx", "max-seq-len"},
    OtherName{"max-position-embeddings", "max-seq-len"},
    OtherName{"tie-word-embeddings", "tied"},
    OtherName{"rope-base", "rope-theta"},
    OtherName{"model-name-or-path", "model"},
    OtherName{"model-name", "model"},
    OtherName{"init-from", "model"},
    OtherName{"tokenizer-name", "tokenizer"},
    OtherName{"tokenizer-path", "tokenizer"},
    // Data and batch.
    OtherName{"dataset", "data"},
    OtherName{"data-path", "data"},
    OtherName{"data-dir", "data"},
    OtherName{"input", "data"},
    OtherName{"train-file", "data"},
    OtherName{"train-data", "data"},
    OtherName{"train-bin", "data"},
    OtherName{"validation-file", "val-data"},
    OtherName{"eval-data", "val-data"},
    OtherName{"val-file", "val-data"},
    OtherName{"val-bin", "val-data"},
    OtherName{"text-column", "jsonl-field"},
    OtherName{"packing", "pack"},
    OtherName{"sample-packing", "pack"},
    OtherName{"pack-sequences", "pack"},
    OtherName{"bs", "batch-size"},
    OtherName{"micro-batch-size", "batch-size"},
    OtherName{"device-batch-size", "batch-size"},
    OtherName{"per-device-train-batch-size", "batch-size"},
    OtherName{"per-device-eval-batch-size", "batch-size"},
    OtherName{"block-size", "seq-len"},
    OtherName{"context-length", "seq-len"},
    OtherName{"context-size", "seq-len"},
    OtherName{"ctx-len", "seq-len"},
    OtherName{"sequence-length", "seq-len"},
    OtherName{"seq-length", "seq-len"},
    OtherName{"max-length", "seq-len"},
    OtherName{"max-seq-length", "seq-len"},
    OtherName{"gradient-accumulation-steps", "total-batch-size", kTokens},
    OtherName{"grad-accum-steps", "total-batch-size", kTokens},
    OtherName{"accumulation-steps", "total-batch-size", kTokens},
    OtherName{"global-batch-size", "total-batch-size", kTokens},
    OtherName{"max-iters", "steps"},
    OtherName{"iters", "steps"},
    OtherName{"iterations", "steps"},
    OtherName{"num-iterations", "steps"},
    OtherName{"max-steps", "steps"},
    OtherName{"num-steps", "steps"},
    OtherName{"num-train-steps", "steps"},
    OtherName{"train-iters", "steps"},
    OtherName{"epochs", "steps", kEpochs},
    OtherName{"num-epochs", "steps", kEpochs},
    OtherName{"num-train-epochs", "steps", kEpochs},
    // Optimisation.
    OtherName{"lr", "learning-rate"},
    OtherName{"max-lr", "learning-rate"},
    OtherName{"peak-lr", "learning-rate"},
    OtherName{"min-lr", "final-lr-fraction", kFraction},
    OtherName{"lr-scheduler", "lr-schedule"},
    OtherName{"lr-scheduler-type", "lr-schedule"},
    OtherName{"scheduler", "lr-schedule"},
    OtherName{"decay-lr", "lr-schedule"},
    OtherName{"lr-decay-style", "lr-schedule"},
    OtherName{"lr-decay-iters", "steps"},
    OtherName{"warmup-iters", "warmup"},
    OtherName{"warmup-steps", "warmup"},
    OtherName{"num-warmup-steps", "warmup"},
    OtherName{"lr-warmup-steps", "warmup"},
    OtherName{"warmup-ratio", "warmup", kUpdates},
    OtherName{"wd", "weight-decay"},
    OtherName{"optim", "optimizer"},
    OtherName{"opt-m-dtype", "moments"},
    OtherName{"opt-v-dtype", "moments"},
    OtherName{"state-dtype", "moments"},
    OtherName{"master-dtype", "masters"},
    OtherName{"master-weights", "masters"},
    OtherName{"use-master-weights", "masters"},
    OtherName{"gradient-dtype", "gradients"},
    OtherName{"grad-dtype", "gradients"},
    OtherName{"opt", "optimizer"},
    OtherName{"adam-beta1", "beta1"},
    OtherName{"adam-beta2", "beta2"},
    OtherName{"momentum", "beta1"},
    OtherName{"eps", "adam-epsilon"},
    OtherName{"adam-eps", "adam-epsilon"},
    OtherName{"clip", "grad-clip"},
    OtherName{"clip-grad", "grad-clip"},
    OtherName{"gradient-clip", "grad-clip"},
    OtherName{"gradient-clipping", "grad-clip"},
    OtherName{"max-grad-norm", "grad-clip"},
    // Memory, ranks, device.
    OtherName{"gradient-checkpointing", "recompute", kLevels},
    OtherName{"activation-checkpointing", "recompute", kLevels},
    OtherName{"checkpoint-activations", "recompute", kLevels},
    OtherName{"zero-stage", "zero"},
    OtherName{"world-size", "ranks"},
    OtherName{"num-gpus", "ranks"},
    OtherName{"nproc", "ranks"},
    OtherName{"backend", "device"},
    OtherName{"gpu", "device"},
    OtherName{"precision", "dtype"},
    OtherName{"mixed-precision", "dtype"},
    OtherName{"bf16", "dtype"},
    OtherName{"num-threads", "threads"},
    OtherName{"num-workers", "threads"},
    // Run.
    OtherName{"out-dir", "output-dir"},
    OtherName{"output", "output-dir"},
    OtherName{"save-dir", "output-dir"},
    OtherName{"log-dir", "output-dir"},
    OtherName{"run-dir", "output-dir"},
    OtherName{"resume-from", "resume"},
    OtherName{"resume-from-checkpoint", "resume"},
    OtherName{"load-checkpoint", "resume"},
    OtherName{"load", "resume"},
    OtherName{"random-seed", "seed"},
    OtherName{"eval-interval", "val-every"},
    OtherName{"eval-every", "val-every"},
    OtherName{"eval-steps", "val-every"},
    OtherName{"val-interval", "val-every"},
    OtherName{"validate-every", "val-every"},
    OtherName{"validation-every", "val-every"},
    OtherName{"validation-interval", "val-every"},
    OtherName{"validation-steps", "val-every"},
    OtherName{"val-loss-every", "val-every"},
    OtherName{"eval-iters", "val-sequences", kSequences},
    OtherName{"val-max-steps", "val-sequences", kSequences},
    OtherName{"sample-interval", "sample-every"},
    OtherName{"save-interval", "checkpoint-every"},
    OtherName{"save-every", "checkpoint-every"},
    OtherName{"save-steps", "checkpoint-every"},
    OtherName{"checkpoint-interval", "checkpoint-every"},
    OtherName{"save-total-limit", "keep-checkpoints"},
    OtherName{"max-checkpoints", "keep-checkpoints"},
    OtherName{"load-best-model-at-end", "keep-best"},
    OtherName{"save-best", "keep-best"},
    OtherName{"log-interval", "log-every"},
    OtherName{"logging-steps", "log-every"},
    OtherName{"print-every", "log-every"},
    // Generation.
    OtherName{"start", "prompt"},
    OtherName{"text", "prompt"},
    OtherName{"max-new-tokens", "length"},
    OtherName{"max-tokens", "length"},
    OtherName{"num-samples", "samples"},
    OtherName{"num-return-sequences", "samples"},
    OtherName{"n-samples", "samples"},
    OtherName{"temp", "temperature"},
    OtherName{"checkpoint", "run"},
    OtherName{"ckpt", "run"},
    OtherName{"out-dir", "run"},
};

/// In small letters, with dashes: "--batchSize" and "Batch_Size" are "batch-size".
std::string words(std::string_view name) {
    std::string text;
    while (name.starts_with('-')) name.remove_prefix(1);
    for (size_t i = 0; i < name.size(); ++i) {
        const auto c = static_cast<unsigned char>(name[i]);
        const bool begins_word = std::isupper(c) != 0 && i > 0 && std::islower(static_cast<unsigned char>(name[i - 1]));
        if (begins_word) text += '-';
        text += c == '_' || c == ' ' || c == '.' ? '-' : static_cast<char>(std::tolower(c));
    }
    return text;
}

std::string without_dashes(std::string text) {
    std::erase(text, '-');
    return text;
}

bool exists(std::string_view name, CommandSet commands) {
    const auto& table = option_table();
    return std::any_of(table.begin(), table.end(), [&](const OptionRow& row) {
        return (row.commands & commands) != 0 && !row.stands_alone() && row.name() == name;
    });
}

/// The whole word, or a beginning of at least four letters that only one option has.
std::string same_or_begun(const std::string& given, const std::vector<std::string>& names) {
    constexpr size_t kBeginning = 4;
    std::string begun;
    for (const std::string& name : names) {
        const std::string letters = without_dashes(name);
        if (letters == given) return name;
        if (given.size() < kBeginning || !letters.starts_with(given)) continue;
        begun = begun.empty() ? name : "-";
    }
    return begun == "-" ? "" : begun;
}

struct Hint {
    std::string name;
    std::string note;
};

Hint hint_for(std::string_view given, CommandSet commands) {
    const std::string wanted = words(given), letters = without_dashes(wanted);
    if (wanted.empty()) return {};
    std::vector<std::string> names;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & commands) != 0 && !row.stands_alone()) names.push_back(row.name());
    }
    if (const std::string same = same_or_begun(letters, names); without_dashes(same) == letters) return {same, ""};
    for (const OtherName& other : kOtherNames) {
        const bool is_it = other.theirs == wanted || without_dashes(std::string(other.theirs)) == letters;
        if (is_it && exists(other.ours, commands)) return {other.ours, other.note};
    }
    if (const std::string nearest = nearest_word(wanted, names); !nearest.empty()) return {nearest, ""};
    return {same_or_begun(letters, names), ""};
}

}  // namespace

std::string similar_option(std::string_view given, CommandSet commands) { return hint_for(given, commands).name; }

std::string did_you_mean(std::string_view given, CommandSet commands, std::string_view dashes) {
    const Hint hint = hint_for(given, commands);
    return hint.name.empty() ? "" : fmt::format("; did you mean {}{}{}?", dashes, hint.name, hint.note);
}

}  // namespace llmc
