// What is logged as a warning while a test looks.
#pragma once

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <sstream>
#include <string>

namespace llmc {

/// Takes the log's place until its end.
class Warnings {
  public:
    Warnings() : before_(spdlog::default_logger()) {
        auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(text_);
        sink->set_pattern("%v");
        sink->set_level(spdlog::level::warn);
        spdlog::set_default_logger(std::make_shared<spdlog::logger>("warnings", std::move(sink)));
    }
    ~Warnings() { spdlog::set_default_logger(before_); }
    Warnings(const Warnings&) = delete;
    Warnings& operator=(const Warnings&) = delete;

    /// A line for each.
    std::string text() const { return text_.str(); }
    long count() const {
        const std::string all = text_.str();
        return std::count(all.begin(), all.end(), '\n');
    }

  private:
    std::shared_ptr<spdlog::logger> before_;
    std::ostringstream text_;
};

}  // namespace llmc
