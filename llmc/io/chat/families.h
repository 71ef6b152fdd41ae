// The templates of families that are known by name, in our own words: the texts that they make are the families'.
#pragma once

#include <string>

namespace llmc {

struct ChatFamily {
    const char* name;
    const char* bos;           ///< Token in front of a text, where a tokenizer's files name none; "" if none is.
    const char* eos;           ///< The token that ends a turn.
    const char* template_bos;  ///< What the template itself cannot do without.
    const char* source;
};

extern const ChatFamily kChatFamilies[6];

/// Null if there is none of that name.
const ChatFamily* find_chat_family(const std::string& name);

}  // namespace llmc
