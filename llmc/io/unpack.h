// Packed files of data: gzip (RFC 1952) and zstd (RFC 8878), unpacked into a file without a name, so that they may be
// larger than memory like any other.
#pragma once

#include "llmc/base/file.h"

#include <string>
#include <string_view>

namespace llmc {

/// "gzip", "zstd", or "" for content that is not packed by either.
std::string packing_of(std::string_view content);

/// The content of a file packed so, under the packed file's name. One that is cut or damaged is an Error that names
/// `option` and the file.
MappedFile unpack(const MappedFile& packed, const std::string& packing, const std::string& option);

/// All that comes from standard input, under the name "-".
MappedFile read_standard_input(const std::string& option);

}  // namespace llmc
