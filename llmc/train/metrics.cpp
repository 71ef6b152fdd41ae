#include "llmc/train/metrics.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/shallow_json.h"
#include "llmc/io/json_text.h"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

/// Shortest text that reads back as the same bits; JSON has no infinities or NaNs, they become null.
std::string number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : "null"; }

/// Calls `use` with every whole line that is an object, and its JSON. A line cut off by a crash is none.
template <typename Use>
void for_each_line(std::string_view text, Use use) {
    size_t begin = 0;
    while (begin < text.size()) {
        const size_t end = text.find('\n', begin);
        if (end == std::string_view::npos) break;
        const std::string line(text.substr(begin, end - begin));
        begin = end + 1;
        const auto json = nlohmann::json::parse(shallow_json(line), nullptr, /*allow_exceptions=*/false);
        if (json.is_object()) use(line, json);
    }
}

/// A step number; -1 where there is none.
int64_t step_of(const nlohmann::json& line) {
    const auto step = line.find("step");
    return step != line.end() && step->is_number_integer() ? step->get<int64_t>() : -1;
}

}  // namespace

std::string metrics_up_to(const std::string& path, int64_t last_step) {
    std::string kept;
    if (last_step == 0 || !path_exists(path)) return kept;
    for_each_line(read_text(path), [&](const std::string& line, const nlohmann::json& json) {
        if (step_of(json) <= last_step) kept += line + '\n';
    });
    return kept;
}

std::map<int64_t, double> validation_losses(const std::string& path) {
    std::map<int64_t, double> losses;
    if (!path_exists(path)) return losses;
    for_each_line(read_text(path), [&](const std::string&, const nlohmann::json& json) {
        if (!json.contains("val_loss")) return;
        losses[step_of(json)] = json["val_loss"].is_number() ? json["val_loss"].get<double>() : std::nan("");
    });
    return losses;
}

namespace {

double number_in(const nlohmann::json& line, const char* name) {
    const auto found = line.find(name);
    return found != line.end() && found->is_number() ? found->get<double>() : std::nan("");
}

/// Tokens of an update. Its time has three digits after the point, its speed one.
int64_t tokens_of(double ms, double per_second, int64_t usual, int64_t seq_len) {
    if (!std::isfinite(ms * per_second)) return usual;
    const double about = ms * per_second / 1e3, error = (0.5e-3 * per_second + 0.05 * ms) / 1e3;
    if (std::abs(about - static_cast<double>(usual)) <= 1.01 * error + 0.01) return usual;
    return std::llround(about / static_cast<double>(seq_len)) * seq_len;
}

void take_step(const nlohmann::json& json, int64_t step, RunHistory* history) {
    const auto at = static_cast<double>(step);
    history->loss.add(at, number_in(json, "loss"));
    history->learning_rate.add(at, number_in(json, "lr"));
    history->grad_norm.add(at, number_in(json, "grad_norm"));
    const double ms = number_in(json, "step_ms"), rate = number_in(json, "tokens_per_second");
    history->step_ms.add(at, ms);
    history->tokens_per_second.add(at, rate);
    if (const double bytes = number_in(json, "memory_bytes"); bytes > 0) {
        history->memory_bytes = static_cast<int64_t>(bytes);
    }
    if (json.contains("skipped")) ++history->skipped_steps;
}

}  // namespace

RunHistory read_history(const std::string& path, int64_t update_tokens, int64_t seq_len) {
    RunHistory history;
    if (!path_exists(path)) return history;
    const MappedFile file(path);
    for_each_line(file.text(), [&](const std::string&, const nlohmann::json& json) {
        const int64_t step = step_of(json);
        if (step < history.last_step) return;  // They ascend.
        if (json.contains("loss")) {
            take_step(json, step, &history);
            const double ms = history.step_ms.y.back(), per_second = history.tokens_per_second.y.back();
            history.tokens += tokens_of(ms, per_second, update_tokens, seq_len) - update_tokens;
        } else if (json.contains("val_loss")) {
            history.validation.add(static_cast<double>(step), number_in(json, "val_loss"));
        } else {
            return;
        }
        history.last_step = step;
    });
    history.tokens += history.last_step * update_tokens;
    return history;
}

std::vector<std::pair<int64_t, std::string>> read_samples(const std::string& path) {
    std::vector<std::pair<int64_t, std::string>> samples;
    if (!path_exists(path)) return samples;
    for_each_line(read_text(path), [&](const std::string&, const nlohmann::json& json) {
        if (!json.contains("sample") || !json["sample"].is_string()) return;
        samples.emplace_back(step_of(json), json["sample"].get<std::string>());
    });
    return samples;
}

MetricsFile::~MetricsFile() { close(); }

bool MetricsFile::is_at(const std::string& path) const { return file_ != nullptr && is_same_file(fileno(file_), path); }

void MetricsFile::close() {
    if (file_ != nullptr) std::fclose(std::exchange(file_, nullptr));
}

void MetricsFile::open(const std::string& path, int64_t last_step) {
    close();
    path_ = path;
    const std::string kept = metrics_up_to(path, last_step);
    if (path_exists(path) && kept != read_text(path)) write_text_atomically(path, kept);
    file_ = std::fopen(path.c_str(), "a");
    if (file_ == nullptr) fail("cannot write '{}': {}; choose another --output-dir", path, std::strerror(errno));
    sync_directory(std::filesystem::path(path).parent_path().string());
}

void MetricsFile::sync() const {
    if (file_ == nullptr || fdatasync(fileno(file_)) == 0) return;
    fail("cannot write '{}' to the disk: {}", path_, std::strerror(errno));
}

void MetricsFile::write(const StepMetrics& m) {
    std::string line = fmt::format(R"({{"step":{},"loss":{},"lr":{},"grad_norm":{})", m.step, number(m.loss),
                                   number(m.learning_rate), number(m.grad_norm));
    line += fmt::format(R"(,"step_ms":{:.3f},"tokens_per_second":{:.1f})", m.step_ms, m.tokens_per_second);
    line += fmt::format(R"(,"mfu":{},"memory_bytes":{})", m.mfu > 0 ? fmt::format("{:.4f}", m.mfu) : "null",
                        m.memory_bytes);
    if (m.scored_tokens > 0) line += fmt::format(R"(,"scored_tokens":{})", m.scored_tokens);
    if (!m.checksum.empty()) line += fmt::format(R"(,"parameters":"{}")", m.checksum);
    write_line(line + (m.skipped ? R"(,"skipped":true})" : "}"));
}

void MetricsFile::write_validation(int64_t step, double loss) {
    write_line(fmt::format(R"({{"step":{},"val_loss":{}}})", step, number(loss)));
}

void MetricsFile::write_sample(int64_t step, const std::string& text) {
    write_line(fmt::format(R"({{"step":{},"sample":{}}})", step, json_text(text)));
}

void MetricsFile::write_line(const std::string& line) {
    if (file_ == nullptr) return;
    if (std::fprintf(file_, "%s\n", line.c_str()) < 0 || std::fflush(file_) != 0) {
        fail("cannot write '{}': {}", path_, std::strerror(errno));
    }
}

}  // namespace llmc
