// Jinja's grammar, as its own parser reads it: https://jinja.palletsprojects.com/en/stable/templates. Statements are
// here, expressions in expressions.cpp.
#include "llmc/io/jinja/expressions.h"

#include <algorithm>
#include <array>
#include <initializer_list>

namespace llmc {
namespace {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Ptr = JinjaExpressionPtr;

class Parser : JinjaExpressionParser {
  public:
    Parser(std::string_view source, const std::string& name) : JinjaExpressionParser(source, name) {}

    JinjaBody run() {
        JinjaBody body = statements({});
        if (peek().kind != Kind::End) refuse("a tag that closes nothing");
        return body;
    }

  private:
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
            skip(1);
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
        step_back();
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
            skip(1);
            const std::string word = take().text;
            more = word == "elif";
            if (word == "else") {
                expect_block_end();
                made->expressions.push_back(nullptr);
                made->bodies.push_back(statements({"endif"}));
                skip(2);
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
        skip(1);
        if (take().text == "else") {
            expect_block_end();
            made->bodies.push_back(statements({"endfor"}));
            skip(2);
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
            skip(1);
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
        skip(2);
        expect_block_end();
    }

    void take_generation(JinjaStatement* made) {
        if (captures_ > 0) refuse("{% generation %} within {% set %}, or within another, is not supported");
        made->kind = JinjaStatement::Kind::Generation;
        expect_block_end();
        ++captures_;
        made->bodies.push_back(statements({"endgeneration"}));
        --captures_;
        skip(2);
        expect_block_end();
    }

    int loops_ = 0;
    int captures_ = 0;
};

}  // namespace

JinjaBody parse_jinja(std::string_view source, const std::string& name) { return Parser(source, name).run(); }

}  // namespace llmc
