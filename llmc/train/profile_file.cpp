#include "llmc/train/profile_file.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/nearest_word.h"
#include "llmc/base/units.h"
#include "llmc/train/config_file.h"
#include "llmc/train/option_hints.h"

#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <vector>

namespace llmc {
namespace {

/// A number of the file, in `unit` of what the profile has.
struct Field {
    const char* name;
    double DeviceProfile::*member;
    double unit;
    bool required;
};

constexpr double kGibibyte = 1073741824.0;

constexpr Field kFields[] = {
    {"fp32-tflops", &DeviceProfile::flops_fp32, 1e12, true},
    {"bf16-tflops", &DeviceProfile::flops_bf16, 1e12, true},
    {"bandwidth-gbs", &DeviceProfile::bandwidth, 1e9, true},
    {"link-gbs", &DeviceProfile::host_bandwidth, 1e9, true},
    {"card-link-gbs", &DeviceProfile::link_bandwidth, 1e9, false},
    {"network-gbs", &DeviceProfile::node_bandwidth, 1e9, false},
    {"launch-us", &DeviceProfile::launch_seconds, 1e-6, false},
    {"matmul-efficiency", &DeviceProfile::efficiency, 1, false},
    {"bandwidth-efficiency", &DeviceProfile::bandwidth_efficiency, 1, false},
    {"attention-forward", &DeviceProfile::attention_forward, 1, false},
    {"attention-backward", &DeviceProfile::attention_backward, 1, false},
};

/// What is no double.
const char* const kOthers[] = {"name", "kind", "memory-gib", "reserve-gib", "attention-products", "attention-tokens"};

/// A file of a device, and what messages about it begin with.
class ProfileFile {
  public:
    explicit ProfileFile(const std::string& path) : who_("--device-profile=" + path) {
        if (!path_exists(path)) fail_usage("{}: there is no such file; --calibrate writes one", who_);
        for (const ConfigEntry& entry : read_config(path, who_)) {
            require_known(entry);
            entries_[entry.name] = entry;
        }
    }

    bool has(const std::string& name) const { return entries_.count(name) > 0; }

    std::string text(const std::string& name, const std::string& otherwise) const {
        if (!has(name)) return otherwise;
        const ConfigEntry& entry = entries_.at(name);
        if (entry.value.kind == ConfigValue::Kind::String) return entry.value.text;
        fail_usage("{}: line {}: '{}' must be a text, not {}", who_, entry.line, name, describe(entry.value));
    }

    double number(const std::string& name, bool may_be_zero = false) const {
        if (!has(name)) {
            fail_usage(
                "{}: '{}' is missing; a profile needs memory-gib, fp32-tflops, bf16-tflops, bandwidth-gbs and "
                "link-gbs",
                who_, name);
        }
        const ConfigEntry& entry = entries_.at(name);
        const std::string& text = entry.value.text;
        double value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool is_number =
            entry.value.kind == ConfigValue::Kind::Integer || entry.value.kind == ConfigValue::Kind::Float;
        constexpr double kMost = 1e9;  // TFLOP/s, GB/s and GiB of what there is are far less.
        if (is_number && error == std::errc() && (value > 0 || (may_be_zero && value == 0)) && value < kMost) {
            return value;
        }
        fail_usage("{}: line {}: '{}' must be a number above 0, not {}", who_, entry.line, name, describe(entry.value));
    }

    const std::string& who() const { return who_; }

  private:
    void require_known(const ConfigEntry& entry) const {
        std::vector<std::string> names(std::begin(kOthers), std::end(kOthers));
        for (const Field& field : kFields) names.emplace_back(field.name);
        if (entry.section.empty() && std::count(names.begin(), names.end(), entry.name) > 0) return;
        const std::string meant = nearest_word(entry.name, names);
        fail_usage("{}: line {}: '{}' is nothing that a profile has{}", who_, entry.line, entry.name,
                   meant.empty() ? "" : fmt::format("; did you mean {}?", meant));
    }

