// Reading files that are mapped into memory. While they are, they may be cut, or their disk may fail: the system then
// stops the reader with SIGBUS, or shows zeros up to the end of the last page.
#pragma once

#include "llmc/base/file.h"

#include <string>

namespace llmc {

/// From now on a read of a mapped file that fails ends the process with one line that names the file, and exit code 1.
/// To be called early in main().
void end_well_on_failed_reads();

/// An Error where these bytes of the file cannot be read, or where it is shorter than it was when it was mapped. For
/// who can go on without, or has something to save before the end. Reads a byte of every page.
void require_readable(const MappedFile& file, int64_t offset, int64_t bytes);

/// `copy(const std::byte* from)` takes these bytes. The same Error, also where the file is shorter once they are taken,
/// since they may be zeros of its last page then.
template <typename Copy>
void read_mapped(const MappedFile& file, int64_t offset, int64_t bytes, const Copy& copy) {
    require_readable(file, offset, bytes);
    copy(file.data() + offset);
    require_readable(file, offset, bytes);
}

/// The whole file, copied: an Error where it cannot be read.
std::string text_of(const MappedFile& file);

}  // namespace llmc
