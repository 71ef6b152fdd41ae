#include "llmc/plan/device_profile.h"

#include "llmc/base/error.h"

#include <algorithm>
#include <cctype>

namespace llmc {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// Usable bytes per second, one way while as much comes the other: PCIe 4 and 5 by lanes, NVLink-C2C.
constexpr double kPcie4x8 = 12.5e9, kPcie4x16 = 25e9, kPcie5x8 = 25e9, kPcie5x16 = 52e9, kC2c = 300e9;
/// 100 Gbit/s, of hosts that are not built for several cards each.
constexpr double kNetwork = 12.5e9;

// CUDA's context with our kernels and its libraries' takes half a GiB; a card that also drives a screen another half.
constexpr int64_t kContext = 512 * kMiB, kDesktop = 1024 * kMiB;

/// What the makers publish of a card.
struct Card {
    const char* name;
    const char* kind;
    double fp32, bf16;      ///< Dense matrix FLOP/s: fp32 with TF32 off; bf16 with sums in fp32.
    double bandwidth;       ///< Of its memory.
    int64_t memory_mib;     ///< As nvidia-smi reports it.
    int64_t reserve_bytes;  ///< See above.
    double host_link;       ///< To the host's memory.
    double card_link = 0;   ///< NVLink to other cards of a host, one way; 0: over the host's link.
    double network = kNetwork;
    double efficiency = 0.7;  ///< Share of the peak that matrix products reach.
    double usual_error = 0;
};

// Sources: NVIDIA's data sheets of A10, A100 (40 and 80 GB), L4, L40S, H100 and H200 SXM, GH200 and HGX B200; its
// white papers of GA102, AD102, AD103 and GB202 for GeForce (their tensor cores halve bf16 where sums are fp32, which
// is the figure here) and the product pages for memory and lanes. "a100" keeps the rates it has always had here, which
// are those of the 80 GB card, and has the memory of the smaller one, so that what is planned for it fits either.
// Networks are those of the makers' own machines, by card. What was looked up, and where: dev/notes/cards.md.
constexpr Card kCards[] = {
    {"rtx3060", "sm_86", 12.7e12, 25.5e12, 0.360e12, 12288, kDesktop, kPcie4x16},
    {"rtx3080", "sm_86", 29.8e12, 59.5e12, 0.760e12, 10240, kDesktop, kPcie4x16},
    {"rtx3090", "sm_86", 35.6e12, 71.2e12, 0.936e12, 24576, kDesktop, kPcie4x16},
    {"rtx4060", "sm_89", 15.1e12, 30.2e12, 0.272e12, 8188, kDesktop, kPcie4x8},
    {"rtx4060ti-16gb", "sm_89", 22.1e12, 44.1e12, 0.288e12, 16380, kDesktop, kPcie4x8},
    {"rtx4070", "sm_89", 29.1e12, 58.3e12, 0.504e12, 12282, kDesktop, kPcie4x16},
    {"rtx4080", "sm_89", 48.7e12, 97.5e12, 0.717e12, 16376, kDesktop, kPcie4x16},
    {"rtx4090", "sm_89", 82.6e12, 165.2e12, 1.008e12, 24564, kDesktop, kPcie4x16},
    {"rtx5060ti-16gb", "sm_120", 23.7e12, 47.4e12, 0.448e12, 16311, kDesktop, kPcie5x8},
    {"rtx5070ti", "sm_120", 43.9e12, 87.9e12, 0.896e12, 16303, kDesktop, kPcie5x16},
    {"rtx5080", "sm_120", 56.3e12, 112.6e12, 0.960e12, 16303, kDesktop, kPcie5x16},
    {"rtx5090", "sm_120", 104.8e12, 209.5e12, 1.792e12, 32607, kDesktop, kPcie5x16},
    {"a10", "sm_86", 31.2e12, 125e12, 0.600e12, 23028, kContext, kPcie4x16},
    {"a100", "sm_80", 19.5e12, 312e12, 2.04e12, 40960, kContext, kPcie4x16, 300e9, 25e9},
    {"a100-80gb", "sm_80", 19.5e12, 312e12, 2.04e12, 81920, kContext, kPcie4x16, 300e9, 25e9},
    {"l4", "sm_89", 30.3e12, 121e12, 0.300e12, 23034, kContext, kPcie4x16, 0, kNetwork, 0.6},
    {"l40s", "sm_89", 91.6e12, 362e12, 0.864e12, 46068, kContext, kPcie4x16, 0, kNetwork, 0.6},
    {"h100", "sm_90", 67e12, 989e12, 3.35e12, 81559, kContext, kPcie5x16, 450e9, 50e9, 0.65, 0.15},
    {"h200", "sm_90", 67e12, 989e12, 4.8e12, 143771, kContext, kPcie5x16, 450e9, 50e9, 0.65},
    {"b200", "sm_100", 75e12, 2250e12, 7.7e12, 183359, kContext, kPcie5x16, 900e9, 50e9, 0.6},
    {"gh200", "sm_90", 67e12, 989e12, 4.0e12, 97871, kContext, kC2c, 450e9, 50e9, 0.65},
};

DeviceProfile profile_of(const Card& card) {
    DeviceProfile profile;
    profile.name = card.name;
    profile.flops_fp32 = card.fp32, profile.flops_bf16 = card.bf16;
    profile.bandwidth = card.bandwidth;
    profile.launch_seconds = 4e-6;
    profile.efficiency = card.efficiency;
    profile.host_bandwidth = card.host_link;
    profile.link_bandwidth = card.card_link > 0 ? card.card_link : card.host_link;
    profile.node_bandwidth = card.network;
    // Of our kernels, fitted on the profiles of GPT-2 124M and gpt2-xl on an H100 (dev/bench/results/h100_steps.json,
    // which dev/bench/predict_time.sh holds against other shapes); their attention is the same on all architectures.
    profile.attention_forward = 0.29, profile.attention_backward = 0.30;
    profile.attention_backward_products = 7;
    profile.attention_overhead = 512;
    profile.bandwidth_efficiency = 0.75;
    profile.kind = card.kind;
    profile.hopper_attention = profile.kind == "sm_90";
    profile.usual_error = card.usual_error;
    profile.memory_bytes = card.memory_mib * kMiB;
    profile.reserve_bytes = card.reserve_bytes;
    return profile;
}

/// "NVIDIA GeForce RTX 4060 Ti" is "nvidiageforcertx4060ti"; of a profile's name, what tells sizes apart is left out.
std::string squeezed(std::string name) {
    if (const size_t size = name.rfind('-'); size != std::string::npos && name.ends_with("gb")) name.resize(size);
    std::erase_if(name, [](unsigned char c) { return std::isalnum(c) == 0; });
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name;
}

/// Of the kernels for compute capability 9.0, by head size, 64 and 128: estimated, not measured. On an H100 they are to
/// reach, in TFLOP/s, at 1,024 and at 4,096 tokens: forward 280 and 400 with heads of 64, 550 at 4,096 with heads of
/// 128; backward, row sums included, 348, 416 and 463. dev/notes/gpu.md says where that comes from.
constexpr AttentionRate kHopperForward[] = {{0.472, 683}, {0.649, 683}};
constexpr AttentionRate kHopperBackward[] = {{0.450, 285}, {0.501, 285}};

}  // namespace

