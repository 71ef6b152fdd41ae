// Models turn a piece of text into tokens. Read next: bpe_model.h, unigram_model.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llmc {

/// Tokens by id and by name. A name is written as in the vocabulary's file.
class TokenNames {
  public:
    /// Beyond this an id is a mistake rather than a large vocabulary.
    static constexpr int64_t kMostTokens = int64_t{1} << 22;

    /// An Error that begins with `source` if the id is impossible or has another name already, or the name another id.
    void add(const std::string& name, int64_t id, const std::string& source);
    /// The id of a name; -1 if there is none.
    int32_t id(std::string_view name) const;
    /// The name of an id; "" where it has none.
    const std::string& name(int32_t id) const { return names_[static_cast<size_t>(id)]; }
    bool has(int32_t id) const { return id >= 0 && id < limit() && is_used_[static_cast<size_t>(id)]; }
    /// The largest id + 1, and how many there are.
    int32_t limit() const { return static_cast<int32_t>(names_.size()); }
    int32_t count() const { return static_cast<int32_t>(ids_.size()); }

  private:
    struct Hash {
        using is_transparent = void;
        size_t operator()(std::string_view text) const;
    };
    std::vector<std::string> names_;
    std::vector<bool> is_used_;
    std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
};

/// Text for which a vocabulary has no token, not even one for the unknown. It is left out, and a warning says so, once.
class LostText {
  public:
    explicit LostText(std::string tokenizer) : tokenizer_(std::move(tokenizer)) {}
    void lose(std::string_view text);

  private:
    std::string tokenizer_;
    std::atomic<bool> has_warned_ = false;
};

/// One thread's use of a model.
class ModelEncoder {
  public:
    virtual ~ModelEncoder() = default;
    /// Appends the tokens of a piece.
    virtual void encode(std::string_view piece, std::vector<int32_t>* tokens) = 0;
    /// Appends the token of a byte that is no part of valid UTF-8.
    virtual void encode_byte(char byte, std::vector<int32_t>* tokens) = 0;
};

class TokenModel {
  public:
    virtual ~TokenModel() = default;
    virtual const TokenNames& names() const = 0;
    /// The model must outlive the encoder, as must `lost`.
    virtual std::unique_ptr<ModelEncoder> make_encoder(LostText& lost) const = 0;
    /// Whether no token of any piece reaches from the end of `before` into `after`, and both could be pieces.
    virtual bool never_joins(std::string_view before, std::string_view after) const = 0;
};

/// "<0x0A>".
std::string byte_name(unsigned char byte);

}  // namespace llmc
