// Logging: spdlog on stderr, one line per event. What a user asked for (samples, plans, tables) goes to stdout instead.
#pragma once

#include <spdlog/spdlog.h>

#include <cstdint>
#include <string>

namespace llmc {

/// Sets up the logger: stderr, colour on a terminal, no time stamps on a terminal and short ones otherwise.
/// `level` is one of "debug", "info", "warn", "error".
void init_log(const std::string& level);

/// From now on only warnings and errors, each with the rank: rank 0 speaks for what all ranks do alike. `level` as
/// above; "debug" shows all.
void quieten_log(int rank, const std::string& level);

/// Also appends every line, with its time, to `path` (the run folder's log), those so far included; the log of an
/// earlier call gets no more. What cannot be written there, then or later, is said on stderr, once, and ends nothing.
void log_to_file(const std::string& path);

/// A line below those of the log while something goes on: how far it is. The next call replaces it, "" takes it away,
/// and lines of the log come above it. Cut to the width of the terminal; nothing is shown where stderr is none. Any
/// thread may call it.
void show_status(const std::string& line);

/// Whether show_status() shows anything.
bool shows_status();

/// A one-line progress bar for long silent work, as a status. Erased at the end.
class ProgressBar {
  public:
    ProgressBar(std::string label, int64_t total);
    ~ProgressBar();
    ProgressBar(const ProgressBar&) = delete;
    ProgressBar& operator=(const ProgressBar&) = delete;
    /// Work done so far, in the units of `total`. Draws at most ten times a second.
    void update(int64_t done);

  private:
    std::string label_;
    int64_t total_;
    bool enabled_;
    double last_draw_ = 0;
};

/// Seconds on a steady clock.
double now_seconds();

}  // namespace llmc
