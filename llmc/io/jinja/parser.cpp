// Jinja's grammar, as its own parser reads it: https://jinja.palletsprojects.com/en/stable/templates.
#include "llmc/io/jinja/lexer.h"
#include "llmc/io/jinja/tree.h"

#include "llmc/base/error.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>

namespace llmc {
namespace {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Ptr = JinjaExpressionPtr;

class Parser {
  public:
    Parser(std::string_view source, const std::string& name) : name_(name), tokens_(lex_jinja(source, name)) {}

    JinjaBody run() {
        JinjaBody body = statements({});
        if (peek().kind != Kind::End) refuse("a tag that closes nothing");
        return body;
    }

  private:
    [[noreturn]] void refuse(const std::string& what) const { refuse_template(name_, peek().line, what); }

    /// Counts how deep the parser stands in itself.
    class Level {
      public:
        explicit Level(Parser& parser) : parser_(parser) {
            if (++parser_.level_ > kDeepestJinja) parser_.refuse("more is nested than is allowed");
        }
        ~Level() { --parser_.level_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

      private:
        Parser& parser_;
    };

    const JinjaToken& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
    JinjaToken take() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
    bool is(Kind kind, std::string_view text, size_t ahead = 0) const {
        return peek(ahead).kind == kind && peek(ahead).text == text;
    }
    bool is_operator(std::string_view text, size_t ahead = 0) const { return is(Kind::Operator, text, ahead); }
    bool is_name(std::string_view text, size_t ahead = 0) const { return is(Kind::Name, text, ahead); }
    bool accept_operator(std::string_view text) {
        const bool there = is_operator(text);
        if (there) ++at_;
        return there;
    }
    bool accept_name(std::string_view text) {
        const bool there = is_name(text);
        if (there) ++at_;
        return there;
    }
    std::string found() const {
        switch (peek().kind) {
            case Kind::BlockEnd: return "%}";
            case Kind::VariableEnd: return "}}";
            case Kind::End: return "the end";
            case Kind::String: return "'" + peek().text + "'";
            default: return peek().text;
        }
    }
    void expect_operator(const char* text) {
        if (!accept_operator(text)) refuse(fmt::format("'{}' is wanted where {} stands", text, found()));
    }
    std::string expect_name(const char* what) {
        if (peek().kind != Kind::Name) refuse(fmt::format("{} is wanted where {} stands", what, found()));
        return take().text;
    }
    void expect_block_end() {
        if (peek().kind != Kind::BlockEnd) refuse(fmt::format("%}} is wanted where {} stands", found()));
        ++at_;
    }

    Ptr node(Expression::Kind kind, int line, std::string text = "") const {
        auto made = std::make_unique<Expression>();
        made->kind = kind;
        made->line = line;
        made->text = std::move(text);
        return made;
    }
    void add(Ptr& parent, Ptr part) const {
        if (part != nullptr) parent->height = std::max(parent->height, part->height + 1);
        if (parent->height > kDeepestJinja) refuse("an expression is nested deeper than is allowed");
        parent->parts.push_back(std::move(part));
    }
    template <typename... Parts>
    Ptr node_of(Expression::Kind kind, int line, std::string text, Parts... parts) const {
        Ptr made = node(kind, line, std::move(text));
        (add(made, std::move(parts)), ...);
        return made;
    }

    // Statements.

    /// Up to a tag that begins with one of `ends`, which stays; up to the end of all where there is none.
    JinjaBody statements(std::initializer_list<std::string_view> ends) {
        const Level level(*this);
        const int line = peek().line;
        JinjaBody body;
        while (peek().kind != Kind::End) {
            if (peek().kind == Kind::BlockBegin && peek(1).kind == Kind::Name &&
                std::find(ends.begin(), ends.end(), peek(1).text) != ends.end()) {
                return body;
            }
            body.push_back(statement());
        }
        if (ends.size() > 0) {
            refuse_template(name_, line, fmt::format("{{% {} %}} is missing for a tag here", *(ends.end() - 1)));
        }
        return body;
    }

    JinjaStatement statement() {
        JinjaStatement made;
        made.line = peek().line;
        const JinjaToken begin = take();
        if (begin.kind == Kind::Data) {
            made.text = begin.text;
            return made;
        }
        if (begin.kind == Kind::VariableBegin) {
            made.kind = JinjaStatement::Kind::Print;
            made.expressions.push_back(tuple());
            if (peek().kind != Kind::VariableEnd) refuse(fmt::format("}}}} is wanted where {} stands", found()));
            ++at_;
            return made;
        }
        tag(&made);
        return made;
    }

    void tag(JinjaStatement* made) {
        const std::string word = expect_name("the name of a tag");
        if (word == "if") return take_if(made);
        if (word == "for") return take_for(made);
        if (word == "set") return take_set(made);
        if (word == "generation") return take_generation(made);
        if (word == "break" || word == "continue") {
            if (loops_ == 0) refuse(word + " stands in no loop");
            made->kind = word == "break" ? JinjaStatement::Kind::Break : JinjaStatement::Kind::Continue;
            return expect_block_end();
        }
        --at_;
        constexpr std::array kEnds = {"elif", "else", "endif", "endfor", "endset", "endgeneration"};
        if (std::any_of(kEnds.begin(), kEnds.end(), [&](const char* end) { return word == end; })) {
            refuse(fmt::format("{{% {} %}} belongs to no tag", word));
        }
        refuse(
            fmt::format("the tag {{% {} %}} is not supported; edit the template, or name another one with "
                        "--chat-template",
                        word));
    }

