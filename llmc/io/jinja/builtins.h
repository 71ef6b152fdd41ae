// Filters, tests, methods and functions of Jinja templates: what chat templates use of Jinja's and Python's. They say
// what is wrong by throwing a JinjaFault, which the interpreter gives a line.
#pragma once

#include "llmc/io/jinja/value.h"

#include <string>
#include <utility>
#include <vector>

namespace llmc {

struct JinjaFault {
    std::string what;
};

struct JinjaArguments {
    std::vector<JinjaValue> positional;
    std::vector<std::pair<std::string, JinjaValue>> named;

    /// The argument at a place, or of that name; null if it was not given.
    const JinjaValue* find(size_t place, const char* name = "") const;
    /// A JinjaFault if more were given, or of other names.
    void require(const std::string& what, size_t least, size_t most, std::vector<const char*> names = {}) const;
};

/// `value` | name(arguments).
JinjaValue apply_jinja_filter(const std::string& name, const JinjaValue& value, const JinjaArguments& arguments,
                              JinjaWork& work);
/// `value` is name(arguments).
bool apply_jinja_test(const std::string& name, const JinjaValue& value, const JinjaArguments& arguments,
                      JinjaWork& work);

/// Whether texts, or dicts, have a method of that name.
bool has_jinja_method(const JinjaValue& value, const std::string& name);
JinjaValue call_jinja_method(const std::string& name, const JinjaValue& self, const JinjaArguments& arguments,
                             JinjaWork& work);

/// Functions that are there without being defined: range, dict, namespace, raise_exception, strftime_now.
bool is_jinja_function(const std::string& name);
JinjaValue call_jinja_function(const std::string& name, const JinjaArguments& arguments, JinjaWork& work);

/// value.name or value['name'], undefined where there is none.
JinjaValue jinja_member(const JinjaValue& value, const JinjaValue& key, bool is_attribute, JinjaWork& work);
/// value[first:last:step], each of which may be null.
JinjaValue jinja_slice(const JinjaValue& value, const int64_t* first, const int64_t* last, const int64_t* step,
                       JinjaWork& work);
/// left SIGN right, for + - ~ * / // % **.
JinjaValue jinja_binary(const std::string& sign, const JinjaValue& left, const JinjaValue& right, JinjaWork& work);
/// left SIGN right, for == != < <= > >= in, "not in".
bool jinja_compare(const std::string& sign, const JinjaValue& left, const JinjaValue& right, JinjaWork& work);
/// What a loop goes through: items of a list, keys of a dict, characters of a text.
std::vector<JinjaValue> jinja_items(const JinjaValue& value, JinjaWork& work);

}  // namespace llmc
