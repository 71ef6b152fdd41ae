#include "llmc/train/ranks.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/advice_text.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/shallow_json.h"
#include "llmc/base/threads.h"
#include "llmc/base/version.h"
#include "llmc/comm/make_comm.h"
#include "llmc/comm/rendezvous.h"
#include "llmc/plan/fuse.h"
#include "llmc/train/binding.h"
#include "llmc/train/offload.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <sstream>

namespace llmc {

CommSettings comm_settings(const Options& options) {
    return {options.comm_init, options.comm_timeout, options.comm_insecure};
}

void tell_ranks_of_bad_usage(int argc, const char* const* argv, const Error& error) noexcept {
    const bool is_command = argc > 1 && argv[1][0] != '-';  // Which one rank does alone.
    if (is_command) return;
    const std::string option = "--comm-init";
    std::string init = "auto";
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == option && i + 1 < argc) init = argv[i + 1];
        if (word.starts_with(option + "=")) init = word.substr(option.size() + 1);
    }
    call_off(init, process_environment(), is_built_with_mpi(), error);
}

void warn_of_others_at_work() {
    const Environment environment = process_environment();
    const std::string sure = sure_sign_of_others(environment);
    const std::string sign = sure.empty() ? sign_of_others(environment) : sure;
    if (sign.empty()) return;
    spdlog::warn("{}: this command is for one process; where there are several, each does all of the work", sign);
}

namespace {

bool is_cuda(const std::string& device) { return device.starts_with("cuda"); }

/// The launcher shows every rank of this host one GPU, each another.
bool each_sees_its_own(Comm& comm, int gpus) {
    const std::vector<std::string> all = comm.all_gather(comm.host() + " " + (gpus == 1 ? gpu_identity(0) : ""));
    const std::string& mine = all[static_cast<size_t>(comm.rank())];
    return gpus == 1 && std::count(all.begin(), all.end(), mine) == 1;
}

/// One GPU each, in the order of the ranks of a host.
void choose_gpu(Options& options, Comm& comm) {
    const int gpus = options.device == "cpu" ? 0 : gpu_count();
    const bool own = each_sees_its_own(comm, gpus);
    if (options.device == "cpu") return;
    if (options.device == "auto" && gpus == 0) {
        options.device = "cpu";
        return;
    }
    if (options.device.starts_with("cuda:")) {
        if (comm.local_size() == 1) return;
        fail_usage("--device={}: {} ranks on {} would share it; use --device=cuda, which gives every rank its own",
                   options.device, comm.local_size(), comm.host());
    }
    if (own) {
        options.device = "cuda:0";
        return;
    }
    if (comm.local_size() > gpus) {
        fail_usage(
            "--device={}: {} ranks on {}, which shows each of them the same {} GPU{}; start one rank per GPU, or use "
            "--device=cpu",
            options.device, comm.local_size(), comm.host(), gpus, gpus == 1 ? "" : "s");
    }
    options.device = fmt::format("cuda:{}", comm.local_rank());
}

/// Ranks that may run on the same processors share the cores among them.
void share_cores(Options& options, Comm& comm) {
    const std::vector<std::string> all = comm.all_gather(place_of_rank(comm));
    const std::string warning = warning_of_binding(all, comm);
    const bool computes_here = !is_cuda(options.device) && options.threads == 0;
    if (computes_here && !warning.empty()) spdlog::warn("{}", warning);
    if (comm.size() == 1) return;
    const auto sharing = std::count(all.begin(), all.end(), all[static_cast<size_t>(comm.rank())]);
    const bool is_open = options.threads == 0 && !threads_by_environment();
    if (is_open) options.threads = std::max<int64_t>(1, usable_cores() / sharing);
}

}  // namespace

void place_rank(Options& options, Comm& comm) {
    options.ranks = comm.size();
    if (comm.size() == 1) {
        if (options.device != "auto" || gpu_count() == 0) share_cores(options, comm);
        return;
    }
    if (!comm.is_root()) quieten_log(comm.rank(), options.log_level);
    choose_gpu(options, comm);
    share_cores(options, comm);
    const std::vector<std::string> kinds = comm.all_gather(is_cuda(options.device) ? "a GPU" : "the CPU");
    for (size_t rank = 1; rank < kinds.size(); ++rank) {
        if (kinds[rank] == kinds[0]) continue;
        fail_usage("--device: rank 0 computes on {}, rank {} on {}; give all ranks one kind, --device=cuda or cpu",
                   kinds[0], rank, kinds[rank]);
    }
}

