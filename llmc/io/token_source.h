// Training data as one long row of token ids, whatever the files behind it: text files read as bytes (text_file.h) or
// llm.c token files (token_file.h), memory-mapped and never copied whole.
#pragma once

#include "llmc/io/data_file.h"
#include "llmc/io/data_paths.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace llmc {

class TokenFile;

/// What is known of a token beside its id; bits that are or-ed.
enum Mark : uint8_t {
    kScored = 1,         ///< The loss counts how well it is predicted.
    kDocumentStart = 2,  ///< The first of a document.
};

/// Tokens 0 .. size() - 1. Immutable: any number of threads may read at once.
class TokenSource {
  public:
    virtual ~TokenSource() = default;
    /// Number of tokens.
    virtual int64_t size() const = 0;
    /// Copies tokens [position, position + out.size()) to `out`. Ids are not checked against any vocabulary.
    virtual void read(int64_t position, std::span<int32_t> out) const = 0;
    /// Whether its documents have parts that are not scored: instruction data. Otherwise every token is scored, and
    /// end_of_text() starts a document.
    virtual bool is_marked() const { return false; }
    /// A byte of Marks for each of the tokens [position, position + out.size()).
    virtual void read_marks(int64_t position, std::span<uint8_t> out) const;
    /// File and offset of a token, for messages: "'notes.txt' at byte 12".
    virtual std::string where(int64_t position) const = 0;
    /// Vocabulary that tokenizer or format imply; every id is smaller unless the data is wrong.
    virtual int32_t vocab_size() const = 0;
    /// The id that precedes every document.
    virtual int32_t end_of_text() const = 0;
    /// The tokenizer these ids come from, as make_tokenizer() takes it.
    virtual std::string tokenizer() const = 0;
    /// What it is, for the start-up banner: "text file 'notes.txt', read as bytes".
    virtual std::string describe() const = 0;
    /// The files whose ids only a look at all of them can check (token_scan.h).
    virtual std::vector<const TokenFile*> token_files() const { return {}; }
};

/// Several sources of one kind, one after the other.
class JoinedSource final : public TokenSource {
  public:
    /// At least one part; all share vocabulary and tokenizer.
    explicit JoinedSource(std::vector<std::unique_ptr<TokenSource>> parts);
    int64_t size() const override { return starts_.back(); }
    void read(int64_t position, std::span<int32_t> out) const override;
    bool is_marked() const override;
    void read_marks(int64_t position, std::span<uint8_t> out) const override;
    std::string where(int64_t position) const override;
    int32_t vocab_size() const override { return parts_[0]->vocab_size(); }
    int32_t end_of_text() const override { return parts_[0]->end_of_text(); }
    std::string tokenizer() const override { return parts_[0]->tokenizer(); }
    std::string describe() const override;
    std::vector<const TokenFile*> token_files() const override;

  private:
    size_t part_of(int64_t position) const;
    template <typename T, typename Read>
    void read_parts(int64_t position, std::span<T> out, const Read& read) const;

    std::vector<std::unique_ptr<TokenSource>> parts_;
    std::vector<int64_t> starts_;  ///< First position of every part, then the total.
};

/// Opens what `pattern` (data_paths()) names, each as open_data_file() finds it to be. Text is encoded by `tokenizer`,
/// without one as bytes; token files are taken for its work, without one for that of the tokenizer that stands beside
/// them (token_file.h). Missing, empty, truncated or mixed files, and those of no known kind, are an Error that starts
/// with `option`, "--data" or "--val-data". An empty file among others is skipped with a warning.
std::unique_ptr<TokenSource> open_token_source(const std::string& pattern, const std::string& option,
                                               const Tokenizer* tokenizer = nullptr, const DataReading& reading = {},
                                               FolderUse use = FolderUse::All);

/// A view of tokens [first, first + size) of a source, which must outlive it.
class TokenRange {
  public:
    TokenRange(const TokenSource& source, int64_t first, int64_t size);
    explicit TokenRange(const TokenSource& source) : TokenRange(source, 0, source.size()) {}
    int64_t first() const { return first_; }
    int64_t size() const { return size_; }
    void read(int64_t position, std::span<int32_t> out) const;
    bool is_marked() const { return source_->is_marked(); }
    void read_marks(int64_t position, std::span<uint8_t> out) const;
    std::string where(int64_t position) const { return source_->where(first_ + position); }

  private:
    const TokenSource* source_;
    int64_t first_;
    int64_t size_;
};

struct TokenSplit {
    TokenRange train;
    TokenRange validation;
};

/// Without --val-data: the last 5 % of the training data is held out, or T + 1 tokens where that is more; of marked
/// data documents, at least one. An Error that says how much is needed if the data is too short for both parts to hold
/// T + 1 tokens, or a document.
TokenSplit split_off_validation(const TokenSource& source, int64_t T);

/// An Error if the data named by `option` does not hold one sequence of T tokens and the token after it.
void require_one_sequence(const TokenRange& range, int64_t T, const std::string& option);

}  // namespace llmc
