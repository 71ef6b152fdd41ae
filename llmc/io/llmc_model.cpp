#include "llmc/io/llmc_model.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>

namespace llmc {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian and are read as they are");

constexpr int32_t kMagic = 20240326;
constexpr int32_t kVersionF32 = 3;
constexpr int32_t kVersionBf16 = 5;
constexpr int64_t kHeaderBytes = 1024;
constexpr int64_t kPadding = 128;  ///< llm.c pads the vocabulary to a multiple of this.
using Header = std::array<int32_t, kHeaderBytes / sizeof(int32_t)>;

/// Our names of the file's tensors, in its order; those between wpe and lnf_weight are of every layer.
constexpr std::array kTensors = {
    "wte",           "wpe",        "ln1_weight", "ln1_bias",  "qkv_weight", "qkv_bias",       "att_proj_weight",
    "att_proj_bias", "ln2_weight", "ln2_bias",   "fc_weight", "fc_bias",    "fc_proj_weight", "fc_proj_bias",
    "lnf_weight",    "lnf_bias"};

/// Rows of Model::parameters in the order of the file.
std::vector<int> file_order(const Model& model) {
    std::vector<int> order;
    for (const std::string name : kTensors) {
        const int outside = model.find_parameter(name);
        if (outside != kNone) order.push_back(outside);
        for (int64_t layer = 0; outside == kNone && layer < model.config.L; ++layer) {
            order.push_back(model.find_parameter("layers." + std::to_string(layer) + "." + name));
        }
    }
    CHECK(order.size() == model.parameters.size(), order.size(), model.parameters.size());
    return order;
}

Header header_of(const MappedFile& file) {
    if (!is_llmc_model(file.bytes())) {
        fail("'{}' is not an llm.c model file: it does not begin with {}; give a file such as gpt2_124M.bin",
             file.path(), kMagic);
    }
    if (file.size() < kHeaderBytes) {
        fail("'{}' is truncated: {} bytes, its header alone has {}; copy it again", file.path(), file.size(),
             kHeaderBytes);
    }
    Header header = {};
    std::memcpy(header.data(), file.data(), kHeaderBytes);
    return header;
}

Model model_of(const MappedFile& file) {
    const Header header = header_of(file);
    if (header[1] != kVersionF32 && header[1] != kVersionBf16) {
        fail(
            "'{}' has version {}; llm.c model files have {} (fp32) or {} (bf16), so make it again with llm.c's "
            "train_gpt2.py",
            file.path(), header[1], kVersionF32, kVersionBf16);
    }
    const auto field = [&](size_t index, const char* name, int64_t largest) -> int64_t {
        if (header[index] >= 1 && header[index] <= largest) return header[index];
        fail("'{}' is damaged: its header says {} = {}", file.path(), name, header[index]);
    };
    ModelConfig config = config_of(Family::Gpt2);
    config.name = std::filesystem::path(file.path()).stem().string();
    config.maxT = field(2, "max_seq_len", 100'000'000);
    config.V = field(3, "vocab_size", 100'000'000);
    config.L = field(4, "num_layers", 10'000);
    config.NH = config.NKV = field(5, "num_heads", 100'000);
    config.C = field(6, "channels", 1'000'000);
    if (config.C % config.NH != 0) fail("'{}' is damaged: {} heads, {} channels", file.path(), config.NH, config.C);
    if (field(7, "padded_vocab_size", 100'000'000) < config.V) {
        fail("'{}' is damaged: padded_vocab_size {}, vocab_size {}", file.path(), header[7], config.V);
    }
    config.HD = config.C / config.NH, config.F = 4 * config.C;
    try {
        return make_model(config);
    } catch (const Error& error) {  // It speaks of options, which nobody gave.
        fail("'{}' describes a model that cannot be: {}", file.path(), error.what());
    }
}

DType dtype_of_version(int32_t version) { return version == kVersionBf16 ? DType::BF16 : DType::F32; }

void require_llmc_architecture(const ModelConfig& config) {
    std::string reason = difference(config.features, row_of(Family::Gpt2).features);
    if (config.family != Family::Gpt2) reason = fmt::format("this is a {} model", name_of(config.family));
    if (reason.empty() && config.window > 0) reason = "it has attention windows";
    if (reason.empty() && !config.tied) reason = "its head is not the embedding";
    if (reason.empty() && config.F != 4 * config.C) reason = "its MLPs are not 4 times as wide";
    if (reason.empty() && config.HD * config.NH != config.C) reason = "its heads do not share the channels";
    if (reason.empty() && std::abs(config.norm_epsilon - 1e-5) > 1e-12) reason = "its norm epsilon is not 1e-5";
    if (reason.empty()) return;
    fail_usage("--format=llmc: llm.c's files hold plain GPT-2 models, but {}; use --format=hf", reason);
}

}  // namespace

bool is_llmc_model(std::span<const std::byte> bytes) {
    int32_t magic = 0;
    if (bytes.size() < sizeof magic) return false;
    std::memcpy(&magic, bytes.data(), sizeof magic);
    return magic == kMagic;
}

LlmcModel::LlmcModel(MappedFile file)
    : WeightSource(model_of(file)), file_(std::move(file)), offsets_(model().parameters.size()) {
    const Header header = header_of(file_);
    dtype_ = dtype_of_version(header[1]);
    padded_vocab_size_ = header[7];
    int64_t end = kHeaderBytes;
    for (const int index : file_order(model())) {
        const ParameterRow& row = model().parameters[static_cast<size_t>(index)];
        offsets_[static_cast<size_t>(index)] = end;
        end += (index == model().wte ? padded_vocab_size_ : row.rows) * row.cols * size_of(dtype_);
    }
    if (file_.size() != end) {
        fail("'{}' is {}: {} bytes, its header makes {}; copy it again", file_.path(),
             file_.size() < end ? "truncated" : "too long", file_.size(), end);
    }
    const int64_t used = model().config.V * model().config.C * size_of(dtype_);
    const int64_t whole = padded_vocab_size_ * model().config.C * size_of(dtype_);
    const auto padding =
        file_.bytes().subspan(static_cast<size_t>(kHeaderBytes + used), static_cast<size_t>(whole - used));
    if (std::any_of(padding.begin(), padding.end(), [](std::byte byte) { return byte != std::byte{0}; })) {
        spdlog::warn("'{}': the embedding's rows beyond the vocabulary are not zero; they mean nothing and are dropped",
                     file_.path());
    }
}

void LlmcModel::read(int parameter, std::span<float> out) const {
    const std::byte* from = file_.data() + offsets_[static_cast<size_t>(parameter)];
    if (dtype_ == DType::F32) {
        std::memcpy(out.data(), from, out.size_bytes());
        return;
    }
    for (size_t i = 0; i < out.size(); ++i) {
        bf16 value = {};
        std::memcpy(&value, from + i * sizeof value, sizeof value);
        out[i] = to_float(value);
    }
}

std::string LlmcModel::describe() const {
    return fmt::format("the llm.c file '{}' ({})", file_.path(), name_of(dtype_));
}

void write_llmc_model(const std::string& path, const WeightSource& weights, DType dtype) {
    const Model& model = weights.model();
    const ModelConfig& config = model.config;
    require_llmc_architecture(config);
    const int64_t padded = weights.padded_vocab_size() > 0 ? weights.padded_vocab_size() : round_up(config.V, kPadding);
    const int64_t fields[] = {config.maxT, config.V, config.L, config.NH, config.C, padded};
    Header header = {kMagic, dtype == DType::BF16 ? kVersionBf16 : kVersionF32};
    std::transform(std::begin(fields), std::end(fields), header.begin() + 2,
                   [](int64_t value) { return static_cast<int32_t>(value); });
    FileWriter writer(path);
    writer.write(header.data(), kHeaderBytes);
    for (const int index : file_order(model)) {
        std::vector<float> values = weights.values(index);
        if (index == model.wte) values.resize(static_cast<size_t>(padded * config.C));
        if (dtype == DType::BF16) {
            std::vector<bf16> rounded(values.size());
            std::transform(values.begin(), values.end(), rounded.begin(), to_bf16);
            writer.write(rounded.data(), static_cast<int64_t>(rounded.size() * sizeof(bf16)));
        } else {
            writer.write(values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
        }
    }
    writer.close();
}

}  // namespace llmc
