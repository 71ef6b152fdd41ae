#include "llmc/train/arithmetic.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/profile_file.h"
#include "llmc/train/ranks.h"

#include <nlohmann/json.hpp>

#include <vector>

namespace llmc {
namespace {

// What leaves it open, in Options.
constexpr const char* kAnyProducts = "auto";
constexpr const char* kFastest = "fastest";

/// Of options whose values are decided.
Arithmetic arithmetic_of(const Options& options) {
    return {options.cpu_products == kAnyProducts ? "" : options.cpu_products,
            options.kernels == kFastest ? "" : options.kernels, options.tf32};
}

void say_without_effect(const Options& options, bool on_gpu, DType dtype) {
    if (options.was_typed("tf32") && options.tf32 && !(on_gpu && dtype == DType::F32)) {
        spdlog::warn("--tf32: has no effect; {}", on_gpu ? "products of bf16 numbers have no fp32 operands to round"
                                                         : "a CPU does not round operands");
    }
    if (options.was_typed("kernels") && !on_gpu && options.resume.empty()) {
        spdlog::warn("--kernels: has no effect; a CPU has its own");
    }
}

/// Why this rank's numbers speak against Hopper's kernels; "" if they do not.
std::string disagreement(const ModelConfig& config, Backend& backend) {
    try {
        return backend.hopper_kernels_agree(config.HD) ? ""
                                                       : "on a small case they do not give what the portable ones give";
    } catch (const Error& error) {
        throw Error(error.exit_code(), fmt::format("a first try of Hopper's kernels of attention: {}; "
                                                   "--kernels=portable does without them",
                                                   error.what()));
    }
}

[[noreturn]] void refuse_hopper(const Options& options, const std::string& objection) {
    if (!options.resume.empty() && !options.was_typed("kernels")) {
        fail_usage(
            "--resume={}: the run's attention is on Hopper's kernels, and here it cannot be: {}; add "
            "--kernels=portable to go on without them (the last bits change)",
            options.resume, objection);
    }
    fail_usage("--kernels=hopper: {}; use --kernels=portable, or fastest", objection);
}

/// What becomes of --kernels.
std::string settled_kernels(const Options& options, const ModelConfig& config, DType dtype, Backend& backend,
                            Comm& comm) {
    const bool is_required = options.kernels == kHopperKernels;
    const std::string otherwise = backend.on_gpu() ? kPortableKernels : kFastest;
    if (options.kernels == kPortableKernels || (!backend.on_gpu() && !is_required)) return otherwise;
    if (const std::string why = why_portable(dtype, config); !why.empty()) {
        if (is_required) spdlog::warn("--kernels=hopper: has no effect; {}", why);
        return otherwise;
    }
    const std::string lacks = first_objection(backend.why_no_hopper(), comm);
    if (!lacks.empty() && is_required) refuse_hopper(options, lacks);
    if (!lacks.empty()) return otherwise;
    const std::string differs = first_objection(disagreement(config, backend), comm);
    if (differs.empty()) return kHopperKernels;
    if (is_required) refuse_hopper(options, differs);
    spdlog::warn("attention is on the portable kernels, not on Hopper's: {}", differs);
    return otherwise;
}

}  // namespace

void keep_arithmetic(Options& options, const Checkpoint& checkpoint) {
    const Progress progress = progress_of(checkpoint);
    const Arithmetic kept = progress.train_tokens == 0 ? Arithmetic() : progress.arithmetic;
    const auto take = [&](const char* name, std::string* option, const std::string& value, const char* open) {
        if (!options.was_typed(name)) *option = value.empty() ? open : value;
    };
    take("cpu-products", &options.cpu_products, kept.cpu_products, kAnyProducts);
    take("kernels", &options.kernels, kept.kernels, kFastest);
    if (!options.was_typed("tf32")) options.tf32 = kept.tf32;
    const bool can_form = options.was_typed("cpu-products") || has_cpu_products(options.cpu_products);
    if (!can_form) options.cpu_products = kAnyProducts;
}

void settle_arithmetic(Options& options, const ModelConfig& config, DType dtype, Backend& backend, Comm& comm) {
    say_without_effect(options, backend.on_gpu(), dtype);
    if (backend.on_gpu()) options.cpu_products = kAnyProducts;
    options.kernels = settled_kernels(options, config, dtype, backend, comm);
    options.tf32 = options.tf32 && backend.on_gpu() && dtype == DType::F32;
    backend.set_arithmetic(arithmetic_of(options));
}

void settle_arithmetic(const Options& options, const ModelConfig& config, DType dtype, Backend& backend) {
    Options settled = options;
    Comm alone;
    settle_arithmetic(settled, config, dtype, backend, alone);
}

std::string objection_to_planned_hopper(const Options& options, const Backend& backend) {
    if (options.device_profile.empty()) return backend.why_no_hopper();
    const DeviceProfile planned = device_profile_of(options);
    return planned.kind == "sm_90" ? "" : fmt::format("{} is no Hopper card", planned.name);
}

void assume_arithmetic(const Options& options, Backend& backend) {
    const bool is_elsewhere = !options.device_profile.empty();
    const bool on_gpu = is_elsewhere ? device_profile_of(options).kind != "cpu" : backend.on_gpu();
    const std::string objection = objection_to_planned_hopper(options, backend);
    if (options.kernels == kHopperKernels && !objection.empty()) refuse_hopper(options, objection);
    const bool bf16 = options.dtype == "bf16" || (options.dtype == "auto" && on_gpu);
    say_without_effect(options, on_gpu, bf16 ? DType::BF16 : DType::F32);
    const bool on_hopper = options.kernels != kPortableKernels && objection.empty();
    backend.set_arithmetic({"", on_hopper ? kHopperKernels : kPortableKernels, options.tf32 && !bf16});
}

std::string describe(const Arithmetic& arithmetic) {
    std::vector<std::string> parts;
    if (!arithmetic.cpu_products.empty()) parts.push_back("matrix products " + arithmetic.cpu_products);
    if (arithmetic.kernels == kHopperKernels) parts.emplace_back("attention on Hopper's kernels");
    if (arithmetic.kernels == kPortableKernels) parts.emplace_back("attention on the portable kernels");
    if (arithmetic.tf32) parts.emplace_back("fp32 products in TF32");
    return fmt::format("{}", fmt::join(parts, ", "));
}

std::string why_portable(DType dtype, const ModelConfig& config) {
    if (hopper_kernels_take(dtype, config.HD)) return "";
    if (dtype != DType::BF16) return fmt::format("Hopper's are for bf16, not {}", name_of(dtype));
    return fmt::format("Hopper's are for heads of 64 or 128 channels, not {}", config.HD);
}

bool changes(const Arithmetic& before, const Arithmetic& now) {
    const auto differ = [](const std::string& a, const std::string& b) { return !a.empty() && !b.empty() && a != b; };
    const bool both_on_gpu = !before.kernels.empty() && !now.kernels.empty();
    return differ(before.cpu_products, now.cpu_products) || differ(before.kernels, now.kernels) ||
           (both_on_gpu && before.tf32 != now.tf32);
}

Arithmetic noted(const Arithmetic& before, const Arithmetic& now) {
    Arithmetic result = now;
    if (now.cpu_products.empty()) result.cpu_products = before.cpu_products;
    if (now.kernels.empty()) {
        result.kernels = before.kernels == kHopperKernels ? kPortableKernels : before.kernels;
        result.tf32 = before.tf32;
    }
    return result;
}

nlohmann::json to_json(const Arithmetic& arithmetic) {
    return {{"cpu_products", arithmetic.cpu_products}, {"kernels", arithmetic.kernels}, {"tf32", arithmetic.tf32}};
}

Arithmetic arithmetic_in(const nlohmann::json& state) {
    if (!state.contains("arithmetic")) {
        const auto products = state.value("cpu_products", std::string("library"));
        return {products, products.empty() || !state.contains("cpu_products") ? kPortableKernels : "", false};
    }
    const nlohmann::json& json = state.at("arithmetic");
    return {json.at("cpu_products").get<std::string>(), json.at("kernels").get<std::string>(),
            json.at("tf32").get<bool>()};
}

}  // namespace llmc
