// A look at every id of token files, at the speed of memory, before a model is trained or evaluated on them. What it
// found is remembered in the user's cache folder ($XDG_CACHE_HOME/train_gpt, else ~/.cache/train_gpt), by path, size
// and time of the file, so that it happens once.
#pragma once

#include "llmc/io/token_source.h"

#include <cstdint>
#include <string>

namespace llmc {

/// Largest id of a source's token files, as an unsigned number; -1 if it has none.
int64_t largest_id(const TokenSource& source, int threads);

/// The first token of its files that is `vocab_size` or more, in words: "token 400 in 'late.bin' at token 871"; "" if
/// there is none. Reads everything up to there.
std::string find_id_beyond(const TokenSource& source, int64_t vocab_size);

}  // namespace llmc
