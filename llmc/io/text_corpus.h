// Text files as documents, in chunks that can be worked on apart: a text file is one document, a line of a JSON-Lines
// file is one. Files are mapped, so they may be larger than memory.
#pragma once

#include "llmc/io/data_file.h"

#include <cstdint>
#include <functional>
#include <mutex>
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

/// Opens what `patterns` name, as TextCorpus() has them. An empty file is a warning.
std::vector<DataFile> open_data_files(const std::vector<std::string>& patterns, const DataReading& reading,
                                      const std::string& option);

class TextCorpus {
  public:
    /// Opens what `patterns` (files, shell patterns, folders, "-") name. With a --jsonl-field, every line is a JSON
    /// object whose field of that name is a document. Missing files, no text at all, and files that are no text are an
    /// Error that starts with `option`.
    TextCorpus(const std::vector<std::string>& patterns, const DataReading& reading, std::string option);
    /// Files that are open already, some of them with text.
    TextCorpus(std::vector<DataFile> files, const DataReading& reading, std::string option);
    /// One file of text that is open already.
    TextCorpus(DataFile file, const DataReading& reading, std::string option);

    /// Bytes of all files.
    int64_t bytes() const { return bytes_; }
    const std::string& path(size_t file) const { return files_[file].path(); }

    /// Where a text may be cut at or after a position; the text's size if nowhere.
    using Cut = std::function<size_t(std::string_view text, size_t from)>;
    /// The next chunk, about 256 KiB; false at the end. Where chunks end depends on the files and on `cut` alone.
    bool next(const Cut& cut, CorpusChunk* chunk);

    /// Calls visit(text, starts_document) for every text in a chunk. Lines that are not as they should be are an Error
    /// that names file and line, or with --skip-bad-lines passed over and counted. Any number of threads at once.
    void read(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const;

    /// Says how many lines were passed over so far, and why the first one was.
    void report_skipped_lines() const;

    const std::string& option() const { return option_; }
    /// "'notes.txt' from byte 0 on", for messages.
    std::string where(const CorpusChunk& chunk) const;

  private:
    void add(DataFile file);
    void read_lines(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const;
    void skip_or_refuse(const CorpusChunk& chunk, int64_t line, const std::string& what) const;

    struct SkippedLines {
        std::mutex mutex;
        int64_t count = 0;
        size_t file = 0;   ///< Of the first,
        int64_t line = 0;  ///< its number,
        std::string what;  ///< and what is wrong with it.
    };

    std::vector<MappedFile> files_;
    DataReading reading_;
    std::string option_;
    mutable SkippedLines skipped_;
    int64_t bytes_ = 0;
    // Where next() stands.
    size_t file_ = 0;
    size_t position_ = 0;
    int64_t line_ = 1;
    int64_t done_bytes_ = 0;
};

}  // namespace llmc
