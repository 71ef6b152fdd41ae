#include "llmc/train/remedy.h"

#include "llmc/base/advice_text.h"
#include "llmc/base/units.h"
#include "llmc/model/dropout.h"
#include "llmc/plan/search.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/largest.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"
#include "llmc/train/setup.h"

#include <algorithm>
#include <optional>

namespace llmc {
namespace {

/// Whether whole micro-batches make up the update, where its size was asked for.
bool divides_update(const Options& options, const BatchShape& shape) {
    if (!options.was_given("total-batch-size")) return true;
    return options.total_batch_size % (shape.N() * options.ranks) == 0;
}

Options with_shape(const Options& options, const BatchShape& shape) {
    Options other = options;
    other.batch_size = shape.B, other.seq_len = shape.T;
    return other;
}

class Remedies {
  public:
    Remedies(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend)
        : options_(options), model_(model), shape_(shape), backend_(backend) {}

    std::vector<WayOut> run() {
        raise_budget();
        raise_host_budget();
        fewer_sequences();
        shorter_sequences();
        another_type();
        another_placement();
        if (ways_.empty()) less_state(/*fewer_sequences=*/false);
        if (ways_.empty()) less_state(/*fewer_sequences=*/true);
        if (ways_.empty()) smaller_model();
        return std::move(ways_);
    }

  private:
    bool fits(const Options& other, const BatchShape& shape) const {
        return is_fitting(with_shape(other, shape), model_, shape, backend_);
    }
    void add(const std::string& words, std::vector<std::string> options) {
        ways_.push_back({words, std::move(options)});
    }

    /// What a run needs at least: with auto of the smallest plan.
    int64_t needed_bytes() const {
        const PlanRequest request = request_for(options_, model_, shape_, backend_);
        const int64_t state =
            state_bytes(model_, request.places, shape_.T, request.parallel, /*training=*/true).total();
        if (options_.recompute == "auto") {
            const OpTimes times = nominal_times(options_, model_, request, backend_);
            return state + search_plan(model_, request, times, 1).smallest_bytes;
        }
        return state + make_layout(make_training_plan(model_, request, find_policy(options_.recompute))).arena_bytes;
    }

    void raise_budget() {
        const DeviceInfo device = backend_.info();
        const int64_t needed = needed_bytes();
        Options other = options_;
        if (!options_.memory_budget.empty()) {
            other.memory_budget.clear();
            if (needed > memory_limit(other, device)) return;
            other.memory_budget = size_option_from(needed);
            const Options raised = with_shape(other, shape_);
            if (!fits(other, shape_) && !seconds_if_fitting(raised, model_, shape_, backend_)) return;  // With care.
            add(fmt::format("raise --memory-budget to {}", other.memory_budget),
                {fmt::format("--memory-budget={}", other.memory_budget)});
        } else if (options_.device_profile.empty() && needed > device.process_available &&
                   needed <= device.memory_available / options_.memory_sharing) {
            add(fmt::format("raise the limit of {}", device.process_limit), {});
        }
    }

    void raise_host_budget() {
        if (options_.host_memory_budget.empty()) return;
        const bool is_auto = options_.recompute == "auto";
        const PlanRequest request = request_for(options_, model_, shape_, backend_);
        const int64_t needed =
            state_bytes(model_, request.places, shape_.T, request.parallel, /*training=*/true, Memory::Host).total() +
            (is_auto ? 0 : make_training_plan(model_, request, find_policy(options_.recompute)).host_bytes);
        Options other = options_;
        other.host_memory_budget.clear();
        if (needed <= host_memory_limit(options_) || needed > host_memory_limit(other)) return;
        other.host_memory_budget = size_option_from(needed);
        if (!fits(other, shape_)) return;
        add(fmt::format("raise --host-memory-budget to {}", other.host_memory_budget),
            {fmt::format("--host-memory-budget={}", other.host_memory_budget)});
    }

    void fewer_sequences() {
        const int64_t B = std::min(shape_.B - 1, largest_batch(options_, model_, backend_));
        for (BatchShape less = {B, shape_.T}; less.B > 0; --less.B) {
            if (!divides_update(options_, less)) continue;
            return add(fmt::format("lower --batch-size to {}", less.B), {fmt::format("--batch-size={}", less.B)});
        }
    }

    void shorter_sequences() {
        constexpr int64_t kShortest = 16;
        if (!options_.resume.empty()) return;  // A run keeps its sequences.
        for (BatchShape less = {shape_.B, shape_.T / 2}; less.T >= kShortest; less.T /= 2) {
            if (!divides_update(options_, less) || !fits(options_, less)) continue;
            return add(fmt::format("lower --seq-len to {}", less.T), {fmt::format("--seq-len={}", less.T)});
        }
    }

    void another_type() {
        const bool has_bf16 = backend_.info().supports_bf16 || !options_.device_profile.empty();
        if (dtype_of_option(options_, backend_) != DType::F32 || !has_bf16) return;
        Options other = options_;
        other.dtype = "bf16";
        if (fits(other, shape_)) add("take --dtype=bf16", {"--dtype=bf16"});
    }

