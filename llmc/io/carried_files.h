// Files that travel with a model without being changed: those of its tokenizer, as Hugging Face folders hold them. They
// go from the folder the model came from to the run's own (RUN/tokenizer), and from there to an export.
#pragma once

#include <string>

namespace llmc {

/// RUN/tokenizer.
std::string tokenizer_folder_of_run(const std::string& run_folder);

/// The folder itself, as the reference make_tokenizer() takes, if it has a tokenizer's files; else "none".
std::string tokenizer_in(const std::string& folder);

/// Copies the tokenizer's files, and generation_config.json with the ids of the special tokens (made from config.json
/// where only that has them). `to` is created if there is anything to copy. Nothing happens if `from` is empty or
/// is `to`. Not `all`: only what belongs to a tokenizer, but makes none.
void copy_tokenizer_files(const std::string& from, const std::string& to, bool all = true);

/// Ids of special tokens in the folder's generation_config.json or config.json, as hf_token_ids() gives them; "{}" if
/// it has neither.
std::string special_token_ids(const std::string& folder);

}  // namespace llmc
