// What a process says where no catch of main() can: in a signal handler, or for an exception that left a thread or a
// parallel loop, most often because memory was refused there.
#pragma once

#include <initializer_list>

namespace llmc {

/// An error line like the log's on stderr, of these parts one after another. Allocates nothing, takes no lock: may be
/// called in a signal handler.
void write_last_line(std::initializer_list<const char*> parts) noexcept;

/// From now on an exception that nobody catches ends the process with one such line and exit code 1. To be called early
/// in main().
void end_with_last_words();

}  // namespace llmc
