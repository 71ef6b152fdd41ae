#include "llmc/run/probe.h"

#include "llmc/base/log.h"
#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace llmc {
namespace {

/// Elements of the flat buffers: with the optimiser's state 64 MiB, more than most caches hold.
constexpr int64_t kFlatElements = 4 << 20;
constexpr int64_t kWidestVocabulary = 8192, kWidestRow = 4096;
constexpr int64_t kShortSequence = 128, kLongSequence = 512;

/// Memory that every operation may use from its start, since what it computes is of no interest.
class Scratch {
  public:
    Scratch(Backend& backend, int64_t bytes)
        : backend_(backend), memory_(backend.allocate(bytes, "the probe of the device")), bytes_(bytes) {}
    ~Scratch() { backend_.release(memory_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    char* at(int64_t offset) const { return static_cast<char*>(memory_) + offset; }
    int64_t bytes() const { return bytes_; }

  private:
    Backend& backend_;
    void* memory_;
    int64_t bytes_;
};

/// The operands of one operation, one after the other: counted first, and with memory from the second time on.
class Operands {
  public:
    explicit Operands(char* memory) : memory_(memory) {}
    Tensor take(DType dtype, int64_t rows, int64_t cols = 1) {
        Tensor tensor(dtype, memory_ == nullptr ? nullptr : memory_ + bytes_, rows, cols);
        bytes_ += round_up(tensor.bytes(), kTensorAlignment);
        return tensor;
    }
    int64_t bytes() const { return bytes_; }

  private:
    char* memory_;
    int64_t bytes_ = 0;
};

using Call = std::function<void()>;

struct Timed {
    std::function<Call(Operands&)> make;  ///< Takes its operands and says what to do with them.
    std::function<void(double seconds)> keep;
};

class Probing {
  public:
    Probing(const Model& model, DType dtype, OptimizerKind optimizer, Backend& backend)
        : model_(model),
          config_(model.config),
          type_(dtype),
          optimizer_(optimizer),
          backend_(backend),
          workers_(backend.info().workers),
          tokens_(512 * ceil_div(workers_, 4)) {
        rates_.device = backend.info().name;
        rates_.workers = workers_;
        add_products();
        add_attention(kShortSequence, &short_forward_, &short_backward_);
        add_attention(kLongSequence, &long_forward_, &long_backward_);
        add_norm();
        add_activation();
        add_cross_entropy();
        add_flat_buffers();
    }

    ProbedRates run(double seconds);

  private:
    void add(std::function<Call(Operands&)> make, std::function<void(double)> keep) {
        timed_.push_back({std::move(make), std::move(keep)});
    }
    /// Of an operation that handles so many bytes or FLOPs.
    void add_rate(double* rate, double units, std::function<Call(Operands&)> make) {
        add(std::move(make), [=](double seconds) { *rate = units / seconds; });
    }
    double activation_bytes(int64_t count) const { return static_cast<double>(count * size_of(type_)); }

    void add_products();
    void add_product(const ParameterRow& weight, const OpRow* row);
    void add_attention(int64_t T, double* forward, double* backward);
    void fit_attention();
    void add_norm();
    void add_activation();
    void add_cross_entropy();
    void add_flat_buffers();

    const Model& model_;
    const ModelConfig& config_;
    const DType type_;
    const OptimizerKind optimizer_;
    Backend& backend_;
    const int64_t workers_, tokens_;
    std::deque<ProbedRates::Product> products_;  ///< Stay where they are.
    double short_forward_ = 0, short_backward_ = 0, long_forward_ = 0, long_backward_ = 0;
    ProbedRates rates_;
    std::vector<Timed> timed_;
};

void Probing::add_product(const ParameterRow& weight, const OpRow* row) {
    const int64_t N = tokens_;
    const int64_t OC = std::min(weight.rows, ProbedRates::kWidest), IC = std::min(weight.cols, ProbedRates::kWidest);
    const auto are_near = [](int64_t a, int64_t b) { return a < 2 * b && b < 2 * a; };
    const auto is_known = [&](const ProbedRates::Product& product) {
        return are_near(product.OC, OC) && are_near(product.IC, IC);
    };
    if (std::any_of(products_.begin(), products_.end(), is_known)) return;
    ProbedRates::Product& product = products_.emplace_back(ProbedRates::Product{OC, IC});
    const bool has_bias = row != nullptr && row->bias != kNone;
    const bool has_residual = row != nullptr && row->residual != kNone;
    const double flops = 2.0 * static_cast<double>(N * OC * IC);
    add_rate(&product.forward, flops, [=, this](Operands& operands) -> Call {
        const Tensor out = operands.take(type_, N, OC), x = operands.take(type_, N, IC);
        const Tensor w = operands.take(type_, OC, IC), bias = has_bias ? operands.take(type_, OC) : Tensor();
        const Tensor residual = has_residual ? operands.take(type_, N, OC) : Tensor();
        const Tensor workspace = operands.take(DType::F32, backend_.matmul_workspace(type_, N, OC, IC) / 4);
        return [=, this] { backend_.matmul_forward(out, x, w, bias, residual, workspace); };
    });
    add_rate(&product.backward_input, flops, [=, this](Operands& operands) -> Call {
        const Tensor d_x = operands.take(type_, N, IC), d_out = operands.take(type_, N, OC);
        const Tensor w = operands.take(type_, OC, IC);
        const Tensor workspace = operands.take(DType::F32, backend_.matmul_workspace(type_, N, OC, IC) / 4);
        return [=, this] { backend_.matmul_backward_input(d_x, d_out, w, workspace); };
    });
    add_rate(&product.backward_weight, flops, [=, this](Operands& operands) -> Call {
        const Tensor d_w = operands.take(DType::F32, OC, IC);
        const Tensor d_bias = has_bias ? operands.take(DType::F32, OC) : Tensor();
        const Tensor d_out = operands.take(type_, N, OC), x = operands.take(type_, N, IC);
        const Tensor workspace = operands.take(DType::F32, backend_.matmul_workspace(type_, N, OC, IC) / 4);
        return [=, this] { backend_.matmul_backward_weight(d_w, d_bias, true, d_out, x, workspace); };
    });
}

void Probing::add_products() {
    for (const OpRow& row : model_.block) {
        if (row.kind != OpKind::Matmul) continue;
        add_product(model_.parameters[static_cast<size_t>(model_.parameter_index(0, row.weight))], &row);
    }
    add_product(model_.parameters[static_cast<size_t>(model_.head)], nullptr);
}

void Probing::add_attention(int64_t T, double* forward, double* backward) {
    const AttentionShape shape = {kLongSequence / T, T, workers_, workers_, config_.HD};
    const int64_t N = shape.B * T;
    const auto keep_in = [=, this](double* per_query) {  // Of one query of all the model's heads.
        return [=, this](double seconds) {
            *per_query =
                seconds / static_cast<double>(N) * static_cast<double>(config_.NH) / static_cast<double>(workers_);
        };
    };
    const int64_t columns = shape.NH * shape.HD;
    add(
        [=, this](Operands& operands) -> Call {
            const Tensor out = operands.take(type_, N, columns), lse = operands.take(DType::F32, N, shape.NH);
            const Tensor qkv = operands.take(type_, N, shape.qkv_columns());
            const Tensor workspace = operands.take(DType::F32, backend_.attention_forward_workspace(type_, shape) / 4);
            return [=, this] { backend_.attention_forward(out, lse, qkv, shape, workspace); };
        },
        keep_in(forward));
    add(
        [=, this](Operands& operands) -> Call {
            const Tensor out = operands.take(type_, N, columns), lse = operands.take(DType::F32, N, shape.NH);
            const Tensor qkv = operands.take(type_, N, shape.qkv_columns()), d_out = operands.take(type_, N, columns);
            const Tensor d_qkv = operands.take(type_, N, shape.qkv_columns());
            const int64_t bytes = backend_.attention_backward_workspace(type_, shape, /*in_place=*/false);
            const Tensor workspace = operands.take(DType::F32, bytes / 4);
            return [=, this] { backend_.attention_backward(d_qkv, d_out, qkv, out, lse, shape, workspace); };
        },
        keep_in(backward));
}

/// A line through both lengths; a query sees half a sequence on average.
void Probing::fit_attention() {
    const auto fit = [](double of_short, double of_long) {
        const double per_key = std::max(0.0, of_long - of_short) / (0.5 * (kLongSequence - kShortSequence));
        return ProbedRates::Attention{std::max(0.0, of_short - per_key * 0.5 * kShortSequence), per_key};
    };
    rates_.attention_forward = fit(short_forward_, long_forward_);
    rates_.attention_backward = fit(short_backward_, long_backward_);
}

void Probing::add_norm() {
    const int64_t C = std::min(config_.C, kWidestRow), N = tokens_;
    const auto epsilon = static_cast<float>(config_.norm_epsilon);
    const bool centred = model_.norm == OpKind::LayerNorm;
    const auto forward_on = [=, this](int64_t rows) {
        return [=, this](Operands& operands) -> Call {
            const Tensor out = operands.take(type_, rows, C), x = operands.take(type_, rows, C);
            const Tensor mean = operands.take(DType::F32, rows), rstd = operands.take(DType::F32, rows);
            const Tensor weight = operands.take(type_, C), bias = operands.take(type_, C);
            if (centred) return [=, this] { backend_.layernorm_forward(out, mean, rstd, x, weight, bias, epsilon); };
            return [=, this] { backend_.rmsnorm_forward(out, rstd, x, weight, epsilon); };
        };
    };
    const auto kind = static_cast<size_t>(model_.norm);
    add_rate(&rates_.forward[kind], 2 * activation_bytes(N * C), forward_on(N));
    add(forward_on(1), [this](double seconds) { rates_.launch_seconds = seconds; });
    add_rate(&rates_.backward[kind], 4 * activation_bytes(N * C), [=, this](Operands& operands) -> Call {
        const Tensor d_x = operands.take(type_, N, C), x = operands.take(type_, N, C);
        const Tensor d_out = operands.take(type_, N, C), weight = operands.take(type_, C);
        const Tensor mean = operands.take(DType::F32, N), rstd = operands.take(DType::F32, N);
        const Tensor d_weight = operands.take(DType::F32, C), d_bias = operands.take(DType::F32, C);
        const Tensor workspace = operands.take(DType::F32, backend_.norm_backward_workspace(N, C) / 4);
        if (centred) {
            return [=, this] {
                backend_.layernorm_backward(d_x, true, d_weight, d_bias, true, d_out, x, mean, rstd, weight, workspace);
            };
        }
        return [=, this] { backend_.rmsnorm_backward(d_x, true, d_weight, true, d_out, x, rstd, weight, workspace); };
    });
}

void Probing::add_activation() {
    const auto is_activation = [](const OpRow& row) {
        return row.kind == OpKind::Gelu || row.kind == OpKind::GeluExact || row.kind == OpKind::Swiglu;
    };
    const auto row = std::find_if(model_.block.begin(), model_.block.end(), is_activation);
    if (row == model_.block.end()) return;
    const OpKind kind = row->kind;
    const int64_t F = std::min(config_.F, kWidestRow), N = tokens_, in_columns = kind == OpKind::Swiglu ? 2 * F : F;
    add_rate(&rates_.forward[static_cast<size_t>(kind)], activation_bytes(N * (in_columns + F)),
             [=, this](Operands& operands) -> Call {
                 const Tensor out = operands.take(type_, N, F), x = operands.take(type_, N, in_columns);
                 return [=, this] {
                     if (kind == OpKind::Gelu) return backend_.gelu_forward(out, x);
                     if (kind == OpKind::GeluExact) return backend_.gelu_exact_forward(out, x);
                     backend_.swiglu_forward(out, x);
                 };
             });
    add_rate(&rates_.backward[static_cast<size_t>(kind)], activation_bytes(N * (2 * in_columns + F)),
             [=, this](Operands& operands) -> Call {
                 const Tensor d_x = operands.take(type_, N, in_columns), d_out = operands.take(type_, N, F);
                 const Tensor x = operands.take(type_, N, in_columns);
                 return [=, this] {
                     if (kind == OpKind::Gelu) return backend_.gelu_backward(d_x, d_out, x);
                     if (kind == OpKind::GeluExact) return backend_.gelu_exact_backward(d_x, d_out, x);
                     backend_.swiglu_backward(d_x, d_out, x);
                 };
             });
}

void Probing::add_cross_entropy() {
    const int64_t Vp = std::min(config_.Vp(), kWidestVocabulary), N = tokens_ / 4;
    add_rate(&rates_.backward[static_cast<size_t>(OpKind::CrossEntropy)], 3 * activation_bytes(N * Vp),
             [=, this](Operands& operands) -> Call {
                 const Tensor losses = operands.take(DType::F32, N), logits = operands.take(type_, N, Vp);
                 const Tensor targets = operands.take(DType::I32, N), scale = operands.take(DType::F32, 1);
                 return [=, this] {
                     backend_.zero(targets);  // Others have written here.
                     backend_.cross_entropy(losses, logits, targets, Vp, scale);
                 };
             });
}

void Probing::add_flat_buffers() {
    constexpr int64_t kChunk = 4096;
    const int64_t n = std::max(kChunk, std::min(kFlatElements, model_.parameter_elements) / kChunk * kChunk);
    const int64_t all = 4 * n;  // As much memory as the update's operands take.
    const auto keep_in = [](double* per_element, int64_t elements) {
        return [=](double seconds) { *per_element = seconds / static_cast<double>(elements); };
    };
    add_rate(&rates_.bandwidth, 12.0 * static_cast<double>(all / 2), [=, this](Operands& operands) -> Call {
        const Tensor out = operands.take(DType::F32, all / 2), x = operands.take(DType::F32, all / 2);
        return [=, this] { backend_.add(out, x); };
    });
    add(
        [=, this](Operands& operands) -> Call {
            const Tensor out = operands.take(DType::F32, all);
            return [=, this] { backend_.zero(out); };
        },
        keep_in(&rates_.zeroing, all));
    add(
        [=, this](Operands& operands) -> Call {
            const Tensor gradients = operands.take(DType::F32, all), sums = operands.take(DType::F64, all / kChunk);
            return [=, this] { backend_.square_sums(sums, gradients, kChunk); };
        },
        keep_in(&rates_.square_sums, all));
    add(
        [=, this](Operands& operands) -> Call {
            UpdateOperands buffers;
            buffers.parameters = operands.take(type_, n);
            if (type_ != DType::F32) buffers.master = operands.take(DType::F32, n);
            buffers.m = operands.take(DType::F32, n);
            if (optimizer_ == OptimizerKind::AdamW) buffers.v = operands.take(DType::F32, n);
            buffers.gradients = operands.take(DType::F32, n);
            const Tensor factors = operands.take(DType::F32, kNumFactors);
            return [=, this] {
                const std::array<float, kNumFactors> applies = {1};
                backend_.copy_to_device(factors, applies.data());
                OptimizerSettings settings;
                settings.kind = optimizer_;
                const ParameterRange range = {0, n, false};
                backend_.update(buffers, {&range, 1}, settings, factors);
            };
        },
        keep_in(&rates_.update, n));
}

ProbedRates Probing::run(double seconds) {
    constexpr int kLeastRounds = 2, kMostRepeats = 5;
    constexpr double kShort = 0.3e-3;  // Less than this is soon disturbed, and soon repeated.
    const double start = now_seconds();
    int64_t bytes = 0;
    for (const Timed& timed : timed_) {
        Operands counted(nullptr);
        timed.make(counted);
        bytes = std::max(bytes, counted.bytes());
    }
    const Scratch scratch(backend_, bytes);
    std::vector<Call> calls;
    for (const Timed& timed : timed_) {
        Operands operands(scratch.at(0));
        calls.push_back(timed.make(operands));
    }
    std::vector<double> fastest(timed_.size(), std::numeric_limits<double>::infinity());
    for (int round = 0; round < kLeastRounds || now_seconds() - start < seconds; ++round) {
        for (size_t i = 0; i < calls.size(); ++i) {
            double spent = 0;
            for (int repeat = 0; repeat < kMostRepeats && spent < kShort; ++repeat) {
                const TimeMark before = backend_.mark();
                calls[i]();
                const double taken = backend_.seconds_between(before, backend_.mark());
                fastest[i] = std::min(fastest[i], taken);
                spent += taken;
            }
        }
    }
    for (size_t i = 0; i < timed_.size(); ++i) timed_[i].keep(std::max(fastest[i], 1e-9));
    fit_attention();
    rates_.products.assign(products_.begin(), products_.end());
    return rates_;
}

}  // namespace

std::optional<ProbedRates> probe(const Model& model, DType dtype, OptimizerKind optimizer, Backend& backend,
                                 double seconds) {
    try {
        return Probing(model, dtype, optimizer, backend).run(seconds);
    } catch (const std::exception&) {  // An Error, or what a library throws: predictions can do without.
        return std::nullopt;
    }
}

const ProbedRates* probe_once(const Model& model, const Places& places, Backend& backend) {
    static std::map<std::string, std::optional<ProbedRates>> known;
    ModelConfig config = with_layers(model.config, 1);
    config.name.clear();
    config.maxT = 1;  // What fits is asked for many lengths.
    const DType dtype = places.activations();
    const std::string key = fmt::format("{}|{}|{}|{}", backend.info().name, to_json(config), name_of(dtype),
                                        optimizer_row(places.optimizer()).name);
    const auto [entry, is_new] = known.try_emplace(key);
    if (is_new) entry->second = probe(model, dtype, places.optimizer(), backend);
    return entry->second ? &*entry->second : nullptr;
}

}  // namespace llmc
