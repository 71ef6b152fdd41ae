// Memory that is not needed for now.
#pragma once

#include <cstddef>
#include <span>

namespace llmc {

/// Takes a part of a mapped file that has been read out of this process's memory. It stays what it is: whoever reads it
/// again gets it from the system's cache, or from the disk. Of a model's file, which is read once, the whole would
/// count as resident otherwise. Of memory that is no file's the content is lost: it is zero, and resident again where
/// it is touched.
void drop_pages(std::span<const std::byte> mapped);

}  // namespace llmc
