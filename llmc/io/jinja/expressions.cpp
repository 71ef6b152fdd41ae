#include "llmc/io/jinja/expressions.h"

#include <array>
#include <charconv>

namespace llmc {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Ptr = JinjaExpressionPtr;

Ptr JinjaExpressionParser::tuple(bool with_condition) {
    const auto one = [&] { return with_condition ? condition() : either(); };
    Ptr first = one();
    if (!is_operator(",")) return first;
    Ptr list = node_of(Expression::Kind::List, peek().line, "", std::move(first));
    while (accept_operator(",")) {
        if (peek().kind == Kind::BlockEnd || peek().kind == Kind::VariableEnd || is_operator(")")) break;
        add(list, one());
    }
    return list;
}

Ptr JinjaExpressionParser::condition() {
    const Level level(*this);
    Ptr value = either();
    while (is_name("if")) {
        const int line = take().line;
        Ptr test = either();
        Ptr otherwise = accept_name("else") ? condition() : nullptr;
        value =
            node_of(Expression::Kind::Conditional, line, "", std::move(value), std::move(test), std::move(otherwise));
    }
    return value;
}

Ptr JinjaExpressionParser::either() {
    Ptr left = both();
    while (is_name("or")) {
        const int line = take().line;
        left = node_of(Expression::Kind::Or, line, "", std::move(left), both());
    }
    return left;
}

Ptr JinjaExpressionParser::both() {
    Ptr left = negation();
    while (is_name("and")) {
        const int line = take().line;
        left = node_of(Expression::Kind::And, line, "", std::move(left), negation());
    }
    return left;
}

Ptr JinjaExpressionParser::negation() {
    const Level level(*this);
    if (!is_name("not")) return comparison();
    const int line = take().line;
    return node_of(Expression::Kind::Not, line, "", negation());
}

Ptr JinjaExpressionParser::comparison() {
    Ptr left = sum();
    Ptr all;
    for (std::string sign = comparison_sign(); !sign.empty(); sign = comparison_sign()) {
        if (all == nullptr) all = node_of(Expression::Kind::Compare, peek().line, "", std::move(left));
        all->names.push_back(sign);
        add(all, sum());
    }
    return all != nullptr ? std::move(all) : std::move(left);
}

std::string JinjaExpressionParser::comparison_sign() {
    for (const char* sign : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (accept_operator(sign)) return sign;
    }
    if (accept_name("in")) return "in";
    if (!is_name("not") || !is_name("in", 1)) return "";
    skip(2);
    return "not in";
}

template <typename Operand>
Ptr JinjaExpressionParser::chain(std::initializer_list<const char*> signs, Operand operand) {
    Ptr left = operand();
    for (;;) {
        const auto sign = std::find_if(signs.begin(), signs.end(), [&](const char* one) { return is_operator(one); });
        if (sign == signs.end()) return left;
        const int line = take().line;
        left = node_of(Expression::Kind::Binary, line, *sign, std::move(left), operand());
    }
}

Ptr JinjaExpressionParser::sum() {
    return chain({"+", "-"}, [&] { return joined(); });
}

Ptr JinjaExpressionParser::joined() {
    return chain({"~"}, [&] { return product(); });
}

Ptr JinjaExpressionParser::product() {
    return chain({"*", "//", "/", "%"}, [&] { return power(); });
}

Ptr JinjaExpressionParser::power() {
    return chain({"**"}, [&] { return signed_value(); });
}

Ptr JinjaExpressionParser::signed_value(bool with_filters) {
    const Level level(*this);
    Ptr value;
    const int line = peek().line;
    if (accept_operator("-")) {
        value = node_of(Expression::Kind::Minus, line, "", signed_value(false));
    } else if (accept_operator("+")) {
        value = node_of(Expression::Kind::Plus, line, "", signed_value(false));
    } else {
        value = primary();
    }
    value = postfix(std::move(value));
    return with_filters ? filters_behind(std::move(value)) : std::move(value);
}

Ptr JinjaExpressionParser::literal(JinjaValue value, int line) const {
    Ptr made = node(Expression::Kind::Literal, line);
    made->value = std::move(value);
    return made;
}

Ptr JinjaExpressionParser::primary() {
    const JinjaToken token = take();
    switch (token.kind) {
        case Kind::Name: return named(token);
        case Kind::String: {
            std::string text = token.text;
            while (peek().kind == Kind::String) text += take().text;
            return literal(JinjaValue::of(std::move(text)), token.line);
        }
        case Kind::Integer: {
            int64_t number = 0;
            const auto [end, error] = std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
            if (error != std::errc()) refuse(fmt::format("the number {} is too large", token.text));
            return literal(JinjaValue::of(number), token.line);
        }
        case Kind::Float: {
            double number = 0;
            std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
            return literal(JinjaValue::of(number), token.line);
        }
        default: break;
    }
    if (token.kind == Kind::Operator && token.text == "(") return bracketed(token.line);
    if (token.kind == Kind::Operator && token.text == "[") return list(token.line);
    if (token.kind == Kind::Operator && token.text == "{") return dict(token.line);
    step_back();
    refuse(fmt::format("a value is wanted where {} stands", found()));
}

Ptr JinjaExpressionParser::named(const JinjaToken& token) const {
    const std::string& name = token.text;
    if (name == "true" || name == "True") return literal(JinjaValue::of(true), token.line);
    if (name == "false" || name == "False") return literal(JinjaValue::of(false), token.line);
    if (name == "none" || name == "None") return literal(JinjaValue(), token.line);
    for (const char* word : {"if", "else", "and", "or", "in", "is", "not", "for"}) {
        if (name == word) refuse_template(name_, token.line, fmt::format("'{}' stands where a value is wanted", name));
    }
    return node(Expression::Kind::Name, token.line, name);
}

Ptr JinjaExpressionParser::bracketed(int line) {
    if (accept_operator(")")) return node(Expression::Kind::List, line);
    Ptr value = tuple();
    expect_operator(")");
    return value;
}

Ptr JinjaExpressionParser::list(int line) {
    Ptr made = node(Expression::Kind::List, line);
    while (!accept_operator("]")) {
        if (!made->parts.empty()) expect_operator(",");
        if (accept_operator("]")) break;
        add(made, condition());
    }
    return made;
}

Ptr JinjaExpressionParser::dict(int line) {
    Ptr made = node(Expression::Kind::Dict, line);
    while (!accept_operator("}")) {
        if (!made->parts.empty()) expect_operator(",");
        if (accept_operator("}")) break;
        add(made, condition());
        expect_operator(":");
        add(made, condition());
    }
    return made;
}

Ptr JinjaExpressionParser::postfix(Ptr value) {
    for (;;) {
        const int line = peek().line;
        if (accept_operator(".")) {
            if (peek().kind == Kind::Integer) {
                int64_t index = 0;
                const JinjaToken number = take();
                std::from_chars(number.text.data(), number.text.data() + number.text.size(), index);
                value =
                    node_of(Expression::Kind::Index, line, "", std::move(value), literal(JinjaValue::of(index), line));
            } else {
                value = node_of(Expression::Kind::Attribute, line, expect_name("a name"), std::move(value));
            }
        } else if (accept_operator("[")) {
            value = subscript(std::move(value), line);
        } else if (is_operator("(")) {
            value = call(node_of(Expression::Kind::Call, line, "", std::move(value)));
        } else {
            return value;
        }
    }
}

Ptr JinjaExpressionParser::subscript(Ptr value, int line) {
    const auto bound = [&]() -> Ptr { return is_operator(":") || is_operator("]") ? nullptr : condition(); };
    Ptr first = bound();
    if (first != nullptr && accept_operator("]")) {
        return node_of(Expression::Kind::Index, line, "", std::move(value), std::move(first));
    }
    expect_operator(":");
    Ptr last = bound();
    Ptr step = accept_operator(":") ? bound() : nullptr;
    expect_operator("]");
    return node_of(Expression::Kind::Slice, line, "", std::move(value), std::move(first), std::move(last),
                   std::move(step));
}

Ptr JinjaExpressionParser::call(Ptr made) {
    expect_operator("(");
    for (bool is_first = true; !accept_operator(")"); is_first = false) {
        if (!is_first) expect_operator(",");
        if (accept_operator(")")) break;
        if (is_operator("*") || is_operator("**")) refuse("arguments with * are not supported");
        if (peek().kind == Kind::Name && is_operator("=", 1)) {
            made->names.push_back(take().text);
            skip(1);
        } else if (!made->names.empty()) {
            refuse("an argument without a name stands behind one with a name");
        }
        add(made, condition());
    }
    return made;
}

Ptr JinjaExpressionParser::filters_behind(Ptr value) {
    for (;;) {
        const int line = peek().line;
        if (accept_operator("|")) {
            std::string name = expect_name("the name of a filter");
            while (accept_operator(".")) name += "." + expect_name("a name");
            if (!is_jinja_filter(name)) refuse(fmt::format("the filter '{}' is not supported", name));
            value = node_of(Expression::Kind::Filter, line, std::move(name), std::move(value));
            if (is_operator("(")) value = call(std::move(value));
        } else if (accept_name("is")) {
            value = test(std::move(value), line);
        } else if (is_operator("(")) {
            value = call(node_of(Expression::Kind::Call, line, "", std::move(value)));
        } else {
            return value;
        }
    }
}

Ptr JinjaExpressionParser::test(Ptr value, int line) {
    const bool negated = accept_name("not");
    std::string name = expect_name("the name of a test");
    if (!is_jinja_test(name)) refuse(fmt::format("the test '{}' is not supported", name));
    Ptr made = node_of(Expression::Kind::Test, line, std::move(name), std::move(value));
    if (is_operator("(")) {
        made = call(std::move(made));
    } else if (begins_argument()) {
        add(made, postfix(primary()));
    }
    return negated ? node_of(Expression::Kind::Not, line, "", std::move(made)) : std::move(made);
}

bool JinjaExpressionParser::begins_argument() const {
    if (peek().kind == Kind::Name) {
        if (is_name("is")) refuse("a test stands behind another; put the first into brackets");
        return !is_name("else") && !is_name("or") && !is_name("and") && !is_name("if") && !is_name("not") &&
               !is_name("in");
    }
    return peek().kind == Kind::String || peek().kind == Kind::Integer || peek().kind == Kind::Float ||
           is_operator("[") || is_operator("{");
}

}  // namespace llmc
