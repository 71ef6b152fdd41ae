// What filters, tests, methods and functions of Jinja templates share: faults, arguments as what they must be, and the
// few things that more than one of them does.
#pragma once

#include "llmc/io/jinja/builtins.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {

template <typename... Args>
[[noreturn]] void fault(fmt::format_string<Args...> format, Args&&... args) {
    throw JinjaFault{fmt::format(format, std::forward<Args>(args)...)};
}

template <typename Names>
bool is_one_of(const Names& names, std::string_view name) {
    return std::any_of(names.begin(), names.end(), [&](const char* one) { return name == one; });
}

/// The argument as what it must be; `what` wants it, says the JinjaFault otherwise.
const JinjaText& text_of(const JinjaValue& value, const std::string& what);
int64_t whole_of(const JinjaValue& value, const std::string& what);
/// The text of an argument that may be left out, or none; null then.
const std::string* optional_text(const JinjaValue* value, const std::string& what);

/// A list of texts.
JinjaValue texts_of(std::vector<JinjaText> parts, JinjaWork& work);
/// Characters of a text, items of a list or a dict; nothing of what is undefined.
int64_t length_of(const JinjaValue& value);
/// [[key, value], ...] in their order.
JinjaValue pairs_of(const JinjaMap& map, JinjaWork& work);
/// The items as text, with the first argument between them.
JinjaValue joined(const JinjaValue& value, const JinjaArguments& arguments, JinjaWork& work);

}  // namespace llmc