AttentionRate DeviceProfile::attention_rate(DType dtype, int64_t HD, bool backward) const {
    if (estimates_attention(dtype, HD)) return (backward ? kHopperBackward : kHopperForward)[HD == 128];
    return {backward ? attention_backward : attention_forward, static_cast<double>(attention_overhead)};
}

const std::vector<DeviceProfile>& device_profiles() {
    static const std::vector<DeviceProfile> table = [] {
        std::vector<DeviceProfile> profiles;
        for (const Card& card : kCards) profiles.push_back(profile_of(card));
        return profiles;
    }();
    return table;
}

const DeviceProfile* known_device_profile(const std::string& name) {
    const auto& table = device_profiles();
    const auto found =
        std::find_if(table.begin(), table.end(), [&](const DeviceProfile& profile) { return profile.name == name; });
    return found == table.end() ? nullptr : &*found;
}

const DeviceProfile& find_device_profile(const std::string& name) {
    if (const DeviceProfile* profile = known_device_profile(name); profile != nullptr) return *profile;
    std::string names;
    for (const DeviceProfile& profile : device_profiles()) names += (names.empty() ? "" : ", ") + profile.name;
    fail_usage("--device-profile={}: no such profile; choose one of {}, or leave it out to plan for this machine", name,
               names);
}

const DeviceProfile* profile_of_device(const std::string& device_name) {
    const std::string name = squeezed(device_name);
    const DeviceProfile* best = nullptr;
    for (const DeviceProfile& profile : device_profiles()) {
        const std::string known = squeezed(profile.name);
        if (name.find(known) == std::string::npos) continue;
        if (best == nullptr || known.size() > squeezed(best->name).size()) best = &profile;
    }
    return best;
}

}  // namespace llmc