    void another_placement() {
        const std::optional<Placement> found = fitting_placement(options_, model_, shape_, backend_);
        if (!found) return;
        std::vector<std::string> change;
        if (found->recompute != options_.recompute) change.push_back("--recompute=" + found->recompute);
        if (found->offload != options_.offload) change.push_back("--offload=" + found->offload);
        if (change.empty()) return;
        add(fmt::format("take {} (predicted {} per step)", fmt::join(change, " "),
                        format_step_seconds(found->step_seconds)),
            change);
    }

    /// Fewer bytes of optimiser state for other numbers, perhaps of fewer sequences: only where nothing that keeps the
    /// numbers helps.
    void less_state(bool fewer_sequences) {
        if (!options_.resume.empty() || (fewer_sequences && shape_.B == 1)) return;
        struct Less {
            const char* moments;
            bool all_formats, offload;
        };
        for (const auto& [moments, all_formats, offload] :
             {Less{"bf16", false, false}, Less{"8bit", false, false}, Less{"8bit", false, true},
              Less{"8bit", true, false}, Less{"8bit", true, true}}) {
            Options other = options_;
            std::vector<std::string> change;
            if (other.moments != moments && other.moments != "8bit") {
                other.moments = moments;
                change.push_back(fmt::format("--moments={}", moments));
            }
            if (all_formats && dtype_of_option(options_, backend_) == DType::BF16 && !options_.rank_invariant) {
                if (other.masters != "none") change.push_back("--masters=none");
                if (other.gradients != "bf16") change.push_back("--gradients=bf16");
                other.masters = "none", other.gradients = "bf16";
            }
            if (change.empty()) continue;
            if (offload) {
                other.offload = "all", other.recompute = "layer";
                change.insert(change.end(), {"--recompute=layer", "--offload=all"});
            }
            if (fewer_sequences) {
                other = with_shape(other, shape_);
                const int64_t B = largest_batch(other, model_, backend_);
                if (B == 0) continue;
                change.push_back(fmt::format("--batch-size={}", B));
            } else if (!fits(other, shape_)) {
                continue;
            }
            return add(fmt::format("keep less of the optimiser, which trains a little differently: {}",
                                   fmt::join(change, " ")),
                       change);
        }
    }

    /// The largest preset that fits, where the model is one.
    void smaller_model() {
        const bool is_preset = !names_weights(options_.model) && find_preset(options_.model).has_value();
        if (!is_preset || !options_.resume.empty() || !given_architecture_option(options_).empty()) return;
        std::optional<Model> best;
        for (const std::string& name : preset_names()) {
            Options other = options_;
            other.model = name, other.freeze.clear();
            const ModelConfig config = preset(name);
            if (!options_.freeze.empty() || (config.maxT > 0 && config.maxT < shape_.T)) continue;
            Model model = with_dropout(make_model(resolve_model(other, model_.config.V, 0)), options_.dropout);
            const int64_t parameters = model.parameter_count();
            if (parameters >= model_.parameter_count()) continue;
            if (best && parameters <= best->parameter_count()) continue;
            if (is_fitting(with_shape(other, shape_), model, shape_, backend_)) best = std::move(model);
        }
        if (!best) return;
        add(fmt::format("take a smaller model, such as --model={}", best->config.name),
            {"--model=" + best->config.name});
    }

    const Options& options_;
    const Model& model_;
    const BatchShape shape_;
    const Backend& backend_;
    std::vector<WayOut> ways_;
};

}  // namespace

std::vector<WayOut> ways_out(const Options& options, const Model& model, const BatchShape& shape,
                             const Backend& backend) {
    return Remedies(options, model, shape, backend).run();
}

std::string advice(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend) {
    std::vector<std::string> words;
    for (const WayOut& way : ways_out(options, model, shape, backend)) words.push_back(way.words);
    if (words.empty()) return "nothing that was tried fits; take a smaller model, or a device with more memory";
    return fmt::format("{}", fmt::join(words, ", or "));
}

int64_t largest_batch(const Options& options, const Model& model, const Backend& backend) {
    constexpr int64_t kMost = 1 << 20;
    int64_t B = largest_size(1, kMost, [&](int64_t size) {
        const BatchShape shape = {size, options.seq_len};
        return is_fitting(with_shape(options, shape), model, shape, backend);
    });
    while (B > 0 && !divides_update(options, {B, options.seq_len})) --B;
    return B;
}

std::string floor_words(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend) {
    Options least = options;
    if (places_by_itself(options)) least.offload = "all";
    const PlanRequest request = request_for(least, model, shape, backend);
    const int64_t state = state_bytes(model, request.places, shape.T, request.parallel, /*training=*/true).total();
    if (state <= memory_limit(options, backend.info())) return "";
    return fmt::format("parameters, gradients and optimiser alone take {}", format_bytes(state));
}

}  // namespace llmc
