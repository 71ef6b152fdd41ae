#include "llmc/base/log.h"

#include "llmc/base/error.h"
#include "llmc/base/printable.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <unistd.h>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// Lines so far, for a file that is opened later.
std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> earlier_lines;
constexpr size_t kEarlierLines = 1000;
/// The file that lines go to.
std::shared_ptr<spdlog::sinks::sink> file_sink;

/// Lines by a pattern, with what no terminal can show escaped: names of files may be any bytes.
class PrintableFormatter final : public spdlog::formatter {
  public:
    explicit PrintableFormatter(std::string pattern) : pattern_(std::move(pattern)), lines_(pattern_) {}
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
        const std::string text = printable({message.payload.data(), message.payload.size()});
        spdlog::details::log_msg shown = message;
        shown.payload = text;
        lines_.format(shown, line);
        message.color_range_start = shown.color_range_start;
        message.color_range_end = shown.color_range_end;
    }
    std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<PrintableFormatter>(pattern_); }

  private:
    std::string pattern_;
    spdlog::pattern_formatter lines_;
};

}  // namespace

void init_log(const std::string& level) {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    sink->set_formatter(std::make_unique<PrintableFormatter>(isatty(STDERR_FILENO) ? "%^%v%$" : "%H:%M:%S %L %v"));
    earlier_lines = std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(kEarlierLines);
    auto logger = std::make_shared<spdlog::logger>("train_gpt", spdlog::sinks_init_list{sink, earlier_lines});
    logger->set_level(spdlog::level::from_str(level));
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(logger);
}

void quieten_log(int rank, const std::string& level) {
    const auto& logger = spdlog::default_logger();
    logger->set_formatter(std::make_unique<PrintableFormatter>(fmt::format("%H:%M:%S %L rank {}: %v", rank)));
    if (level != "debug") logger->set_level(std::max(logger->level(), spdlog::level::warn));
}

void log_to_file(const std::string& path) {
    try {
        auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
        sink->set_formatter(std::make_unique<PrintableFormatter>("%Y-%m-%d %H:%M:%S %L %v"));
        auto& sinks = spdlog::default_logger()->sinks();
        if (earlier_lines != nullptr) {
            for (const auto& line : earlier_lines->last_raw()) sink->log(line);
            std::erase(sinks, earlier_lines);
            earlier_lines.reset();
        }
        std::erase(sinks, file_sink);
        sinks.push_back(sink);
        file_sink = sink;
    } catch (const spdlog::spdlog_ex& error) {
        fail("cannot write the log '{}' ({}); choose another --output-dir", path, error.what());
    }
}

double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ProgressBar::ProgressBar(std::string label, int64_t total)
    : label_(std::move(label)), total_(total), enabled_(total > 0 && isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() {
    if (enabled_ && last_draw_ > 0) std::fprintf(stderr, "\r\033[K");
}

void ProgressBar::update(int64_t done) {
    if (!enabled_ || now_seconds() - last_draw_ < 0.1) return;
    last_draw_ = now_seconds();
    constexpr int kWidth = 30;
    const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    const int filled = static_cast<int>(share * kWidth);
    std::fprintf(stderr, "\r%s [%s%s] %3.0f%%", label_.c_str(), std::string(filled, '#').c_str(),
                 std::string(kWidth - filled, '.').c_str(), share * 100);
}

}  // namespace llmc
