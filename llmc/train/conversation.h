// A conversation with a model, for `generate --chat`: its turns, their text by a chat template, and where an answer
// ends.
#pragma once

#include "llmc/io/chat/chat_template.h"
#include "llmc/io/chat/row.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

class Conversation {
  public:
    /// `tokenizer` must outlive it. `system` may be "".
    Conversation(ChatTemplate chat_template, const Tokenizer& tokenizer, const std::string& system);

    /// Adds a turn of the user and returns the tokens to answer: the template's text with its generation prompt. Where
    /// these are more than `most`, the oldest turns are forgotten, with a warning, as far as that helps. An Error if
    /// the template refuses the conversation, or the turn alone is too long.
    std::vector<int32_t> ask(const std::string& question, int64_t most);
    /// Adds the answer to it.
    void answer(const std::string& text);

    /// The name of the token, or the text, with which the template ends an answer; "" if there is none.
    const std::string& turn_end() const { return turn_end_; }
    const ChatTemplate& chat_template() const { return template_; }

  private:
    std::vector<int32_t> encoded() const;
    std::string find_turn_end(const std::vector<ChatMessage>& messages) const;

    ChatTemplate template_;
    const Tokenizer& tokenizer_;
    std::vector<ChatMessage> messages_;
    size_t first_turn_;  ///< 1 behind a system message.
    std::string turn_end_;
};

}  // namespace llmc