void require_divisible(const Options& options) {
    if (options.rank_invariant && !std::has_single_bit(static_cast<uint64_t>(options.ranks))) {
        fail_usage("--rank-invariant: has no order of sums for {} ranks; use 1, 2, 4, 8, ... ranks", options.ranks);
    }
    const int64_t sequences = std::max<int64_t>(1, options.batch_size);
    const int64_t at_once = sequences * options.seq_len * options.ranks;
    if (options.ranks == 1 || options.total_batch_size % at_once == 0) return;
    if (!options.resume.empty() && !options.was_typed("total-batch-size")) {
        fail_usage(
            "--resume={}: the run has {} tokens per update, which {} ranks of {} x {} tokens do not divide; choose "
            "another --batch-size or number of ranks, or another --total-batch-size for other updates",
            options.resume, options.total_batch_size, options.ranks, sequences, options.seq_len);
    }
    fail_usage(
        "--total-batch-size={}: must be a multiple of ranks times --batch-size times --seq-len, {} x {} x {} = {} "
        "tokens; take {}",
        options.total_batch_size, options.ranks, sequences, options.seq_len, at_once,
        nearest_multiples(options.total_batch_size, at_once));
}

namespace {

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
        if (!line.empty() && line[0] != '#') lines.push_back(line);
    }
    return lines;
}

}  // namespace

void require_same_run_everywhere(const Options& options, const Model& model, const Data& data,
                                 const std::string& begins_with, Comm& comm) {
    if (comm.size() == 1) return;
    const std::string mine =
        to_toml(options) + fmt::format(
                               "train_gpt = {}\nthe model = {}\nthe training data = {}, {} tokens\n"
                               "the beginning = {}\ncheck-ranks = {}\ndry-run = {}\n",
                               version(), describe(model.config), data.source->describe(), data.train->size(),
                               begins_with, options.check_ranks, options.dry_run);
    const std::string root = comm.broadcast(mine);
    std::string difference;
    const std::vector<std::string> here = lines_of(mine), there = lines_of(root);
    for (size_t i = 0; i < std::max(here.size(), there.size()) && difference.empty(); ++i) {
        const std::string a = i < here.size() ? here[i] : "nothing", b = i < there.size() ? there[i] : "nothing";
        if (a != b) difference = fmt::format("rank {} has '{}', rank 0 has '{}'", comm.rank(), a, b);
    }
    for (const std::string& of_rank : comm.all_gather(difference)) {
        if (!of_rank.empty()) fail_usage("the ranks were started differently: {}; give all the same options", of_rank);
    }
}

namespace {

/// A first, tiny reduction and gather: NCCL allocates its own buffers then.
void warm_up(Backend& backend, Comm& comm) {
    const int64_t count = comm.size() * int64_t{128};
    const DeviceBuffer bucket(backend, count * size_of(DType::F32), "a first reduction"),
        received(backend, count * size_of(DType::F32), "a first reduction");
    const Tensor all(DType::F32, bucket.data(), count);
    comm.wait(comm.begin_reduce_scatter(all, Tensor(DType::F32, received.data(), count)));
    comm.wait(comm.begin_all_gather(all));
    backend.synchronize();
}

}  // namespace

void share_memory(Options& options, Backend& backend, Comm& comm) {
    // What is available to a process on the host changes from one look to the next, with its own caches: the plan and
    // what it is held against go by one look, less what this process may yet come to need beside it.
    constexpr int64_t kKeptBack = 512;
    if (comm.size() == 1 && !backend.on_gpu()) {
        const int64_t available = backend.info().available();
        options.memory_share = std::max<int64_t>(1, available - available / kKeptBack);
    }
    if (comm.size() == 1) return;
    warm_up(backend, comm);
    const DeviceInfo device = backend.info();
    options.memory_sharing = backend.on_gpu() ? 1 : comm.local_size();
    const std::vector<double> all = comm.all_gather(static_cast<double>(device.available(options.memory_sharing)));
    const auto least = std::min_element(all.begin(), all.end());
    options.memory_share = static_cast<int64_t>(*least);
    const auto rank = static_cast<size_t>(least - all.begin());
    const std::string limit = comm.all_gather(device.limit(options.memory_sharing))[rank];
    options.memory_share_limit = limit.empty() ? "" : fmt::format("{} of rank {}", limit, rank);
    options.host_sharing = comm.local_size();
    const std::vector<double> of_hosts =
        comm.all_gather(static_cast<double>(host_memory().available(options.host_sharing)));
    options.host_share = static_cast<int64_t>(*std::min_element(of_hosts.begin(), of_hosts.end()));
}

std::string first_objection(const std::string& mine, Comm& comm) {
    const std::vector<std::string> all = comm.all_gather(mine);
    for (size_t rank = 0; rank < all.size(); ++rank) {
        if (all[rank].empty()) continue;
        return all.size() == 1 ? all[rank] : fmt::format("{} (rank {})", all[rank], rank);
    }
    return "";
}

void require_shared_folder(const std::string& run_folder) {
    if (path_exists(run_folder + "/config.toml")) return;
    fail("the run folder '{}' of rank 0 is not here; choose an --output-dir on a disk that all ranks share",
         run_folder);
}

