#include "llmc/train/import_command.h"

#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/pending_output.h"
#include "llmc/base/units.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/io/tokenizer_files.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/initial_weights.h"

#include <algorithm>

namespace llmc {

void import_command(const Options& options) {
    const std::unique_ptr<WeightSource> weights = open_weights(options.from, "--from");
    const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(options, *weights);
    warn_if_unread(*tokenizer);
    const ModelConfig& config = weights->model().config;

    // The options of a run that goes on from here: the defaults, and what the model itself decides.
    Options run_options;
    run_options.model = options.from;
    run_options.data.clear();  // It has none, not even the demo's.
    run_options.seq_len = std::min(run_options.seq_len, config.maxT);

    PendingOutput output(options.out, "--out", OutputIs::Folder);
    const std::string& folder = output.temporary();
    output.write([&] {
        make_directories(folder, "--out");
        write_text_atomically(folder + "/config.toml", config_of_run(run_options, output.path()));
        if (options.tokenizer.empty()) {
            copy_tokenizer_files(weights->tokenizer_folder(), tokenizer_folder_of_run(folder));
        } else {
            copy_tokenizer(tokenizer->name(), tokenizer_folder_of_run(folder));
        }
        save_imported(folder, *weights, tokenizer->name());
    });
    output.complete();
    spdlog::info("{}: {}, {} parameters", weights->describe(), describe(config),
                 format_count(weights->model().parameter_count()));
    spdlog::info("imported as '{}'; go on with --model={} (fine-tuning), generate --run={}, or evaluate --run={}",
                 output.path(), output.path(), output.path(), output.path());
}

}  // namespace llmc
