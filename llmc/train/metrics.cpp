#include "llmc/train/metrics.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cmath>
#include <cstring>

namespace llmc {
namespace {

/// Shortest text that reads back as the same bits; JSON has no infinities or NaNs, they become null.
std::string number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : "null"; }

/// Calls `use` with every whole line that is an object, and its JSON. A line cut off by a crash is none.
template <typename Use>
void for_each_line(const std::string& text, Use use) {
    size_t begin = 0;
    while (begin < text.size()) {
        const size_t end = text.find('\n', begin);
        if (end == std::string::npos) break;
        const std::string line = text.substr(begin, end - begin);
        begin = end + 1;
        const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
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

MetricsFile::~MetricsFile() {
    if (file_ != nullptr) std::fclose(file_);
}

void MetricsFile::open(const std::string& path, int64_t last_step) {
    path_ = path;
    if (file_ != nullptr) std::fclose(file_);
    const std::string kept = metrics_up_to(path, last_step);
    if (path_exists(path) && kept != read_text(path)) write_text_atomically(path, kept);
    file_ = std::fopen(path.c_str(), "a");
    if (file_ == nullptr) fail("cannot write '{}': {}; choose another --output-dir", path, std::strerror(errno));
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

void MetricsFile::write_line(const std::string& line) {
    if (file_ == nullptr) return;
    if (std::fprintf(file_, "%s\n", line.c_str()) < 0 || std::fflush(file_) != 0) {
        fail("cannot write '{}': {}", path_, std::strerror(errno));
    }
}

}  // namespace llmc
