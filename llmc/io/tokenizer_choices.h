// What a user chose about a tokenizer and its own files do not say. It is kept beside them, in a small JSON file, so
// that a copied tokenizer stays what it was.
#pragma once

#include "llmc/io/tokenizer.h"

#include <string>

namespace llmc {

/// The file's name in a tokenizer's folder.
inline constexpr const char* kChoicesFile = "train_gpt_tokenizer.json";

/// `given`, and where it says nothing what `folder` has kept. "" is no folder.
TokenizerChoices with_kept_choices(TokenizerChoices given, const std::string& folder);

/// Keeps them in `folder`, if there are any.
void keep_choices(const TokenizerChoices& choices, const std::string& folder);

}  // namespace llmc
