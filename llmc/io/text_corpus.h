// Text files as documents, in chunks that can be worked on apart: a text file is one document, a line of a JSON-Lines
// file is one. Files are mapped, so they may be larger than memory.
#pragma once

#include "llmc/base/file.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// A stretch of one file.
struct CorpusChunk {
    std::string_view text;
    size_t file = 0;
    bool starts_file = false;
    int64_t first_line = 0;  ///< Number of its first line, from 1.
    int64_t end_bytes = 0;   ///< Bytes of the corpus up to the end of the chunk.
};

class TextCorpus {
  public:
    /// Opens what `patterns` (files or shell patterns) name. With `jsonl_field`, every line is a JSON object whose
    /// field of that name is a document. Missing, empty or binary files are an Error that starts with `option`.
    TextCorpus(const std::vector<std::string>& patterns, std::string jsonl_field, std::string option);

    /// Bytes of all files.
    int64_t bytes() const { return bytes_; }
    size_t file_count() const { return files_.size(); }
    const std::string& path(size_t file) const { return files_[file].path(); }

    /// Where a text may be cut at or after a position; the text's size if nowhere.
    using Cut = std::function<size_t(std::string_view text, size_t from)>;
    /// The next chunk, about 256 KiB; false at the end. Where chunks end depends on the files and on `cut` alone.
    bool next(const Cut& cut, CorpusChunk* chunk);

    /// Calls visit(text, starts_document) for every text in a chunk. Lines that are not as they should be are an Error
    /// that names file and line.
    void read(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const;

  private:
    void read_lines(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const;

    std::vector<MappedFile> files_;
    std::string jsonl_field_;
    std::string option_;
    int64_t bytes_ = 0;
    // Where next() stands.
    size_t file_ = 0;
    size_t position_ = 0;
    int64_t line_ = 1;
    int64_t done_bytes_ = 0;
};

}  // namespace llmc
