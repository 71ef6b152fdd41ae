// What a Jinja template is parsed into. Plain nodes: what a field means depends on the kind.
#pragma once

#include "llmc/io/jinja/value.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace llmc {

struct JinjaExpression {
    enum class Kind : uint8_t {
        Literal,      ///< value
        Name,         ///< text
        List,         ///< parts; a tuple is one, too
        Dict,         ///< parts: key, value, key, value, ...
        Attribute,    ///< parts[0].text
        Index,        ///< parts[0][parts[1]]
        Slice,        ///< parts[0][parts[1]:parts[2]:parts[3]], each of which may be null
        Call,         ///< parts[0](parts[1], ...); the last names.size() of them are named
        Filter,       ///< parts[0] | text(parts[1], ...), names as for Call
        Test,         ///< parts[0] is text(parts[1], ...)
        Minus,        ///< -parts[0]
        Plus,         ///< +parts[0]
        Not,          ///< not parts[0]
        And,          ///< parts[0] and parts[1]
        Or,           ///< parts[0] or parts[1]
        Binary,       ///< parts[0] text parts[1]
        Compare,      ///< parts[0] names[0] parts[1] names[1] parts[2] ...
        Conditional,  ///< parts[0] if parts[1] else parts[2], which may be null
    };
    Kind kind = Kind::Literal;
    int line = 0;
    int height = 1;  ///< Of nodes above one another.
    std::string text;
    JinjaValue value;
    std::vector<std::unique_ptr<JinjaExpression>> parts;
    std::vector<std::string> names;
};
using JinjaExpressionPtr = std::unique_ptr<JinjaExpression>;

struct JinjaStatement;
using JinjaBody = std::vector<JinjaStatement>;

struct JinjaStatement {
    enum class Kind : uint8_t {
        Text,        ///< text
        Print,       ///< expressions[0]
        If,          ///< bodies[i] where expressions[i] is true, or null for else
        For,         ///< names in expressions[0] if expressions[1], which may be null: bodies[0], else bodies[1]
        Set,         ///< names = expressions[0]; of a namespace: names[0].text
        SetBlock,    ///< names[0] = what bodies[0] writes, through the filters of expressions[0], if not null
        Generation,  ///< bodies[0] is what a model is to write
        Break,
        Continue,
    };
    Kind kind = Kind::Text;
    int line = 0;
    std::string text;
    std::vector<std::string> names;
    std::vector<JinjaExpressionPtr> expressions;
    std::vector<JinjaBody> bodies;
};

/// Parses `source`. What this program does not know, and what Jinja does not either, is an Error that names the
/// template, the line and the construct.
JinjaBody parse_jinja(std::string_view source, const std::string& name);

/// Whether filters, tests and methods of these names are known (filters.cpp, tests.cpp).
bool is_jinja_filter(std::string_view name);
bool is_jinja_test(std::string_view name);

/// How deep expressions, statements and lists may stand in one another.
inline constexpr int kDeepestJinja = 200;

}  // namespace llmc
