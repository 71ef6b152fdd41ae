// Chat templates: what makes one text of a conversation, and says which of it a model is to write. A model's folder has
// one (tokenizer_config.json, chat_template.jinja); those of some families are known by name.
#pragma once

#include "llmc/io/chat/row.h"
#include "llmc/io/jinja/template.h"

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// Names of tokens by role, as tokenizer_config.json gives them: "bos_token" -> "<s>".
using TokenRoles = std::map<std::string, std::string>;

struct RenderedChat {
    std::string text;
    /// Where the contents of the messages stand in it, `source` being a message's index.
    std::vector<TextOrigin> contents;
    /// What {% generation %} blocks wrote; bytes [begin, end).
    std::vector<std::pair<size_t, size_t>> generations;
};

class ChatTemplate {
  public:
    /// `name` is for messages. An Error if the template has what is not supported.
    ChatTemplate(const std::string& source, const std::string& name, TokenRoles roles);
    /// An Error if the template refuses the conversation.
    RenderedChat render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
    bool has_generation() const { return template_.has_generation(); }
    const std::string& source() const { return source_; }
    const std::string& name() const { return template_.name(); }
    const TokenRoles& roles() const { return roles_; }
    /// The name of a role's token; "" where there is none.
    std::string token(const char* role) const;

  private:
    std::string source_;
    JinjaTemplate template_;
    TokenRoles roles_;
};

/// The roles that a folder's files give tokens.
TokenRoles token_roles(const std::string& folder);

/// The template that `choice` names: a family ("chatml", "llama2", "llama3", "mistral", "zephyr", "qwen"), a file, or a
/// folder with one; where it is "", that of `folder`, a tokenizer's or "". Nothing if there is none; an Error that
/// begins with --chat-template or names the file if it cannot be read.
std::optional<ChatTemplate> find_chat_template(const std::string& choice, const std::string& folder);

/// Keeps the template that `choice` names in a tokenizer's folder, as chat_template.jinja, so that it goes on with the
/// tokenizer. Nothing if `choice` is "", or the folder is not there.
void keep_chat_template(const std::string& choice, const std::string& folder);

/// "chatml, llama2, llama3, mistral, zephyr, qwen".
std::string chat_template_names();
bool is_chat_template_name(const std::string& name);

/// Where an answer's end is marked: the end of the name of a token that ends turns, at `from` or behind white space
/// there; `from` if there is none. `eos` is one more such name, or "".
size_t end_of_turn(std::string_view text, size_t from, const std::string& eos);

}  // namespace llmc