    std::string who_;
    std::map<std::string, ConfigEntry> entries_;
};

/// "RTX 4090" and "4090" are "rtx4090".
std::string plain(std::string text) {
    std::erase_if(text, [](unsigned char c) { return std::isalnum(c) == 0; });
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
}

[[noreturn]] void refuse_name(const std::string& name) {
    std::vector<std::string> names;
    for (const DeviceProfile& profile : device_profiles()) names.push_back(profile.name);
    std::string meant = nearest_word(name, names);
    for (const std::string& known : names) {
        const std::string letters = plain(name);
        if (meant.empty() && letters.size() >= 2 && plain(known).find(letters) != std::string::npos) meant = known;
    }
    fail_usage(
        "--device-profile={}: no such profile{}; choose one of {}, or a file of your own (--calibrate writes one)",
        name, meant.empty() ? "" : fmt::format("; did you mean {}?", meant), fmt::join(names, ", "));
}

}  // namespace

bool is_profile_file(const std::string& name) { return name.find('/') != std::string::npos || name.ends_with(".toml"); }

DeviceProfile with_link(DeviceProfile profile, double gigabytes_per_second) {
    if (gigabytes_per_second <= 0) return profile;
    const bool is_one_link = profile.link_bandwidth == profile.host_bandwidth;
    profile.host_bandwidth = gigabytes_per_second * 1e9;
    if (is_one_link) profile.link_bandwidth = profile.host_bandwidth;
    return profile;
}

DeviceProfile device_profile_of(const Options& options) {
    static std::map<std::string, DeviceProfile> of_files;
    const std::string& name = options.device_profile;
    if (!is_profile_file(name)) {
        const DeviceProfile* known = known_device_profile(name);
        if (known == nullptr) refuse_name(name);
        return with_link(*known, options.link_gbs);
    }
    auto found = of_files.find(name);
    if (found == of_files.end()) found = of_files.emplace(name, read_device_profile(name)).first;
    return with_link(found->second, options.link_gbs);
}

std::string describe_memory(const DeviceProfile& profile) {
    const std::string whole = fmt::format("{} of {}", format_bytes(profile.memory_bytes), profile.name);
    if (profile.reserve_bytes == 0) return whole;
    return fmt::format("{}, less {} for CUDA{}", whole, format_bytes(profile.reserve_bytes),
                       profile.reserve_bytes > (int64_t{1} << 29) ? " and the screen" : "");
}

std::string to_toml(const DeviceProfile& profile) {
    std::string text = "# A device, for train_gpt plan --device-profile=FILE: its rates, memory and links.\n";
    text += fmt::format("name = {}\nkind = {}\n", quoted(profile.name), quoted(profile.kind));
    text += fmt::format("memory-gib = {}\nreserve-gib = {}\n", static_cast<double>(profile.memory_bytes) / kGibibyte,
                        static_cast<double>(profile.reserve_bytes) / kGibibyte);
    for (const Field& field : kFields) text += fmt::format("{} = {}\n", field.name, profile.*field.member / field.unit);
    return text + fmt::format("attention-products = {}\nattention-tokens = {}\n", profile.attention_backward_products,
                              profile.attention_overhead);
}

DeviceProfile read_device_profile(const std::string& path) {
    const ProfileFile file(path);
    const std::string kind = file.text("kind", "sm_90");
    if (kind != "cpu" && !kind.starts_with("sm_")) {
        fail_usage("{}: 'kind' must be cpu, or such as sm_89, not '{}'", file.who(), kind);
    }
    // What a file does not say is as on the other cards.
    DeviceProfile profile = kind == "cpu" ? DeviceProfile() : find_device_profile("h100");
    profile.kind = kind, profile.usual_error = 0;
    profile.hopper_attention = kind == "sm_90" && !file.has("attention-forward");
    profile.name = file.text("name", path.substr(path.rfind('/') + 1));
    for (const Field& field : kFields) {
        if (field.required || file.has(field.name)) profile.*field.member = file.number(field.name) * field.unit;
    }
    if (kind != "cpu" && !file.has("card-link-gbs")) profile.link_bandwidth = profile.host_bandwidth;
    if (kind != "cpu" && !file.has("network-gbs")) profile.node_bandwidth = std::min(12.5e9, profile.link_bandwidth);
    profile.memory_bytes = static_cast<int64_t>(file.number("memory-gib") * kGibibyte);
    profile.reserve_bytes =
        file.has("reserve-gib") ? static_cast<int64_t>(file.number("reserve-gib", true) * kGibibyte) : 0;
    if (profile.usable_bytes() <= 0) {
        fail_usage("{}: 'reserve-gib' leaves nothing of 'memory-gib'", file.who());
    }
    if (file.has("attention-products")) {
        profile.attention_backward_products = static_cast<int>(file.number("attention-products"));
    }
    if (file.has("attention-tokens")) {
        profile.attention_overhead = static_cast<int64_t>(file.number("attention-tokens", true));
    }
    return profile;
}

}  // namespace llmc
