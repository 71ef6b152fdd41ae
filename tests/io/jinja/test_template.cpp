// What the interpreter refuses, where it stops, and what it remembers of texts.
#include "llmc/io/jinja/template.h"

#include "llmc/base/error.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace llmc {
namespace {

std::string fault_of(const std::string& source, const JinjaMap& context = {}) {
    try {
        return "rendered: " + JinjaTemplate(source, "'t'").render(context).text.bytes.substr(0, 100);
    } catch (const Error& error) {
        return error.what();
    }
}

TEST(JinjaTemplate, RefusesWhatItDoesNotKnowByLineAndName) {
    const std::pair<const char*, const char*> cases[] = {
        {"a\n{% macro f(x) %}{% endmacro %}", "line 2: the tag {% macro %} is not supported"},
        {"{% include 'x' %}", "line 1: the tag {% include %} is not supported"},
        {"\n\n{{ x | urlize }}", "line 3: the filter 'urlize' is not supported"},
        {"{{ x is escaped }}", "line 1: the test 'escaped' is not supported"},
        {"{{ 'a'.zfill(3) }}", "line 1: 'zfill()' is not supported, or not defined"},
        {"{{ cycler(1) }}", "line 1: 'cycler()' is not supported, or not defined"},
        {"{% for x in y recursive %}{% endfor %}", "line 1: a recursive loop is not supported"},
        {"{{ f(*x) }}", "line 1: arguments with * are not supported"},
        {"{{ x", "line 1: a tag {{ is not closed"},
        {"a\n{% if x %}b", "line 2: {% endif %} is missing for a tag here"},
        {"{% endif %}", "line 1: {% endif %} belongs to no tag"},
        {"{# x", "line 1: a comment {# is not closed"},
        {"{% raw %}x", "line 1: {% raw %} is not closed"},
        {"{{ 'x }}", "line 1: a text in quotes is not closed"},
        {"{{ x ? 1 }}", "line 1: '?' stands where none is known"},
        {"{{ (1 }}", "line 1: '}' closes nothing"},
        {"{{ 1 + }}", "line 1: a value is wanted where }} stands"},
        {"{% set %}", "line 1: a name is wanted where %} stands"},
        {"{% break %}", "line 1: break stands in no loop"},
        {"{{ 99999999999999999999 }}", "line 1: the number 99999999999999999999 is too large"},
        {"{% set x %}{% generation %}{% endgeneration %}{% endset %}", "line 1: {% generation %} within {% set %}"},
    };
    for (const auto& [source, wanted] : cases) {
        EXPECT_NE(fault_of(source).find(std::string("chat template 't' ") + wanted), std::string::npos)
            << source << " -> " << fault_of(source);
    }
}

TEST(JinjaTemplate, SaysWhatCannotBeDone) {
    EXPECT_NE(
        fault_of("x\n{{ raise_exception('no, ' ~ 1) }}").find("line 2: the template refuses the conversation: no, 1"),
        std::string::npos);
    EXPECT_NE(fault_of("{{ a.b }}").find("line 1: 'a' is undefined"), std::string::npos);
    EXPECT_NE(fault_of("{{ 1 + 'a' }}").find("'+' cannot be done with a number and a text"), std::string::npos);
    EXPECT_NE(fault_of("{{ 9223372036854775807 + 1 }}").find("a number is too large"), std::string::npos);
    EXPECT_NE(fault_of("{{ (-9223372036854775807 - 1) // -1 }}").find("a number is too large"), std::string::npos);
    EXPECT_NE(fault_of("{{ 1 % 0 }}").find("division by zero"), std::string::npos);
    EXPECT_NE(fault_of("{% set x.y = 1 %}").find("only a namespace has values that can be set"), std::string::npos);
}

TEST(JinjaTemplate, ComesToAnEnd) {
    const std::string stopped = "does not come to an end, or writes more than is allowed";
    const std::string loops = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    const std::string doubling =
        "{% set n = namespace(x='x') %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}";
    const std::string lists =
        "{% set n = namespace(x=[1]) %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}";
    for (const std::string& source : {loops, doubling, lists, std::string("{{ range(1000000000) | list }}")}) {
        EXPECT_NE(fault_of(source).find(stopped), std::string::npos) << source << " -> " << fault_of(source);
    }
    EXPECT_NE(fault_of("{{ 'ab' * 100000000000 }}").find("becomes too long"), std::string::npos);
    EXPECT_NE(
        fault_of("{% set n = namespace(x=1) %}{% for i in range(999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}")
            .find("nested deeper than is allowed"),
        std::string::npos);
    EXPECT_NE(fault_of("{% set n = namespace() %}{% set n.x = n %}").find("a namespace within another value"),
              std::string::npos);
    EXPECT_NE(fault_of(std::string(100'000, '(')), "");
    const auto times = [](const std::string& text, int count) {
        std::string all;
        for (int i = 0; i < count; ++i) all += text;
        return all;
    };
    const std::pair<const char*, const char*> kNests[] = {{"(", ")"}, {"[", "]"}, {"not ", ""}, {"-", ""}};
    for (const auto& [open, close] : kNests) {
        const std::string fault = fault_of("{{ " + times(open, 10'000) + "1" + times(close, 10'000) + " }}");
        EXPECT_NE(fault.find("more is nested than is allowed"), std::string::npos) << open << fault;
    }
    EXPECT_NE(fault_of("{{ 1" + times(" + 1", 10'000) + " }}").find("nested deeper than is allowed"),
              std::string::npos);
    EXPECT_NE(fault_of(times("{% if x %}", 10'000)).find("more is nested than is allowed"), std::string::npos);
    EXPECT_NE(fault_of(std::string(2 << 20, 'x')).find("a template has at most"), std::string::npos);
    EXPECT_NE(fault_of("\xff").find("it is not UTF-8"), std::string::npos);
}

TEST(JinjaTemplate, RemembersWhereTextsCameFrom) {
    const auto origins = [](const std::string& source) {
        JinjaMap context;
        context.set("a", JinjaValue::of(JinjaText{" one two ", {{0, 9, 1}}}));
        context.set("b", JinjaValue::of(JinjaText{"", {{0, 0, 2}}}));
        return JinjaTemplate(source, "'t'").render(context).text.origins;
    };
    using Origins = std::vector<TextOrigin>;
    EXPECT_EQ(origins("x{{ a }}{{ 'y' + b }}"), (Origins{{1, 10, 1}, {11, 11, 2}}));
    EXPECT_EQ(origins("{{ '[' + a.strip() + ']' }}"), (Origins{{1, 8, 1}}));
    EXPECT_EQ(origins("{{ a[2:4] ~ '!' }}"), (Origins{{0, 2, 1}}));
    EXPECT_EQ(origins("{{ a.split('t')[-1] }}"), (Origins{{0, 3, 1}}));
    EXPECT_EQ(origins("{{ a | upper }}{% set c %}{{ a }}{% endset %}{{ c }}"), (Origins{{0, 9, 1}, {9, 18, 1}}));
    EXPECT_EQ(origins("{{ a | length }}{{ a == b }}"), Origins());
    EXPECT_EQ(origins("{{ '   ' ~ ('<' + b).strip('<') }}"), (Origins{{3, 3, 2}}));
}

}  // namespace
}  // namespace llmc