namespace {

nlohmann::json to_json(const ChosenPlan& chosen) {
    return {{"policy", chosen.memory.plan.policy},
            {"batch_size", chosen.memory.plan.shape.B},
            {"offload", offload_of(chosen.memory.plan.places)},
            {"placed", chosen.placed},
            {"tile_tokens", chosen.memory.plan.tile_tokens},
            {"update_ahead", chosen.memory.plan.update_ahead},
            {"words", chosen.words},
            {"times", to_json(chosen.times)},
            {"slots", chosen.keep.slots},
            {"walk", chosen.keep.walk},
            {"host", chosen.keep.host},
            {"keep_last_layer", chosen.keep.keep_last_layer}};
}

ChosenPlan plan_of_json(const std::string& text, Options options, const Model& model, const Backend& backend) {
    const auto json = nlohmann::json::parse(shallow_json(text));
    KeepSet keep;
    json.at("slots").get_to(keep.slots);
    json.at("walk").get_to(keep.walk);
    json.at("host").get_to(keep.host);
    json.at("keep_last_layer").get_to(keep.keep_last_layer);
    json.at("batch_size").get_to(options.batch_size);
    const auto tile_tokens = json.at("tile_tokens").get<int64_t>();
    options.tile_tokens = tile_tokens > 0 ? std::to_string(tile_tokens) : "none";
    const bool placed = json.at("placed").get<bool>();
    if (placed) json.at("offload").get_to(options.offload);
    const OpTimes times = times_of_json(json.at("times"), model);
    ChosenPlan chosen =
        plan_of_keep_set(options, json.at("policy"), keep, model, times, json.at("update_ahead").get<int>(), backend);
    json.at("words").get_to(chosen.words);
    chosen.placed = placed;
    return chosen;
}

ChosenPlan plan_of_root(const Options& options, const Model& model, Backend& backend, Comm& comm) {
    if (!comm.is_root()) return plan_of_json(comm.broadcast(""), options, model, backend);
    ChosenPlan chosen = choose_plan(options, options.recompute, model, backend);
    if (comm.size() > 1) comm.broadcast(to_json(chosen).dump());
    return chosen;
}

}  // namespace

ChosenPlan agree_on_plan(Options& options, const Model& model, Backend& backend, Comm& comm) {
    ChosenPlan chosen = plan_of_root(options, model, backend, comm);
    if (comm.size() == 1) return chosen;
    const std::vector<std::string> fused =
        comm.all_gather(fmt::format("{}", fmt::join(fused_names(model, chosen.memory.plan), ", ")));
    const auto other = std::find_if(fused.begin(), fused.end(), [&](const auto& each) { return each != fused[0]; });
    if (other == fused.end()) return chosen;
    spdlog::warn("nothing is fused: the libraries of rank 0 and rank {} have not the same operations for it",
                 other - fused.begin());
    options.no_fuse = true;
    return plan_of_root(options, model, backend, comm);
}

namespace {

/// All of a bucket's parameters, trainable or frozen; gathered in the arena where no rank has them.
Tensor whole_bucket(State& state, int bucket, Buffer which, Comm& comm) {
    if (!state.places().in_pieces(which)) return state.bucket_parameters(bucket, which);
    return gathered_in_arena(state, bucket, which, comm);
}

/// Checksums of the rows of a bucket, one after the other.
std::string checksums_of_rows(State& state, int bucket_index, Buffer which, Comm& comm) {
    const Model& model = state.model();
    const Partition& partition = state.partition_of(which);
    const Bucket& bucket = partition.bucket(bucket_index);
    if (bucket.is_empty()) return "";
    const Tensor all = whole_bucket(state, bucket_index, which, comm);
    std::string sums;
    std::vector<std::byte> bytes;
    for (int index = bucket.first_row; index < bucket.first_row + bucket.rows; ++index) {
        if (!partition.holds(model, index)) continue;
        const int64_t first = partition.row_in_bucket(model, index) * size_of(all.dtype);
        const DType dtype = which == Buffer::Frozen ? dtype_of(state.format_of(index)) : all.dtype;
        const Tensor values(dtype, static_cast<char*>(all.data) + first, partition.row_count(index));
        bytes.resize(static_cast<size_t>(values.bytes()));
        comm.synchronize();
        state.backend().copy_to_host(bytes.data(), values);
        sums += checksum_of(bytes);
    }
    return sums;
}

}  // namespace

std::string common_checksum(State& state, Comm& comm) {
    std::string sums;
    for (int bucket = 0; bucket <= state.partition().last_bucket(); ++bucket) {
        for (const Buffer which : {Buffer::Parameters, Buffer::Frozen}) {
            sums += checksums_of_rows(state, bucket, which, comm);
        }
    }
    const std::string mine = checksum_of(std::as_bytes(std::span(sums)));
    const std::vector<std::string> all = comm.all_gather(mine);
    for (size_t rank = 1; rank < all.size(); ++rank) {
        if (all[rank] != all[0]) fail("the parameters of rank {} differ from those of rank 0", rank);
    }
    return mine;
}

}  // namespace llmc
