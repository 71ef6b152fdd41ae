#include "llmc/base/log.h"

#include "llmc/base/printable.h"
#include "llmc/base/terminal.h"
#include "llmc/base/utf8.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

constexpr const char* kLoggerName = "train_gpt";

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

/// Where lines go: to stderr, and to the file of the run folder once there is one. All of it happens under one lock,
/// for other threads write lines at any time.
class LogSink final : public spdlog::sinks::base_sink<std::mutex> {
  public:
    LogSink() {
        terminal_.set_formatter(std::make_unique<PrintableFormatter>(is_terminal_ ? "%^%v%$" : "%H:%M:%S %L %v"));
        const char* no_color = std::getenv("NO_COLOR");  // https://no-color.org
        if (no_color != nullptr && *no_color != '\0') terminal_.set_color_mode(spdlog::color_mode::never);
        // Colour is for what needs attention.
        terminal_.set_color(spdlog::level::info, std::string_view());
        terminal_.set_color(spdlog::level::debug, std::string_view());
    }
    /// Lines so far go there first.
    void open_file(const std::string& path) {
        auto file = std::make_unique<spdlog::sinks::basic_file_sink_st>(path);
        file->set_formatter(std::make_unique<PrintableFormatter>("%Y-%m-%d %H:%M:%S %L %v"));
        const std::lock_guard lock(mutex_);
        file_ = std::move(file);
        std::deque<spdlog::details::log_msg_buffer> lines;
        lines.swap(earlier_);
        for (const auto& line : lines) file_->log(line);
    }

    bool is_terminal() const { return is_terminal_; }
    void show(const std::string& status) {
        if (!is_terminal_) return;
        const std::lock_guard lock(mutex_);
        if (status.empty() && status_.empty()) return;
        status_ = first_characters(printable(status), error_columns() - 1);
        draw_status();
    }

  private:
    void draw_status() const {
        std::fprintf(stderr, "\r\033[K%s", status_.c_str());
        std::fflush(stderr);
    }
    void sink_it_(const spdlog::details::log_msg& line) override {
        if (!status_.empty()) std::fputs("\r\033[K", stderr);
        terminal_.log(line);
        if (!status_.empty()) draw_status();
        if (file_) return file_->log(line);
        earlier_.emplace_back(line);
        if (earlier_.size() > kEarlierLines) earlier_.pop_front();
    }
    void flush_() override {
        terminal_.flush();
        if (file_) file_->flush();
    }
    void set_pattern_(const std::string& pattern) override { terminal_.set_pattern(pattern); }
    void set_formatter_(std::unique_ptr<spdlog::formatter> formatter) override {
        terminal_.set_formatter(std::move(formatter));
    }

    static constexpr size_t kEarlierLines = 1000;
    const bool is_terminal_ = isatty(STDERR_FILENO) != 0;
    std::string status_;
    spdlog::sinks::stderr_color_sink_st terminal_;
    std::unique_ptr<spdlog::sinks::basic_file_sink_st> file_;
    std::deque<spdlog::details::log_msg_buffer> earlier_;  ///< For a file that is opened later.
};

/// That of the last init_log().
std::shared_ptr<LogSink> log_sink;

/// Of the log's file; lines that cannot be written there end nothing.
void say_what_is_lost(const std::string& reason) {
    static std::atomic<bool> is_said = false;
    if (is_said.exchange(true)) return;
    std::fprintf(stderr, "the log of the run folder lacks lines: %s\n", reason.c_str());
}

}  // namespace

void init_log(const std::string& level) {
    if (log_sink != nullptr && spdlog::default_logger()->name() == kLoggerName) {
        return spdlog::default_logger()->set_level(spdlog::level::from_str(level));
    }
    log_sink = std::make_shared<LogSink>();
    auto logger = std::make_shared<spdlog::logger>(kLoggerName, log_sink);
    logger->set_level(spdlog::level::from_str(level));
    logger->flush_on(spdlog::level::info);
    logger->set_error_handler(say_what_is_lost);
    spdlog::set_default_logger(logger);
}

void quieten_log(int rank, const std::string& level) {
    const auto& logger = spdlog::default_logger();
    logger->set_formatter(std::make_unique<PrintableFormatter>(fmt::format("%H:%M:%S %L rank {}: %v", rank)));
    if (level != "debug") logger->set_level(std::max(logger->level(), spdlog::level::warn));
}

void log_to_file(const std::string& path) {
    if (log_sink == nullptr) return;
    try {
        log_sink->open_file(path);
    } catch (const spdlog::spdlog_ex& error) {
        spdlog::warn("the log '{}' cannot be written ({}); the run goes on without it", path, error.what());
    }
}

double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void show_status(const std::string& line) {
    if (log_sink != nullptr) log_sink->show(line);
}

bool shows_status() { return log_sink != nullptr && log_sink->is_terminal(); }

ProgressBar::ProgressBar(std::string label, int64_t total)
    : label_(std::move(label)), total_(total), enabled_(total > 0 && shows_status()) {}

ProgressBar::~ProgressBar() {
    if (enabled_ && last_draw_ > 0) show_status("");
}

void ProgressBar::update(int64_t done) {
    if (!enabled_ || now_seconds() - last_draw_ < 0.1) return;
    last_draw_ = now_seconds();
    constexpr int kWidth = 30;
    const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    const int filled = static_cast<int>(share * kWidth);
    show_status(fmt::format("{} [{:#<{}}{:.<{}}] {:3.0f} %", label_, "", filled, "", kWidth - filled, share * 100));
}

}  // namespace llmc