    void take_if(JinjaStatement* made) {
        made->kind = JinjaStatement::Kind::If;
        for (bool more = true; more;) {
            made->expressions.push_back(condition());
            expect_block_end();
            made->bodies.push_back(statements({"elif", "else", "endif"}));
            ++at_;
            const std::string word = take().text;
            more = word == "elif";
            if (word == "else") {
                expect_block_end();
                made->expressions.push_back(nullptr);
                made->bodies.push_back(statements({"endif"}));
                at_ += 2;
            }
        }
        expect_block_end();
    }

    void take_for(JinjaStatement* made) {
        made->kind = JinjaStatement::Kind::For;
        made->names = target_names();
        if (!accept_name("in")) refuse(fmt::format("'in' is wanted where {} stands", found()));
        made->expressions.push_back(tuple(/*with_condition=*/false));
        made->expressions.push_back(accept_name("if") ? condition() : nullptr);
        if (is_name("recursive")) refuse("a recursive loop is not supported");
        expect_block_end();
        ++loops_;
        made->bodies.push_back(statements({"else", "endfor"}));
        --loops_;
        ++at_;
        if (take().text == "else") {
            expect_block_end();
            made->bodies.push_back(statements({"endfor"}));
            at_ += 2;
        } else {
            made->bodies.emplace_back();
        }
        expect_block_end();
    }

    /// x, or x, y, or (x, y).
    std::vector<std::string> target_names() {
        const bool has_bracket = accept_operator("(");
        std::vector<std::string> names;
        do {
            if (!names.empty() && peek().kind != Kind::Name) break;
            const std::string name = expect_name("a name");
            constexpr std::array kTaken = {"true", "false", "none", "True", "False", "None", "loop"};
            if (std::any_of(kTaken.begin(), kTaken.end(), [&](const char* taken) { return name == taken; })) {
                refuse(fmt::format("nothing can be put under the name '{}'", name));
            }
            names.push_back(name);
        } while (accept_operator(","));
        if (has_bracket) expect_operator(")");
        return names;
    }

    void take_set(JinjaStatement* made) {
        made->kind = JinjaStatement::Kind::Set;
        if (peek().kind == Kind::Name && is_operator(".", 1)) {
            made->names = {take().text};
            ++at_;
            made->text = expect_name("a name");
        } else {
            made->names = target_names();
        }
        if (accept_operator("=")) {
            made->expressions.push_back(tuple());
            return expect_block_end();
        }
        if (!made->text.empty() || made->names.size() != 1)
            refuse(fmt::format("'=' is wanted where {} stands", found()));
        made->kind = JinjaStatement::Kind::SetBlock;
        Ptr filters;
        if (is_operator("|")) filters = filters_behind(node(Expression::Kind::Name, peek().line, ""));
        made->expressions.push_back(std::move(filters));
        expect_block_end();
        ++captures_;
        made->bodies.push_back(statements({"endset"}));
        --captures_;
        at_ += 2;
        expect_block_end();
    }

    void take_generation(JinjaStatement* made) {
        if (captures_ > 0) refuse("{% generation %} within {% set %}, or within another, is not supported");
        made->kind = JinjaStatement::Kind::Generation;
        expect_block_end();
        ++captures_;
        made->bodies.push_back(statements({"endgeneration"}));
        --captures_;
        at_ += 2;
        expect_block_end();
    }

    // Expressions, the loosest first.

