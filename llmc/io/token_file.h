// Token files of llm.c: a header of 256 int32 (magic, version, number of tokens, zeros), then the token ids, uint16 for
// GPT-2 and uint32 for Llama 3, little-endian. Shards are named <name>_train_000000.bin, <name>_val_000000.bin.
// Format: https://github.com/karpathy/llm.c, dev/data/data_common.py. nanoGPT writes the ids alone.
#pragma once

#include "llmc/io/data_file.h"
#include "llmc/io/marks_file.h"
#include "llmc/io/token_source.h"
#include "llmc/io/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// One of the two kinds.
struct TokenFormat {
    const char* name;
    int32_t magic;
    int32_t version;
    int32_t item_bytes;
    int32_t vocab_size;
    int32_t end_of_text;
};
constexpr TokenFormat kGpt2Tokens = {"GPT-2", 20240520, 1, 2, 50257, 50256};
constexpr TokenFormat kLlama3Tokens = {"Llama 3", 20240801, 7, 4, 128256, 128000};
constexpr int64_t kTokenFileHeaderBytes = 1024;

/// Whether a file starts with the magic number of a token file.
bool is_token_file(std::span<const std::byte> bytes);

/// The kind for a tokenizer: GPT-2's where 16 bits hold every id, else Llama 3's, with the tokenizer's own vocabulary
/// and end-of-text.
TokenFormat format_for(const Tokenizer& tokenizer);

/// The folder NAME_tokenizer, which `tokenize` leaves beside NAME_train_000000.bin; empty if there is none.
std::string tokenizer_beside(const std::string& path);

/// Of token files NAME_*.bin that a `tokenize` has not finished the one that is renamed last, NAME_train_000000.bin, by
/// its temporary name; else empty.
std::string unfinished_shard(const std::string& name);

/// One token file, with llm.c's header or none, memory-mapped. More than 2 GiB is fine. With a file of marks beside it
/// (marks_file.h) it is instruction data.
class TokenFile final : public TokenSource {
  public:
    /// Checks the header and the file's size, and that the files it belongs to are all there (unfinished_shard()); an
    /// Error naming `option` if not. `tokenizer` is what made the ids, where that is known; the vocabulary and
    /// end-of-text are then its own, not those of the format.
    TokenFile(DataFile file, const std::string& option, const Tokenizer* tokenizer = nullptr);
    int64_t size() const override { return count_; }
    void read(int64_t position, std::span<int32_t> out) const override;
    bool is_marked() const override { return marks_.has_value(); }
    void read_marks(int64_t position, std::span<uint8_t> out) const override;
    std::string where(int64_t position) const override;
    int32_t vocab_size() const override { return vocab_size_; }
    int32_t end_of_text() const override { return end_of_text_; }
    std::string tokenizer() const override { return tokenizer_; }
    std::string describe() const override;
    std::vector<const TokenFile*> token_files() const override { return {this}; }

    const std::string& path() const { return file_.path(); }
    int64_t item_bytes() const { return format_->item_bytes; }
    /// Largest of the ids [first, first + count), unsigned.
    uint32_t largest(int64_t first, int64_t count) const;

  private:
    void check_header(const std::string& option);
    const std::byte* items() const { return file_.data() + header_bytes_; }

    std::string what_;  ///< For describe().
    MappedFile file_;
    std::optional<MarksFile> marks_;
    const TokenFormat* format_ = nullptr;
    int64_t header_bytes_ = 0;
    int64_t count_ = 0;
    int32_t vocab_size_ = 0;
    int32_t end_of_text_ = -1;
    std::string tokenizer_ = "none";
};

/// Writes <prefix>_000000.bin, <prefix>_000001.bin, ... with at most `shard_tokens` tokens each. Holds one shard in
/// memory, because its header comes first. Until close() they have temporary names, and without it, or where it fails,
/// they are removed.
class TokenShardWriter {
  public:
    TokenShardWriter(std::string prefix, const TokenFormat& format, int64_t shard_tokens = 100'000'000);
    ~TokenShardWriter();
    TokenShardWriter(const TokenShardWriter&) = delete;
    TokenShardWriter& operator=(const TokenShardWriter&) = delete;
    /// An Error if a token is outside the format's vocabulary.
    void append(std::span<const int32_t> tokens);
    /// A document with its marks, which go into a file beside the tokens. It is never cut: a shard has at least one and
    /// ends before the document with which it would have too many tokens. Not to be mixed with append().
    void append_marked(std::span<const int32_t> tokens, std::span<const uint8_t> marks);
    /// Writes what is left and gives the files their names, the first one last. To be called once, at the end.
    void close() { close_all({this}); }
    /// The same for several that make one output: all files have their names, or, on an Error, none keeps it. The first
    /// one of the first writer is the last.
    static void close_all(std::initializer_list<TokenShardWriter*> writers);
    /// Tokens given so far.
    int64_t tokens() const { return tokens_; }
    /// Names of the files written so far.
    const std::vector<std::string>& paths() const { return paths_; }

  private:
    void add(int32_t token);
    void write_shard();

    std::string prefix_;
    TokenFormat format_;
    int64_t shard_tokens_;
    int64_t tokens_ = 0;
    bool closed_ = false;
    std::vector<std::byte> items_;
    std::vector<uint8_t> marks_;
    std::vector<std::string> paths_;
    std::vector<std::string> marks_paths_;
};

}  // namespace llmc
