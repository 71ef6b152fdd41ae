#include "llmc/train/checkpointing.h"

#include "llmc/base/counted.h"
#include "llmc/base/dynamic_map.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/shallow_json.h"
#include "llmc/base/units.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/json_bytes.h"
#include "llmc/io/json_text.h"
#include "llmc/io/peft/adapters.h"
#include "llmc/model/trainable.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/gemm_choice.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>

namespace llmc {
namespace {

constexpr const char* kModelFiles = "model";
constexpr const char* kFrozenFiles = "model-frozen";  ///< To readers these belong to the model's files.
constexpr const char* kOptimizerFiles = "optimizer";

/// The tensor's shape in files: without the padding rows of the vocabulary.
std::vector<int64_t> stored_shape(const ParameterRow& row) {
    if (row.cols == 1) return {row.used_rows};
    return {row.used_rows, row.cols};
}

/// A row in NF4 is a tensor of its stored bytes, whose name says so.
std::string nf4_name(const ParameterRow& row, WeightFormat format) {
    return fmt::format("{}.{}", row.name, name_of(format));
}

/// The form of NF4 in which files have a row; nothing where it is in a plain type, or missing.
std::optional<WeightFormat> nf4_format_in(const CheckpointParts& parts, const ParameterRow& row) {
    for (const WeightFormat format : {WeightFormat::Nf4, WeightFormat::Nf4Double}) {
        if (parts.has(nf4_name(row, format))) return format;
    }
    return std::nullopt;
}

/// The used rows of a row, whatever it is stored in.
std::vector<float> values_in(const CheckpointParts& parts, const ParameterRow& row) {
    std::vector<float> values(static_cast<size_t>(row.used_rows * row.cols));
    const std::optional<WeightFormat> format = nf4_format_in(parts, row);
    if (!format) {
        parts.read_values(row.name, stored_shape(row), 0, row.used_rows * row.cols, values.data());
        return values;
    }
    const int64_t shape[] = {stored_bytes(row, *format)};
    std::vector<std::byte> stored(static_cast<size_t>(shape[0]));
    parts.read(nf4_name(row, *format), DType::U8, shape, 0, shape[0],
               [&](int64_t first, std::span<const std::byte> bytes) {
                   std::copy(bytes.begin(), bytes.end(), stored.begin() + first);
               });
    unpack_row(row, *format, stored, values);
    return values;
}

/// What is kept of a row, by the letters its tensors have in files.
struct KeptTensor {
    Kept what;
    const char* prefix;
};
constexpr KeptTensor kWeights = {Kept::Weights, ""};
constexpr KeptTensor kMoments[] = {{Kept::MomentM, "m."}, {Kept::MomentV, "v."}};

/// This rank's part of a row, to be written when its turn comes, through `staging` where the host cannot read it in
/// place; nothing if the row lies in other ranks' pieces.
void add_tensor(const State& state, int index, const KeptTensor& kept, std::vector<char>& staging,
                CheckpointFile* file) {
    const ElementRange range = state.owned(index);
    if (range.count() <= 0) return;
    const ParameterRow& row = state.model().parameters[static_cast<size_t>(index)];
    const WeightFormat format = state.format_of(index);
    const bool in_nf4 = kept.what == Kept::Weights && is_nf4(format);
    const int64_t count = in_nf4 ? stored_bytes(row, format) : row.used_rows * row.cols;
    const bool is_whole = range.count() == count;
    const Tensor part = state.kept(kept.what, index, range);
    const auto add = [&](const std::string& name, const Tensor& values, std::vector<int64_t> shape) {
        Backend& backend = state.backend();
        file->tensors.push_back(
            {{name, values.dtype, std::move(shape)}, backend.host_view(values), [values, &backend, &staging] {
                 staging.resize(static_cast<size_t>(values.bytes()));
                 backend.copy_to_host(staging.data(), values);
                 return static_cast<const void*>(staging.data());
             }});
    };
    const std::string name = in_nf4 ? nf4_name(row, format) : kept.prefix + row.name;
    add(part_name(name, range.begin, range.end, count), part,
        is_whole && !in_nf4 ? stored_shape(row) : std::vector<int64_t>{range.count()});
    if (const Tensor scales = state.kept_scales(kept.what, index, range)) {
        const int64_t first = range.begin / kStateBlock, blocks = ceil_div(count, kStateBlock);
        add(part_name(scales_name(name), first, first + scales.count(), blocks), scales, {scales.count()});
    }
}

/// As it is stored, a tensor of this shape, into what is kept in the same format.
void load_exactly(const CheckpointParts& parts, State& state, int index, const KeptTensor& kept,
                  const std::string& name, const std::vector<int64_t>& shape) {
    const ParameterRow& row = state.model().parameters[static_cast<size_t>(index)];
    const ElementRange range = state.held(index);
    const DType dtype = state.kept(kept.what, index, range).dtype;
    parts.read(name, dtype, shape, range.begin, range.end, [&](int64_t first, std::span<const std::byte> elements) {
        const int64_t count = static_cast<int64_t>(elements.size()) / size_of(dtype);
        const Tensor to = state.kept(kept.what, index, {first, first + count});
        state.backend().copy_to_device(to, elements.data());
    });
    const Tensor scales = state.kept_scales(kept.what, index, range);
    if (!scales) return;
    const int64_t begin = range.begin / kStateBlock, blocks[] = {ceil_div(row.used_rows * row.cols, kStateBlock)};
    parts.read(scales_name(name), DType::F32, blocks, begin, begin + scales.count(),
               [&](int64_t first, std::span<const std::byte> elements) {
                   const int64_t count = static_cast<int64_t>(elements.size()) / size_of(DType::F32);
                   state.backend().copy_to_device(scales.row_range(first - begin, count), elements.data());
               });
}

/// Reads what this rank keeps of a row, converted where it is kept in another format than it is stored in.
void load_tensor(const CheckpointParts& parts, State& state, int index, const KeptTensor& kept) {
    constexpr int64_t kPiece = 1 << 22;  // Whole blocks; a large tensor is converted in pieces.
    const ElementRange range = state.held(index);
    if (range.count() <= 0) return;
    const ParameterRow& row = state.model().parameters[static_cast<size_t>(index)];
    if (kept.what == Kept::Weights) {
        const WeightFormat format = state.format_of(index);
        const std::optional<WeightFormat> in_files = nf4_format_in(parts, row);
        if (in_files && *in_files == format) {
            return load_exactly(parts, state, index, kept, nf4_name(row, format), {stored_bytes(row, format)});
        }
        if (in_files || is_nf4(format)) return state.write_row(index, [&] { return values_in(parts, row); });
    }
    const std::string name = kept.prefix + row.name;
    if (parts.dtype_of(name) == state.kept(kept.what, index, range).dtype) {
        return load_exactly(parts, state, index, kept, name, stored_shape(row));
    }
    std::vector<float> values;
    for (int64_t first = range.begin; first < range.end; first += kPiece) {
        const ElementRange piece = {first, std::min(first + kPiece, range.end)};
        values.resize(static_cast<size_t>(piece.count()));
        parts.read_values(name, stored_shape(row), piece.begin, piece.end, values.data(),
                          kept.what == Kept::MomentM ? &signed_map() : &unsigned_map());
        state.write_kept(kept.what, index, piece, values.data());
    }
}

nlohmann::json to_json(const StateFormats& formats) {
    return {{"moments", format_name(formats.moments)},
            {"masters", formats.masters ? "fp32" : "none"},
            {"gradients", format_name(formats.gradients)}};
}

/// What a checkpoint says of formats; those before there were any kept fp32.
StateFormats formats_in(const nlohmann::json& state, const std::string& path) {
    if (!state.contains("formats")) return {};
    const nlohmann::json& json = state.at("formats");
    const std::string what = fmt::format("the checkpoint '{}'", path);
    const auto format = [&](const char* name) { return format_named(json.at(name).get<std::string>(), what); };
    return {format("moments"), json.at("masters").get<std::string>() != "none", format("gradients")};
}

/// Those before there was one in it have none.
std::optional<double> val_loss_in(const nlohmann::json& state) {
    const auto found = state.find("val_loss");
    return found != state.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

std::string state_json(const ModelConfig& config, const Progress& progress) {
    const nlohmann::json json = {
        {"model", nlohmann::json::parse(to_json(config))},
        {"step", progress.step},
        {"updates", progress.updates},
        {"next_sequence", progress.next_sequence},
        {"tokenizer", json_of_bytes(progress.tokenizer)},
        {"dtype", progress.dtype},
        {"places", progress.places},
        {"freeze", progress.freeze},
        {"optimizer", progress.optimizer},
        {"formats", to_json(progress.formats)},
        {"base", progress.base},
        {"seq_len", progress.seq_len},
        {"arithmetic", to_json(progress.arithmetic)},
        {"gemms", progress.gemms.library.empty() ? nlohmann::json() : to_json(progress.gemms)},
        {"pack", progress.pack},
        {"total_batch_size", progress.total_batch_size},
        {"seed", progress.seed},
        {"train_tokens", progress.train_tokens},
        {"padded_vocab_size", progress.padded_vocab_size},
        {"adapter", progress.adapter.empty() ? nlohmann::json() : nlohmann::json::parse(progress.adapter)},
        {"val_loss", progress.val_loss ? nlohmann::json(*progress.val_loss) : nlohmann::json()},
    };
    return json_text(json);
}

/// What a rank writes of a checkpoint.
struct OwnFiles {
    CheckpointFile weights, moments, frozen;

    int64_t bytes_but_frozen() const {
        int64_t bytes = 0;
        for (const CheckpointFile* file : {&weights, &moments}) {
            for (const CheckpointTensor& tensor : file->tensors) bytes += tensor.entry.bytes();
        }
        return bytes;
    }
};

OwnFiles own_files(const State& state, std::vector<char>& staging) {
    const int ranks = state.partition().ranks;
    const auto named = [&](const char* stem) { return CheckpointFile{rank_file(stem, state.rank(), ranks), {}}; };
    OwnFiles files = {named(kModelFiles), named(kOptimizerFiles), named(kFrozenFiles)};
    for (int index = 0; index < static_cast<int>(state.model().parameters.size()); ++index) {
        add_tensor(state, index, kWeights, staging, state.model().trains(index) ? &files.weights : &files.frozen);
        for (const KeptTensor& moment : kMoments) {
            if (state.keeps(moment.what, index)) add_tensor(state, index, moment, staging, &files.moments);
        }
    }
    return files;
}

/// Writes this rank's files; what the manifest says of them, as JSON.
nlohmann::json write_own_files(const std::string& root, const std::string& folder, const OwnFiles& files,
                               ConstantFile& frozen) {
    nlohmann::json written = nlohmann::json::array();
    const auto note = [&](const ManifestFile& entry) { written.push_back({entry.name, entry.bytes, entry.checksum}); };
    if (!files.frozen.tensors.empty()) note(frozen.put(root, folder, files.frozen));
    for (const CheckpointFile* file : {&files.weights, &files.moments}) note(write_checkpoint_file(folder, *file));
    return written;
}

/// What came of the same work on all ranks.
struct Outcome {
    std::vector<nlohmann::json> results;  ///< By rank, if it succeeded everywhere.
    SaveResult failure;
};

/// Does `work` on this rank, and hears what became of it on the others.
template <typename Work>
Outcome do_together(Comm& comm, Work work) {
    nlohmann::json mine;
    try {
        const auto writing = comm.busy("a checkpoint");
        mine = {{"result", work()}};
    } catch (const std::exception& error) {
        mine = {{"cause", error.what()}};
    }
    Outcome outcome;
    std::string message;  // As CBOR, for which a path may be any bytes.
    nlohmann::json::to_cbor(mine, message);
    for (const std::string& of_rank_as_cbor : comm.all_gather(message)) {
        const auto of_rank = nlohmann::json::from_cbor(of_rank_as_cbor);
        if (of_rank.contains("cause") && outcome.failure.ok()) {
            outcome.failure = {static_cast<int>(outcome.results.size()), of_rank["cause"].get<std::string>()};
        }
        outcome.results.push_back(of_rank.value("result", nlohmann::json()));
    }
    return outcome;
}

}  // namespace

CheckpointBytes checkpoint_bytes(const State& state) {
    const Places& places = state.places();
    const Buffer weights = places[Buffer::Masters].exists ? Buffer::Masters : Buffer::Parameters;
    CheckpointBytes bytes;
    for (int index = 0; index < static_cast<int>(state.model().parameters.size()); ++index) {
        const ParameterRow& row = state.model().parameters[static_cast<size_t>(index)];
        const int64_t count = row.used_rows * row.cols;
        if (row.trainable)
            bytes.each += count * size_of(places.format(weights));
        else
            bytes.once +=
                state.partition_of(Buffer::Frozen).row_count(index) * size_of(dtype_of(state.format_of(index)));
        for (const Buffer moment : {Buffer::MomentM, Buffer::MomentV}) {
            if (!row.trainable || !places[moment].exists) continue;
            const DType format = places.format(moment);
            const bool blocks = format == DType::U8 && in_blocks(row), small = format == DType::U8 && !blocks;
            bytes.each += count * size_of(small ? DType::F32 : format);
            if (blocks) bytes.each += ceil_div(count, kStateBlock) * size_of(DType::F32);
        }
    }
    return bytes;
}

bool has_frozen_files(const std::string& root, const State& state) {
    const std::optional<int64_t> newest = newest_step(root);
    const std::string name = rank_file(kFrozenFiles, state.rank(), state.partition().ranks);
    return newest && path_exists(checkpoints_folder(root) + "/" + step_name(*newest) + "/" + name);
}

SaveResult save_checkpoint(const std::string& root, const State& state, const Progress& progress, Comm& comm) {
    ConstantFile frozen;
    return save_checkpoint(root, state, progress, comm, frozen);
}

SaveResult save_checkpoint(const std::string& root, const State& state, const Progress& progress, Comm& comm,
                           ConstantFile& frozen) {
    comm.synchronize();
    state.backend().synchronize();
    std::vector<char> staging;
    const OwnFiles files = own_files(state, staging);
    const Outcome measured = do_together(comm, [&]() -> nlohmann::json {
        const int64_t of_frozen = files.frozen.tensors.empty() ? 0 : frozen.bytes_to_write(root, files.frozen);
        return files.bytes_but_frozen() + of_frozen;
    });
    if (!measured.failure.ok()) return measured.failure;
    std::optional<CheckpointWriter> writer;  // What it has written goes with it, unless it is committed.
    const Outcome opened = do_together(comm, [&]() -> nlohmann::json {
        if (!comm.is_root()) return "";
        int64_t bytes = 0;
        for (const nlohmann::json& of_rank : measured.results) bytes += of_rank.get<int64_t>();
        return writer.emplace(root, progress.step, bytes).folder();
    });
    if (!opened.failure.ok()) return opened.failure;
    const auto folder = opened.results.front().get<std::string>();
    const Outcome written = do_together(comm, [&] { return write_own_files(root, folder, files, frozen); });
    if (!written.failure.ok()) return written.failure;
    return do_together(comm,
                       [&]() -> nlohmann::json {
                           if (!comm.is_root()) return "";
                           std::vector<ManifestFile> files;
                           for (const nlohmann::json& of_rank : written.results) {
                               for (const nlohmann::json& file : of_rank) files.push_back({file[0], file[1], file[2]});
                           }
                           return writer->commit(state_json(state.model().config, progress), std::move(files));
                       })
        .failure;
}

void save_imported(const std::string& root, const WeightSource& weights, const std::string& tokenizer) {
    const Model& model = weights.model();
    Progress progress;
    progress.tokenizer = tokenizer;
    progress.dtype = name_of(DType::F32);
    progress.optimizer = optimizer_row(OptimizerKind::AdamW).name;
    progress.padded_vocab_size = weights.padded_vocab_size();
    std::vector<float> values;
    CheckpointFile file = {rank_file(kModelFiles, 0, 1), {}};
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        file.tensors.push_back({{row.name, DType::F32, stored_shape(row)}, nullptr, [&values, &weights, i] {
                                    values = weights.values(static_cast<int>(i));
                                    return static_cast<const void*>(values.data());
                                }});
    }
    write_checkpoint(root, progress.step, state_json(model.config, progress), {&file, 1});
}

Progress progress_of(const Checkpoint& checkpoint) {
    try {
        Progress progress;
        const auto json = nlohmann::json::parse(shallow_json(checkpoint.state));
        json.at("step").get_to(progress.step);
        json.at("updates").get_to(progress.updates);
        json.at("next_sequence").get_to(progress.next_sequence);
        progress.tokenizer = bytes_of_json(json.at("tokenizer"));
        json.at("dtype").get_to(progress.dtype);
        progress.places = json.value("places", "");
        progress.freeze = json.value("freeze", "");
        if (json.contains("adapter") && !json["adapter"].is_null()) progress.adapter = json["adapter"].dump();
        progress.formats = formats_in(json, checkpoint.path);
        progress.base = json.value("base", "");
        progress.optimizer = json.value("optimizer", std::string(optimizer_row(OptimizerKind::AdamW).name));
        json.at("seq_len").get_to(progress.seq_len);
        progress.pack = json.value("pack", "none");
        progress.arithmetic = arithmetic_in(json);
        if (json.contains("gemms") && !json["gemms"].is_null()) progress.gemms = gemm_algorithms_in(json["gemms"]);
        json.at("total_batch_size").get_to(progress.total_batch_size);
        json.at("seed").get_to(progress.seed);
        json.at("train_tokens").get_to(progress.train_tokens);
        progress.padded_vocab_size = json.value("padded_vocab_size", int64_t{0});
        progress.val_loss = val_loss_in(json);
        return progress;
    } catch (const nlohmann::json::exception& error) {
        fail("'{}': the checkpoint lacks what a training run needs ({})", checkpoint.path, error.what());
    }
}

std::optional<double> validation_loss_of(const std::string& step_folder) {
    const std::string path = step_folder + "/" + kManifestName;
    try {
        return val_loss_in(nlohmann::json::parse(parse_manifest(read_text(path), path).state));
    } catch (const Error&) {
        return std::nullopt;
    }
}

ModelConfig model_of(const Checkpoint& checkpoint) {
    const auto state = nlohmann::json::parse(shallow_json(checkpoint.state));
    if (!state.contains("model")) fail("'{}': the checkpoint does not describe its model", checkpoint.path);
    return model_config_from_json(state["model"].dump(), checkpoint.path);
}

Model trained_model_of(const Checkpoint& checkpoint) {
    const Progress progress = progress_of(checkpoint);
    Model model = make_model(model_of(checkpoint));
    if (!progress.adapter.empty()) {
        model = with_adapters(std::move(model), peft_config_from_json(progress.adapter, checkpoint.path));
    }
    if (progress.freeze.empty()) return model;
    return with_trainable(std::move(model), parse_patterns("--freeze", progress.freeze, /*trainable=*/false));
}

std::string tokenizer_folder_of(const Checkpoint& checkpoint) {
    const std::filesystem::path step = std::filesystem::absolute(checkpoint.path).lexically_normal();
    const std::string folder = tokenizer_folder_of_run(step.parent_path().parent_path().string());
    return is_directory(folder) ? folder : "";
}

std::string tokenizer_of(const Checkpoint& checkpoint) {
    const std::string folder = tokenizer_folder_of(checkpoint);
    const std::string own = folder.empty() ? "none" : tokenizer_in(folder);
    return own == "none" ? progress_of(checkpoint).tokenizer : own;
}

CheckpointWeights::CheckpointWeights(Checkpoint checkpoint)
    : WeightSource(make_model(model_of(checkpoint))),
      checkpoint_(std::move(checkpoint)),
      parts_(checkpoint_, kModelFiles),
      progress_(progress_of(checkpoint_)),
      trained_(trained_model_of(checkpoint_)) {}

void CheckpointWeights::read(int parameter, std::span<float> out) const {
    const ParameterRow& row = model().parameters[static_cast<size_t>(parameter)];
    const std::vector<float> values = values_in(parts_, row);
    std::copy(values.begin(), values.end(), out.begin());
    merge(row, out);
}

std::vector<float> CheckpointWeights::unmerged(const ParameterRow& row) const { return values_in(parts_, row); }

void CheckpointWeights::merge(const ParameterRow& row, std::span<float> values) const {
    const size_t stem = row.name.rfind("_weight");
    if (!trained_.lora || stem == std::string::npos) return;
    const int a = trained_.find_parameter(row.name.substr(0, stem) + "_lora_a"),
              b = trained_.find_parameter(row.name.substr(0, stem) + "_lora_b");
    if (a == kNone || b == kNone) return;
    const int operand = (a - trained_.first_layer_parameter) % trained_.parameters_per_layer;
    const auto adapts = [&](const OpRow& op) { return op.kind == OpKind::AdapterDown && op.weight == operand; };
    const auto op = std::find_if(trained_.block.begin(), trained_.block.end(), adapts);
    CHECK(op != trained_.block.end(), row.name);
    add_adapters(trained_.adapters[static_cast<size_t>(op->adapter)],
                 unmerged(trained_.parameters[static_cast<size_t>(a)]),
                 unmerged(trained_.parameters[static_cast<size_t>(b)]), row.cols, values);
}

std::string CheckpointWeights::describe() const {
    return fmt::format("the checkpoint '{}', {}", checkpoint_.path, counted(progress_.step, "step"));
}

std::string CheckpointWeights::tokenizer_folder() const { return tokenizer_folder_of(checkpoint_); }

DType CheckpointWeights::dtype() const { return progress_.dtype == name_of(DType::BF16) ? DType::BF16 : DType::F32; }

void load_checkpoint(const Checkpoint& checkpoint, State& state) {
    const CheckpointParts weights(checkpoint, kModelFiles), moments(checkpoint, kOptimizerFiles);
    const bool imported = checkpoint.step == 0 && !moments.any();  // Its moments stay zero.
    for (int index = 0; index < static_cast<int>(state.model().parameters.size()); ++index) {
        load_tensor(weights, state, index, kWeights);
        for (const KeptTensor& moment : kMoments) {
            if (!imported && state.keeps(moment.what, index)) load_tensor(moments, state, index, moment);
        }
    }
    state.round_masters();
}

}  // namespace llmc
