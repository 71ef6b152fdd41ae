// The table of product_rule.h, and which row is for whom. dev/bench/products.py compares its choices with libraries.
//
// What was seen on a Zen 5 (one thread by processor time, oneDNN 2.6.3 = 1; other work on the machine): forward 1.05 to
// 1.15 in both types; weight gradients 0.93 to 1.10 in fp32, 0.96 to 1.07 in bf16; input gradients 0.91 to 0.99 in
// fp32, where oneDNN stays, 0.97 to 1.07 in bf16. On a Golden Cove server without AMX bf16 dots run at half the rate of
// fp32 multiply-adds, and oneDNN's fp32 weight gradients at 0.57 of the peak: our own of fp32 numbers for all.
#include "llmc/backend/cpu/product_rule.h"

#include "llmc/backend/cpu/machine.h"
#include "llmc/backend/cpu/product.h"
#include "llmc/base/error.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace llmc::cpu {
namespace {

constexpr ProductRule kLibrary = {ProductKind::Library, 0};
constexpr ProductRule kFp32 = {ProductKind::Fp32, 512};
constexpr ProductRule kDots = {ProductKind::Bf16, 512};

constexpr RulesOfType same_for_all(ProductRule rule) { return {rule, rule, rule}; }

constexpr ProductRules kTable[] = {
    {"amd-avx512", "AMD processors with AVX-512 and bf16 dots", {kFp32, kLibrary, kFp32}, same_for_all(kDots)},
    {"amx", "Intel processors with AMX, whose bf16 products are the library's", same_for_all(kFp32),
     same_for_all(kLibrary)},
    {"fp32", "other processors with AVX-512, and Arm: our own, of fp32 numbers", same_for_all(kFp32),
     same_for_all(kFp32)},
    {"library", "all others: oneDNN, or OpenBLAS", same_for_all(kLibrary), same_for_all(kLibrary)},
};

bool uses(const ProductRules& rules, ProductKind kind) {
    const auto any = [kind](const RulesOfType& of) {
        return of.forward.kind == kind || of.backward_input.kind == kind || of.backward_weight.kind == kind;
    };
    return any(rules.fp32) || any(rules.bf16);
}

bool can_form(const ProductRules& rules) {
    return !uses(rules, ProductKind::Bf16) || (product_has_bf16_dots() && has_bf16_dot_products());
}

const ProductRules* find_rules(std::string_view name) {
    const auto found = std::find_if(std::begin(kTable), std::end(kTable),
                                    [&](const ProductRules& rules) { return rules.name == name; });
    return found == std::end(kTable) ? nullptr : found;
}

std::string names() {
    std::string list;
    for (const ProductRules& rules : kTable) list += std::string(rules.name) + ", ";
    return list + "auto";
}

const char* name_for_this_processor() {
#if defined(__AVX512F__)
    __builtin_cpu_init();
    if (has_amx_bf16()) return "amx";
    return __builtin_cpu_is("amd") && product_has_bf16_dots() && has_bf16_dot_products() ? "amd-avx512" : "fp32";
#elif defined(__aarch64__)
    return "fp32";
#else
    return "library";
#endif
}

}  // namespace

std::span<const ProductRules> product_table() { return kTable; }

const ProductRules& rules_of_this_processor() {
    static const ProductRules* const rules = find_rules(name_for_this_processor());
    return *rules;
}

const ProductRules& product_rules(std::string_view name) {
    if (name == "auto") return rules_of_this_processor();
    const ProductRules* const found = find_rules(name);
    if (found == nullptr) fail_usage("--cpu-products={} is unknown; choose from {}", name, names());
    if (!can_form(*found)) {
        fail_usage(
            "--cpu-products={}: {} has no bf16 dot products (AVX512_BF16), or this build does not use them; use "
            "--cpu-products=fp32",
            name, processor_name());
    }
    return *found;
}

bool can_form_products(std::string_view name) {
    const ProductRules* const found = name == "auto" ? &rules_of_this_processor() : find_rules(name);
    return found != nullptr && can_form(*found);
}

}  // namespace llmc::cpu
