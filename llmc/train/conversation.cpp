#include "llmc/train/conversation.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <algorithm>
#include <utility>

namespace llmc {

Conversation::Conversation(ChatTemplate chat_template, const Tokenizer& tokenizer, const std::string& system)
    : template_(std::move(chat_template)), tokenizer_(tokenizer), first_turn_(system.empty() ? 0 : 1) {
    if (!system.empty()) messages_.push_back({"system", system});
    std::vector<ChatMessage> example = messages_;
    example.push_back({"user", "question"});
    example.push_back({"assistant", "answer"});
    turn_end_ = find_turn_end(example);
}

/// What the template puts behind the last message, an answer.
std::string Conversation::find_turn_end(const std::vector<ChatMessage>& messages) const {
    const RenderedChat chat = template_.render(messages, /*add_generation_prompt=*/false);
    const auto last = static_cast<int32_t>(messages.size() - 1);
    size_t place = std::string::npos;
    for (const TextOrigin& origin : chat.contents) {
        if (origin.source == last) place = origin.end;
    }
    if (place == std::string::npos) return "";
    const size_t end = end_of_turn(chat.text, place, template_.token("eos_token"));
    const size_t begin = std::min(chat.text.find_first_not_of(" \t\r\n", place), end);
    return chat.text.substr(begin, end - begin);
}

std::vector<int32_t> Conversation::encoded() const {
    const RenderedChat chat = template_.render(messages_, /*add_generation_prompt=*/true);
    std::vector<int32_t> tokens;
    tokenizer_.make_encoder(SpecialTokens::AsIds)->encode(chat.text, /*continues=*/false, &tokens);
    if (tokens.empty()) fail("--chat: the chat template {} makes an empty text of the turn", template_.name());
    return tokens;
}

std::vector<int32_t> Conversation::ask(const std::string& question, int64_t most) {
    messages_.push_back({"user", question});
    std::vector<int32_t> tokens = encoded();
    bool has_forgotten = false;
    while (static_cast<int64_t>(tokens.size()) > most && messages_.size() > first_turn_ + 1) {
        // A question and its answer, if it has one; never the last question.
        const size_t count = std::min<size_t>(2, messages_.size() - first_turn_ - 1);
        const auto first = messages_.begin() + static_cast<std::ptrdiff_t>(first_turn_);
        messages_.erase(first, first + static_cast<std::ptrdiff_t>(count));
        has_forgotten = true;
        tokens = encoded();
    }
    if (has_forgotten) spdlog::warn("--chat: the oldest turns are forgotten: they do not fit in the model's context");
    if (static_cast<int64_t>(tokens.size()) <= most) return tokens;
    messages_.pop_back();
    fail(
        "--chat: the turn has {} tokens with its template, and the model's context leaves room for {}; ask with fewer "
        "words",
        tokens.size(), most);
}

void Conversation::answer(const std::string& text) { messages_.push_back({"assistant", text}); }

}  // namespace llmc
