// What is UTF-8 and what is not.
#pragma once

#include <cstddef>
#include <string_view>

namespace llmc {

/// Bytes at the beginning of `text` that are valid UTF-8 (RFC 3629: no surrogates, nothing overlong).
size_t valid_utf8_prefix(std::string_view text);

}  // namespace llmc
