// Settings that `plan --what-fits` finds, as commands and files to run them with; and the ways to train a model: all of
// it, a part, or adapters, on a base as it is or in 4 bits.
#pragma once

#include "llmc/train/what_fits.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// What a run with the fastest batch of a level is called with.
struct Setting {
    std::string level, offload;
    int64_t batch_size = 0, seq_len = 0;
    Fit fit;
};

/// Options by name, in the order of --help: what of them the command line of a run needs.
using OptionWords = std::vector<std::pair<std::string, std::string>>;
OptionWords words_of(const Options& options, const Setting& setting, DType dtype, int64_t limit);
/// "train_gpt --model=gpt2 ...", for a shell.
std::string command_of(const OptionWords& words);
/// The words as a file for --config, below a remark.
std::string config_of(const OptionWords& words, const std::string& remark);

enum class WayToTrain : uint8_t {
    Full,   ///< Everything.
    Part,   ///< The upper half of the layers, and what is behind them.
    Lora,   ///< Adapters of every matrix: of --lora's rank, or 16.
    QLora,  ///< The same on a base in 4 bits.
};

/// The options of a run that trains so.
Options options_of(WayToTrain way, const Options& given, const ModelConfig& config);

/// A way's fastest setting within `limit` bytes, with the placement and the context that it takes.
struct WayFit {
    bool fits = false;
    Options options;             ///< Of the way, with what was found for it.
    Setting setting;             ///< If it fits.
    int64_t smallest_bytes = 0;  ///< Else what it needs about.
};
WayFit fit_of(WayToTrain way, const Options& given, const ModelConfig& config, Backend& backend, int64_t limit);

/// The fastest setting of sequences of T tokens: of levels_to_fit(), with --offload's placement, or where that is open
/// or auto with each of placements_to_try(); auto with the three whose levels are fastest. Nothing if none fits.
std::optional<Setting> fastest_setting(PlacedFits* placed, int64_t T);

}  // namespace llmc
