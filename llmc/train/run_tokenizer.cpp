#include "llmc/train/run_tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/pending_output.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/chat/chat_template.h"
#include "llmc/io/tokenizer_choices.h"
#include "llmc/io/tokenizer_files.h"

#include <filesystem>
#include <system_error>

namespace llmc {
namespace {

namespace fs = std::filesystem;

/// Copies what belongs to the tokenizer into `folder`, which is made if there is anything to copy.
void copy_run_tokenizer(const Options& options, const std::string& reference, const Origin& origin,
                        const std::string& folder) {
    const TokenizerChoices choices = {options.document_token, options.tokenizer_pattern};
    if (reference == origin.tokenizer()) {
        copy_tokenizer_files(origin.tokenizer_folder(), folder);
        keep_choices(with_kept_choices(choices, folder), folder);
    } else {
        copy_tokenizer(reference, folder, choices);
    }
    keep_chat_template(options.chat_template, folder);
}

}  // namespace

bool is_tokenizer_of_run(const std::string& reference, const std::string& run_folder) {
    if (reference.empty() || reference == "bytes" || reference == "none") return false;
    const fs::path place = tokenizer_folder_of_run(run_folder), parent = fs::path(reference).parent_path();
    std::error_code not_there;
    return fs::equivalent(reference, place, not_there) ||
           fs::equivalent(parent.empty() ? "." : parent, place, not_there);
}

void keep_run_tokenizer(const std::string& run_folder, const Options& options, const std::string& reference,
                        const Origin& origin) {
    const std::string place = tokenizer_folder_of_run(run_folder);
    if (is_tokenizer_of_run(reference, run_folder)) return copy_run_tokenizer(options, reference, origin, place);
    std::error_code error;
    fs::remove_all(place, error);
    if (error) fail("--output-dir: cannot remove '{}', which an earlier start has left: {}", place, error.message());
    PendingOutput copy(place, "--output-dir", OutputIs::Folder);
    copy.write([&] { copy_run_tokenizer(options, reference, origin, copy.temporary()); });
    if (is_directory(copy.temporary())) copy.complete();
}

}  // namespace llmc
