// Standard output: what a user asked a command for. A command whose output cannot be written has failed.
#pragma once

#include <string_view>

namespace llmc {

/// 128 + SIGPIPE: what a shell reports of a program whose reader has gone, as in `| head`.
constexpr int kExitReaderGone = 141;

/// Writes to standard output, through its buffer. Fails with an Error that has the system's reason; if the reader of a
/// pipe has enough, with exit code kExitReaderGone and no words.
void print_output(std::string_view text);

/// The same for what is still in the buffer.
void flush_output();

/// For output that is not the command's result: prints and flushes; what cannot be written is a warning, once.
/// `what` it is, for that.
void try_print_output(std::string_view text, std::string_view what);

/// Fails as flush_output() does if try_print_output() ever could not write, but not where a reader has gone.
void require_whole_output();

}  // namespace llmc
