// Rows of instruction data, in the forms that people have them:
//   messages           {"messages": [{"role", "content"}, ...]}; ShareGPT: {"conversations": [{"from", "value"}, ...]}
//   Alpaca             {"instruction", "input", "output"}
//   prompt/completion  {"prompt", "completion"}, both texts or both lists of messages
//   plain              {"text"}
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct ChatMessage {
    std::string role;  ///< "system", "user" or "assistant".
    std::string content;
};

struct ChatRow {
    enum class Kind : uint8_t {
        Messages,    ///< A conversation, which a template makes a text of.
        Completion,  ///< Texts: first and second.
        Plain,       ///< A text: first.
    };
    Kind kind = Kind::Plain;
    std::vector<ChatMessage> messages;
    size_t first_completion = 0;  ///< The message with which a completion begins; 0 where nothing says so.
    std::string first, second;
    /// Whether there is a word in what a model is to learn from it.
    bool has_answer() const;
};

/// Whether an object has the fields of one of the forms; "plain" counts if `plain_too`.
bool looks_like_row(const nlohmann::json& object, bool plain_too);

/// The row that `json`, one value of a file, is. What is wrong with it goes into `fault`, beginning with a verb and
/// naming the key: "has 'messages[1].content', which is a list, not a text".
ChatRow read_row(std::string_view json, std::string* fault);

}  // namespace llmc
