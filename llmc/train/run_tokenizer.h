// The tokenizer of a run, RUN/tokenizer: a copy of the files that the run goes by, so that its folder needs nothing
// else. A resume takes what it finds there (checkpointing.h), so it has to be that of this run, whole, or not there.
#pragma once

#include "llmc/train/initial_weights.h"
#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// Whether a tokenizer's reference is RUN/tokenizer itself, or a file there.
bool is_tokenizer_of_run(const std::string& reference, const std::string& run_folder);

/// Lets RUN/tokenizer be what a new run goes by, with the choices and the chat template of the options. What an earlier
/// start has left there is replaced, also where this tokenizer has no files; a reference to the place itself stays.
/// `reference` is the tokenizer's name().
void keep_run_tokenizer(const std::string& run_folder, const Options& options, const std::string& reference,
                        const Origin& origin);

}  // namespace llmc
