// Memory of mapped files.
#pragma once

#include <cstddef>
#include <span>

namespace llmc {

/// Takes a part of a mapped file that has been read out of this process's memory. It stays what it is: whoever reads it
/// again gets it from the system's cache, or from the disk. Of a model's file, which is read once, the whole would
/// count as resident otherwise.
void drop_pages(std::span<const std::byte> mapped);

}  // namespace llmc
