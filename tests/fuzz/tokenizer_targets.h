// Files of tokenizers, of every kind that make_tokenizer() takes.
#pragma once

#include "tests/fuzz/targets.h"

#include <string>
#include <vector>

namespace llmc {

/// Valid files are made in `folder`.
std::vector<FuzzTarget> tokenizer_targets(const std::string& folder);

}  // namespace llmc