    /// One expression, or several with commas, which are a list.
    Ptr tuple(bool with_condition = true) {
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

    Ptr condition() {
        const Level level(*this);
        Ptr value = either();
        while (is_name("if")) {
            const int line = take().line;
            Ptr test = either();
            Ptr otherwise = accept_name("else") ? condition() : nullptr;
            value = node_of(Expression::Kind::Conditional, line, "", std::move(value), std::move(test),
                            std::move(otherwise));
        }
        return value;
    }

    Ptr either() {
        Ptr left = both();
        while (is_name("or")) {
            const int line = take().line;
            left = node_of(Expression::Kind::Or, line, "", std::move(left), both());
        }
        return left;
    }

    Ptr both() {
        Ptr left = negation();
        while (is_name("and")) {
            const int line = take().line;
            left = node_of(Expression::Kind::And, line, "", std::move(left), negation());
        }
        return left;
    }

    Ptr negation() {
        const Level level(*this);
        if (!is_name("not")) return comparison();
        const int line = take().line;
        return node_of(Expression::Kind::Not, line, "", negation());
    }

    Ptr comparison() {
        Ptr left = sum();
        Ptr all;
        for (std::string sign = comparison_sign(); !sign.empty(); sign = comparison_sign()) {
            if (all == nullptr) all = node_of(Expression::Kind::Compare, peek().line, "", std::move(left));
            all->names.push_back(sign);
            add(all, sum());
        }
        return all != nullptr ? std::move(all) : std::move(left);
    }

    /// Takes one; "" if there is none.
    std::string comparison_sign() {
        for (const char* sign : {"==", "!=", "<=", ">=", "<", ">"}) {
            if (accept_operator(sign)) return sign;
        }
        if (accept_name("in")) return "in";
        if (!is_name("not") || !is_name("in", 1)) return "";
        at_ += 2;
        return "not in";
    }

    /// left SIGN right SIGN right ..., where `signs` are alike.
    template <typename Operand>
    Ptr chain(std::initializer_list<const char*> signs, Operand operand) {
        Ptr left = operand();
        for (;;) {
            const auto sign =
                std::find_if(signs.begin(), signs.end(), [&](const char* one) { return is_operator(one); });
            if (sign == signs.end()) return left;
            const int line = take().line;
            left = node_of(Expression::Kind::Binary, line, *sign, std::move(left), operand());
        }
    }
    Ptr sum() {
        return chain({"+", "-"}, [&] { return joined(); });
    }
    Ptr joined() {
        return chain({"~"}, [&] { return product(); });
    }
    Ptr product() {
        return chain({"*", "//", "/", "%"}, [&] { return power(); });
    }
    Ptr power() {
        return chain({"**"}, [&] { return signed_value(); });
    }

    Ptr signed_value(bool with_filters = true) {
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

    Ptr literal(JinjaValue value, int line) const {
        Ptr made = node(Expression::Kind::Literal, line);
        made->value = std::move(value);
        return made;
    }

    Ptr primary() {
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
                const auto [end, error] =
                    std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
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
        --at_;
        refuse(fmt::format("a value is wanted where {} stands", found()));
    }

    Ptr named(const JinjaToken& token) const {
        const std::string& name = token.text;
        if (name == "true" || name == "True") return literal(JinjaValue::of(true), token.line);
        if (name == "false" || name == "False") return literal(JinjaValue::of(false), token.line);
        if (name == "none" || name == "None") return literal(JinjaValue(), token.line);
        for (const char* word : {"if", "else", "and", "or", "in", "is", "not", "for"}) {
            if (name == word)
                refuse_template(name_, token.line, fmt::format("'{}' stands where a value is wanted", name));
        }
        return node(Expression::Kind::Name, token.line, name);
    }

    Ptr bracketed(int line) {
        if (accept_operator(")")) return node(Expression::Kind::List, line);
        Ptr value = tuple();
        expect_operator(")");
        return value;
    }

    Ptr list(int line) {
        Ptr made = node(Expression::Kind::List, line);
        while (!accept_operator("]")) {
            if (!made->parts.empty()) expect_operator(",");
            if (accept_operator("]")) break;
            add(made, condition());
        }
        return made;
    }

    Ptr dict(int line) {
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

    Ptr postfix(Ptr value) {
        for (;;) {
            const int line = peek().line;
            if (accept_operator(".")) {
                if (peek().kind == Kind::Integer) {
                    int64_t index = 0;
                    const JinjaToken number = take();
                    std::from_chars(number.text.data(), number.text.data() + number.text.size(), index);
                    value = node_of(Expression::Kind::Index, line, "", std::move(value),
                                    literal(JinjaValue::of(index), line));
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

    Ptr subscript(Ptr value, int line) {
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

    /// Adds the arguments that stand here in brackets.
    Ptr call(Ptr made) {
        expect_operator("(");
        for (bool is_first = true; !accept_operator(")"); is_first = false) {
            if (!is_first) expect_operator(",");
            if (accept_operator(")")) break;
            if (is_operator("*") || is_operator("**")) refuse("arguments with * are not supported");
            if (peek().kind == Kind::Name && is_operator("=", 1)) {
                made->names.push_back(take().text);
                ++at_;
            } else if (!made->names.empty()) {
                refuse("an argument without a name stands behind one with a name");
            }
            add(made, condition());
        }
        return made;
    }

    /// Filters, tests and calls of what they give.
    Ptr filters_behind(Ptr value) {
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

    Ptr test(Ptr value, int line) {
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

    bool begins_argument() const {
        if (peek().kind == Kind::Name) {
            if (is_name("is")) refuse("a test stands behind another; put the first into brackets");
            return !is_name("else") && !is_name("or") && !is_name("and") && !is_name("if") && !is_name("not") &&
                   !is_name("in");
        }
        return peek().kind == Kind::String || peek().kind == Kind::Integer || peek().kind == Kind::Float ||
               is_operator("[") || is_operator("{");
    }

    const std::string& name_;
    std::vector<JinjaToken> tokens_;
    size_t at_ = 0;
    int level_ = 0;
    int loops_ = 0;
    int captures_ = 0;
};

}  // namespace

JinjaBody parse_jinja(std::string_view source, const std::string& name) { return Parser(source, name).run(); }

}  // namespace llmc
