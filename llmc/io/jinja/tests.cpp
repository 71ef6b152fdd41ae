#include "llmc/io/jinja/builtin_tools.h"

#include "llmc/io/jinja/text_methods.h"
#include "llmc/io/jinja/tree.h"

#include <array>
#include <cmath>

namespace llmc {
namespace {

using Arguments = JinjaArguments;
using Value = JinjaValue;

constexpr std::array kTests = {"defined", "undefined", "none",        "string",  "mapping", "iterable", "sequence",
                               "number",  "integer",   "float",       "boolean", "true",    "false",    "callable",
                               "equalto", "eq",        "==",          "ne",      "!=",      "lt",       "<",
                               "gt",      ">",         "le",          "<=",      "ge",      ">=",       "in",
                               "odd",     "even",      "divisibleby", "lower",   "upper",   "sameas"};

}  // namespace

bool is_jinja_test(std::string_view name) { return is_one_of(kTests, name); }

bool apply_jinja_test(const std::string& name, const Value& value, const Arguments& arguments, JinjaWork& work) {
    work.spend(1);
    if (name == "defined") return !value.is_undefined();
    if (name == "undefined") return value.is_undefined();
    if (name == "none") return value.is_none();
    if (name == "string") return value.text() != nullptr;
    if (name == "mapping") return value.map() != nullptr && !value.map()->is_namespace;
    if (name == "iterable" || name == "sequence") {
        return value.text() != nullptr || value.list() != nullptr || value.map() != nullptr || value.is_undefined();
    }
    if (name == "number") return value.is_number();
    if (name == "integer") return value.integer() != nullptr;
    if (name == "float") return value.real() != nullptr;
    if (name == "boolean") return value.flag() != nullptr;
    if (name == "true" || name == "false") return value.flag() != nullptr && *value.flag() == (name == "true");
    if (name == "callable") return value.function() != nullptr;
    if (name == "odd" || name == "even") {
        if (!value.is_number()) fault("{} wants a number, not {}", name, value.kind());
        return std::fmod(value.number(), 2) == (name == "even" ? 0 : std::copysign(1, value.number()));
    }
    if (name == "lower" || name == "upper") {
        const JinjaText& text = text_of(value, name);
        const bool is_lower = lower_case(text).bytes == text.bytes, is_upper = upper_case(text).bytes == text.bytes;
        return is_lower != is_upper && is_lower == (name == "lower");
    }
    if (!is_jinja_test(name)) fault("the test '{}' is not supported", name);
    const Value* other = arguments.find(0);
    if (other == nullptr) fault("the test '{}' wants something to compare with", name);
    if (name == "divisibleby") {
        const int64_t divisor = whole_of(*other, name);
        if (divisor == 0) fault("division by zero");
        return divisor == -1 || whole_of(value, name) % divisor == 0;
    }
    constexpr std::pair<const char*, const char*> kSigns[] = {{"equalto", "=="}, {"eq", "=="}, {"sameas", "=="},
                                                              {"ne", "!="},      {"lt", "<"},  {"gt", ">"},
                                                              {"le", "<="},      {"ge", ">="}};
    for (const auto& [word, sign] : kSigns) {
        if (name == word) return jinja_compare(sign, value, *other, work);
    }
    return jinja_compare(name, value, *other, work);
}

}  // namespace llmc
