// Tokens of a Jinja template, with the white space that its environment takes away: trim_blocks and lstrip_blocks, as
// chat templates are rendered, "-" and "+" at tags, and one line end at the template's own end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct JinjaToken {
    enum class Kind : uint8_t {
        Data,        ///< Text between tags.
        BlockBegin,  ///< {%
        BlockEnd,    ///< %}
        VariableBegin,
        VariableEnd,
        Name,
        String,  ///< Without quotes, its escapes undone.
        Integer,
        Float,
        Operator,
        End,
    };
    Kind kind = Kind::End;
    std::string text;
    int line = 0;  ///< From 1.
};

/// Refuses what a template has in a line: an Error that names it.
[[noreturn]] void refuse_template(const std::string& name, int line, const std::string& what);

/// The tokens of `source`, the last an End. `name` is the template's, for messages.
std::vector<JinjaToken> lex_jinja(std::string_view source, const std::string& name);

}  // namespace llmc
