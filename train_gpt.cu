// train_gpt: options -> data -> model -> backend -> plan -> state -> loop. Plain C++: the CUDA backend is behind
// llmc/backend/backend.h, and without nvcc this file compiles with any C++ compiler.
// Read next: llmc/backend/backend.h (what an operation is), llmc/run/executor.cpp (the only loop over steps).
#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/stop_signal.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/tokenizer_files.h"
#include "llmc/train/evaluate_command.h"
#include "llmc/train/export_command.h"
#include "llmc/train/generate_command.h"
#include "llmc/train/import_command.h"
#include "llmc/train/plan_command.h"
#include "llmc/train/run_folder.h"
#include "llmc/train/tokenize_command.h"
#include "llmc/train/trainer.h"

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

namespace {

using namespace llmc;

void train(Options options) {
    // What to begin with: a checkpoint, the weights of another model, or nothing.
    Origin origin = open_origin(options);

    // Data, model, device, and the plan: everything is known before anything is allocated.
    const Data data = open_data(options, origin.tokenizer());
    const std::optional<ModelConfig> given = origin.config(options);
    const Model model = make_model(given ? accept_model(options, *given, data.tokenizer.get())
                                         : resolve_model(options, data.source->vocab_size()));
    if (origin.checkpoint) require_same_run(options, model.config, *origin.checkpoint);
    const std::unique_ptr<Backend> backend = make_backend(options.device, static_cast<int>(options.threads));
    const DType dtype = dtype_of_option(options, *backend);
    options.dtype = name_of(dtype);  // Where it was auto, it is decided now.
    require_dtype(*backend, dtype);
    const ChosenPlan chosen = choose_plan(options, options.recompute, model, *backend);
    const PlannedMemory& memory = chosen.memory;
    options.batch_size = memory.plan.shape.B;  // Where it was auto, it is decided now.
    log_banner(options, model, origin.describe(options), data, chosen, backend->info());
    require_memory(options, model, memory, *backend);
    if (options.dry_run) return;

    // One allocation of everything, the run folder, and the loop.
    State state(*backend, model, dtype, options.seq_len, memory.layout.arena_bytes, /*training=*/true);
    CHECK(state.allocated_bytes() == memory.total_bytes(), state.allocated_bytes(), memory.total_bytes());
    const std::string run_folder = make_run_folder(options);
    if (data.tokenizer->name() == origin.tokenizer()) {
        copy_tokenizer_files(origin.tokenizer_folder(), tokenizer_folder_of_run(run_folder));
    } else {
        copy_tokenizer(data.tokenizer->name(), tokenizer_folder_of_run(run_folder));
    }
    Trainer trainer(options, state, chosen, data, origin, run_folder);
    origin = {};  // Its mapped files are not needed any more.
    trainer.run();
    spdlog::info("done: {} steps in '{}'; try ./train_gpt generate --run={}", trainer.progress().step, run_folder,
                 run_folder);
}

int run(int argc, char** argv) {
    const Options options = parse_options(argc, argv);
    init_log(options.log_level);
    switch (options.command) {
        case Command::Train: train(options); break;
        case Command::Plan: std::fputs(plan_report(options).c_str(), stdout); break;
        case Command::Generate: generate_command(options); break;
        case Command::Evaluate: evaluate_command(options); break;
        case Command::Import: import_command(options); break;
        case Command::Export: export_command(options); break;
        case Command::Tokenize: tokenize_command(options); break;
    }
    return kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
    prepare_process(argv);
    watch_stop_signals();
    std::signal(SIGXFSZ, SIG_IGN);  // A file-size limit shall be an error of write(), like a full disk.
    std::signal(SIGPIPE, SIG_IGN);
    init_log("info");
    try {
        return run(argc, argv);
    } catch (const Error& error) {
        spdlog::error("{}", error.what());
        return error.exit_code();
    } catch (const std::bad_alloc&) {
        spdlog::error("out of memory on the host; lower --batch-size, or raise --recompute");
        return kExitFailed;
    } catch (const std::exception& error) {
        spdlog::error("unexpected failure: {}", error.what());
        return kExitFailed;
    }
}
