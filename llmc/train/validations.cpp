#include "llmc/train/validations.h"

#include "llmc/io/checkpoint_folder.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/metrics.h"

#include <map>
#include <optional>

namespace llmc {
namespace {

std::map<int64_t, double> losses_in(const std::string& run_folder) {
    return validation_losses(run_folder + "/metrics.jsonl");
}

/// Of a checkpoint of the run: as metrics have it, or where those lack it as its manifest does; else nothing.
std::optional<double> loss_of(int64_t step, const std::map<int64_t, double>& losses, const std::string& run_folder) {
    const auto found = losses.find(step);
    if (found != losses.end()) return found->second;
    return validation_loss_of(checkpoints_folder(run_folder) + "/" + step_name(step));
}

}  // namespace

bool lacks_validation(const Options& options, const std::string& run_folder, int64_t step) {
    if (options.val_every == 0 || (step % options.val_every != 0 && step != options.steps)) return false;
    const auto losses = losses_in(run_folder);
    return !losses.empty() && !losses.contains(step);
}

BestCheckpoint best_checkpoint(const std::string& run_folder, int64_t last_step) {
    const auto losses = losses_in(run_folder);
    BestCheckpoint best;
    for (const int64_t step : list_steps(run_folder)) {
        if (step == 0 || step > last_step) continue;
        const std::optional<double> loss = loss_of(step, losses, run_folder);
        if (loss && *loss < best.loss) best = {step, *loss, false};
    }
    const std::optional<int64_t> named = named_step(run_folder, kBestName);
    if (!named || *named > last_step) return best;
    const std::optional<double> of_named = loss_of(*named, losses, run_folder);
    if (!of_named) return {*named, -std::numeric_limits<double>::infinity(), true};
    if (*of_named <= best.loss) best.is_named = true;
    return best;
}

bool lacks_its_end(const Options& options, const std::string& run_folder) {
    if (lacks_validation(options, run_folder, options.steps)) return true;
    const bool is_here = options.output_dir.empty() && newest_step(run_folder) == options.steps;
    return options.keep_best && options.val_every > 0 && is_here &&
           !best_checkpoint(run_folder, options.steps).is_named;
}

}  // namespace llmc
