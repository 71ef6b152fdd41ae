// The part of the parser that reads expressions: https://jinja.palletsprojects.com/en/stable/templates/#expressions.
#pragma once

#include "llmc/io/jinja/token_reader.h"

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

namespace llmc {

class JinjaExpressionParser : protected JinjaTokenReader {
  protected:
    using JinjaTokenReader::JinjaTokenReader;

    /// One expression, or several with commas, which are a list.
    JinjaExpressionPtr tuple(bool with_condition = true);
    JinjaExpressionPtr condition();
    /// Filters, tests and calls of what they give.
    JinjaExpressionPtr filters_behind(JinjaExpressionPtr value);

    JinjaExpressionPtr node(JinjaExpression::Kind kind, int line, std::string text = "") const {
        auto made = std::make_unique<JinjaExpression>();
        made->kind = kind;
        made->line = line;
        made->text = std::move(text);
        return made;
    }
    void add(JinjaExpressionPtr& parent, JinjaExpressionPtr part) const {
        if (part != nullptr) parent->height = std::max(parent->height, part->height + 1);
        if (parent->height > kDeepestJinja) refuse("an expression is nested deeper than is allowed");
        parent->parts.push_back(std::move(part));
    }
    template <typename... Parts>
    JinjaExpressionPtr node_of(JinjaExpression::Kind kind, int line, std::string text, Parts... parts) const {
        JinjaExpressionPtr made = node(kind, line, std::move(text));
        (add(made, std::move(parts)), ...);
        return made;
    }

  private:
    // The loosest first.
    JinjaExpressionPtr either();
    JinjaExpressionPtr both();
    JinjaExpressionPtr negation();
    JinjaExpressionPtr comparison();
    /// Takes one; "" if there is none.
    std::string comparison_sign();
    /// left SIGN right SIGN right ..., where `signs` are alike.
    template <typename Operand>
    JinjaExpressionPtr chain(std::initializer_list<const char*> signs, Operand operand);
    JinjaExpressionPtr sum();
    JinjaExpressionPtr joined();
    JinjaExpressionPtr product();
    JinjaExpressionPtr power();
    JinjaExpressionPtr signed_value(bool with_filters = true);
    JinjaExpressionPtr literal(JinjaValue value, int line) const;
    JinjaExpressionPtr primary();
    JinjaExpressionPtr named(const JinjaToken& token) const;
    JinjaExpressionPtr bracketed(int line);
    JinjaExpressionPtr list(int line);
    JinjaExpressionPtr dict(int line);
    JinjaExpressionPtr postfix(JinjaExpressionPtr value);
    JinjaExpressionPtr subscript(JinjaExpressionPtr value, int line);
    /// Adds the arguments that stand here in brackets.
    JinjaExpressionPtr call(JinjaExpressionPtr made);
    JinjaExpressionPtr test(JinjaExpressionPtr value, int line);
    bool begins_argument() const;
};

}  // namespace llmc
