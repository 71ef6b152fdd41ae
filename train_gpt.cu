// train_gpt: options -> a description of the run (ranks, data, model, backend, plan) -> state -> loop. Plain C++: the
// CUDA backend is behind llmc/backend/backend.h, and without nvcc this file compiles with any C++ compiler. Read next:
// llmc/backend/backend.h (what an operation is), llmc/run/executor.cpp (the only loop over steps).
#include "llmc/base/counted.h"
#include "llmc/base/drop_pages.h"
#include "llmc/base/error.h"
#include "llmc/base/last_words.h"
#include "llmc/base/log.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/output.h"
#include "llmc/base/prepare_process.h"
#include "llmc/base/printable.h"
#include "llmc/base/process_limits.h"
#include "llmc/base/program_name.h"
#include "llmc/base/stop_signal.h"
#include "llmc/base/threads.h"
#include "llmc/comm/socket.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/completion_command.h"
#include "llmc/train/evaluate_command.h"
#include "llmc/train/explain_command.h"
#include "llmc/train/export_command.h"
#include "llmc/train/generate_command.h"
#include "llmc/train/going_back.h"
#include "llmc/train/import_command.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/output_file.h"
#include "llmc/train/plan_command.h"
#include "llmc/train/ranks.h"
#include "llmc/train/report_command.h"
#include "llmc/train/resume_options.h"
#include "llmc/train/run_description.h"
#include "llmc/train/run_folder.h"
#include "llmc/train/run_tokenizer.h"
#include "llmc/train/tokenize_command.h"
#include "llmc/train/trainer.h"
#include "llmc/train/validations.h"

#include <csignal>
#include <exception>
#include <new>
#include <optional>
#include <utility>

