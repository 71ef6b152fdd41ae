// Encoding whole files on several threads, with the result of one.
#pragma once

#include "llmc/io/special_names.h"
#include "llmc/io/text_corpus.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <functional>
#include <span>

namespace llmc {

/// Takes the tokens of a chunk, end-of-text in front of every document that begins in it.
using TakeTokens = std::function<void(const CorpusChunk& chunk, std::span<const int32_t> tokens)>;

/// Encodes the corpus and calls `take` for its chunks in their order. Holds a few chunks for each thread. At the end it
/// warns of lines that were passed over, and of names of special tokens that were read as text; or counts those in
/// `names`, for whoever encodes several.
void encode_corpus(TextCorpus& corpus, const Tokenizer& tokenizer, SpecialTokens special, int threads,
                   const TakeTokens& take, SpecialNames* names = nullptr);

/// `threads`; if that is 0, OMP_NUM_THREADS, or one for every core. As many as are possible, see threads.h.
int threads_or_all(int64_t threads);

}  // namespace llmc
