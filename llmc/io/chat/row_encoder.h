// Rows of instruction data as tokens, each scored or not. The whole text of a row is encoded at once, with special
// tokens as their ids and none added: a template writes its own.
#pragma once

#include "llmc/io/chat/chat_template.h"
#include "llmc/io/chat/row.h"
#include "llmc/io/chat/span_encoder.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Which tokens of a row count as targets. Plain texts are scored whole, prompt and completion in texts by their
/// completion, unless all is asked for.
enum class Scored : uint8_t {
    Assistant,   ///< Every answer, with the token that ends it; what {% generation %} blocks wrote, if there are any.
    All,         ///< Everything but a token in front of the text.
    Completion,  ///< The last answer, or all that a completion has.
};
/// "assistant", "all" or "completion".
Scored scored_by_name(const std::string& name);

/// How rows become tokens.
struct ChatFormat {
    Scored scored = Scored::Assistant;
    std::optional<ChatTemplate> chat_template;  ///< Where there is none, conversations are refused.
    std::string bos, eos;                       ///< Around plain texts and completions; "" where there is none.

    /// What the options say, and the tokenizer's folder besides. Where nothing names a token, the one that separates
    /// documents is both.
    ChatFormat(const Tokenizer& tokenizer, const std::string& chat_template_choice, Scored what);
};

/// The folder of a tokenizer's files, by its reference; "" where it has none.
std::string folder_of_tokenizer(const std::string& reference);

struct EncodedRow {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> marks;  ///< Mark (token_source.h) of each.
    int64_t scored = 0;          ///< Of all but the first, which nothing predicts.
    int64_t open_answers = 0;    ///< Scored answers without a token that ends the turn.
};

/// A text, its marks, and what was asked to be scored of it.
struct ScoredText {
    std::string text;
    std::vector<SpanEncoder::Stretch> stretches;  ///< Ordered, without overlaps.
    int64_t open_answers = 0;
};

/// What of a conversation's text is scored.
ScoredText score_chat(const ChatTemplate& chat_template, const ChatRow& row, Scored scored);

/// One thread's. `format` and `lengths` must outlive it.
class RowEncoder {
  public:
    RowEncoder(const ChatFormat& format, const TokenLengths& lengths);
    /// An Error if there is no template for a conversation, the template refuses it, or its text begins with two
    /// tokens that begin a text.
    EncodedRow encode(const ChatRow& row);

  private:
    void encode_text(const ScoredText& text, EncodedRow* row);
    void require_one_bos(const EncodedRow& row) const;

    const ChatFormat& format_;
    const TokenLengths& lengths_;
    SpanEncoder encoder_;
    int32_t bos_id_;
};

}  // namespace llmc