namespace {

using namespace llmc;

constexpr const char* kReported = "";  ///< An Error whose reason is in the log already.

/// Of what a step may have open at a time: lock, log, metrics, a checkpoint's file and folder, data.
constexpr int kFilesOfTraining = 8;

std::string out_of_memory() {
    return out_of_host_memory() + "; " + program_name() + " plan shows what every setting needs";
}

/// The folder of a new run has the tokenizer the model goes by; that of one that goes on stays as it is for now.
void begin_new_run(RunFolder& folder, const RunDescription& run, const Origin& origin) {
    if (folder.goes_on()) return rehearse_going_back(folder.path(), origin.checkpoint->step, "--resume");
    folder.begin(run.options);
    keep_run_tokenizer(folder.path(), run.options, run.data.tokenizer->name(), origin);
}

void say_what_was_done(int64_t step, const Options& options, const std::string& run_folder) {
    if (step == 0) {
        spdlog::info("stopped before the first step");
    } else if (step < options.steps) {
        spdlog::info("stopped: {} of {} steps are done; go on with {} --resume={}", step, options.steps, program_name(),
                     shell_word(run_folder));
    } else {
        spdlog::info("done: {} in '{}'; try {} generate --run={}", counted(step, "step"), run_folder, program_name(),
                     shell_word(run_folder));
    }
    if (step > 0) spdlog::info("report  {} report {}", program_name(), shell_word(run_folder));
}

/// All steps are done, but something that comes after the last is missing.
bool has_more_to_do(const Origin& origin, const Options& options, Comm& comm) {
    if (origin.checkpoint->step != options.steps) return false;
    const std::string folder = comm.is_root() ? find_run_folder(origin.checkpoint->path, "--resume") : "";
    const bool lacks = comm.is_root() && lacks_its_end(options, folder);
    return comm.broadcast(lacks ? "yes" : "") == "yes";
}

/// Loading weights takes memory for a while: on a CPU that of activations, whose pages the trainer takes back
/// afterwards.
void lend_arena(const RunDescription& run, const State& state) {
    if (run.backend->on_gpu()) return;
    const auto* start = reinterpret_cast<const std::byte*>(state.arena());
    drop_pages({start, static_cast<size_t>(run.memory().layout.arena_bytes)});
}

/// One rank of a training run; most runs have just this one.
void train_rank(const Options& given, Comm& comm) {
    std::optional<Comm::LongWork> start(std::in_place, comm, "its start");
    if (comm.is_root()) say_remarks(given);

    // What to begin with (a checkpoint, the weights of another model, or nothing), and from there data, model, device
    // and plan: everything is decided before anything is allocated, and constant from then on.
    Origin origin = open_origin(given, comm.rank(), comm.size());
    if (origin.checkpoint) require_kept_options(given, *origin.checkpoint);
    const std::unique_ptr<const RunDescription> run = describe_run(given, origin, comm);
    const Options& options = run->options;
    if (origin.checkpoint && origin.checkpoint->step >= options.steps && !has_more_to_do(origin, options, comm)) {
        const int64_t done = origin.checkpoint->step;
        spdlog::info("nothing left to do: the run has done {}{}; ask for more with --steps={} or more",
                     counted(done, "step"),
                     done > options.steps ? fmt::format(", and --steps is {}", options.steps) : "", done + 1);
        return;
    }
    const PlannedMemory& memory = run->memory();
    if (comm.is_root() && !options.dry_run) RunFolder{options};  // Refuses what is no place for it; leaves nothing.
    log_banner(options, run->model, origin.describe(options), run->data, *run->sequences, run->chosen,
               run->backend->info(), comm.describe());
    require_memory(options, run->model, memory, *run->backend);
    if (comm.is_root() && !options.profile.empty()) require_output("--profile", options.profile);
    if (options.dry_run) return;

    // One allocation of everything, the weights to begin with, the run folder, and the loop.
    State state(*run->backend, run->model, memory.plan.places, options.seq_len, memory.layout.arena_bytes,
                /*training=*/true, memory.plan.parallel, comm.rank());
    state.reserve_host(memory.plan.host_bytes);
    CHECK(state.allocated_bytes() == memory.total_bytes(), state.allocated_bytes(), memory.total_bytes());
    CHECK(state.allocated_host_bytes() == memory.host_bytes(), state.allocated_host_bytes(), memory.host_bytes());
    const TransportGuard before_memory_goes(comm);
    lend_arena(*run, state);
    if (origin.weights != nullptr) load_weights(options, *origin.weights, state);  // Damaged ones leave no folder.
    comm.barrier();
    std::optional<RunFolder> folder;  // Of rank 0.
    if (comm.is_root()) begin_new_run(folder.emplace(options), *run, origin);
    const std::string run_folder = comm.broadcast(folder ? folder->path() : "");
    require_shared_folder(run_folder);
    if (!comm.is_root()) rehearse_checkpoint(run_folder, comm.rank(), "--output-dir");
    Trainer trainer(*run, state, origin, folder ? &*folder : nullptr, run_folder, comm);
    origin = {};  // Its mapped files are not needed any more.
    start.reset();
    trainer.run();
    say_what_was_done(trainer.progress().step, options, trainer.run_folder());
}

/// Whatever ends one rank ends all, with its exit code and its reason, which rank 0 logs.
void train(const Options& options) {
    raise_file_limit();
    require_files(kFilesOfTraining);
    Comm comm(comm_settings(options));
    std::string cause;
    int exit_code = kExitFailed;
    try {
        train_rank(options, comm);
        return comm.finish();
    } catch (const Error& error) {
        cause = error.what();
        exit_code = error.exit_code();
        if (comm.size() == 1) throw;
    } catch (const std::bad_alloc&) {
        cause = out_of_memory();
        if (comm.size() == 1) throw;
    } catch (const std::exception& error) {
        cause = error.what();
        if (comm.size() == 1) throw;
    }
    comm.fail(cause, exit_code);
    throw Error(exit_code, kReported);
}

/// Other ranks hear of a bad command line, too.
Options read_options(int argc, char** argv) {
    try {
        return parse_options(argc, argv);
    } catch (const Error& error) {
        spdlog::error("{}", error.what());
        tell_ranks_of_bad_usage(argc, argv, error);
        throw Error(error.exit_code(), kReported);
    }
}

int run(int argc, char** argv) {
    const Options options = read_options(argc, argv);
    if (options.command == Command::Help) {
        print_output(options.help_text);
        flush_output();
        return kExitDone;
    }
    init_log(options.log_level);
    for (const std::string& line : settings_taken_back()) spdlog::warn("{}", line);
    const bool computes = options.command == Command::Train || options.command == Command::Generate ||
                          options.command == Command::Evaluate;
    if (computes) require_room_to_work();
    settle_threads(options.threads);
    if (options.command != Command::Train) say_remarks(options);
    const bool is_long = options.command == Command::Import || options.command == Command::Export ||
                         options.command == Command::Tokenize;
    if (is_long || (computes && options.command != Command::Train)) warn_of_others_at_work();
    switch (options.command) {
        case Command::Train: train(options); break;
        case Command::Plan: print_output(plan_report(options)); break;
        case Command::Generate: generate_command(options); break;
        case Command::Evaluate: evaluate_command(options); break;
        case Command::Import: import_command(options); break;
        case Command::Export: export_command(options); break;
        case Command::Tokenize: tokenize_command(options); break;
        case Command::Report: report_command(options); break;
        case Command::Explain: print_output(explanation(options)); break;
        case Command::Completion: print_output(completion_script(options)); break;
        case Command::Manual: print_output(manual_page()); break;
        case Command::Help: break;
    }
    if (options.command == Command::Train) {
        require_whole_output();
    } else {
        flush_output();
    }
    return kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
    prepare_process(argv);
    name_program(argv[0]);
    end_with_last_words();
    end_well_on_failed_reads();
    watch_stop_signals();
    std::signal(SIGXFSZ, SIG_IGN);  // A file-size limit shall be an error of write(), like a full disk.
    std::signal(SIGPIPE, SIG_IGN);  // As process 1 it would not end the program.
    spare_address_space();
    init_log("info");
    try {
        return run(argc, argv);
    } catch (const Error& error) {
        if (error.what() != std::string(kReported)) spdlog::error("{}", error.what());
        return error.exit_code();
    } catch (const std::bad_alloc&) {
        spdlog::error("{}", out_of_memory());
        return kExitFailed;
    } catch (const std::exception& error) {
        spdlog::error("unexpected failure: {}", error.what());
        return kExitFailed;
    }
}
