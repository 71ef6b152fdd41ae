#include "llmc/io/jinja/builtin_tools.h"

#include <array>
#include <cstdlib>
#include <ctime>

namespace llmc {
namespace {

using Arguments = JinjaArguments;
using Value = JinjaValue;

constexpr std::array kFunctions = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

Value range(const Arguments& arguments, JinjaWork& work) {
    arguments.require("range", 1, 3);
    std::vector<int64_t> numbers;
    for (const Value& value : arguments.positional) numbers.push_back(whole_of(value, "range"));
    if (numbers.empty()) fault("range wants a number");
    const int64_t first = numbers.size() > 1 ? numbers[0] : 0;
    const int64_t last = numbers.size() > 1 ? numbers[1] : numbers[0];
    const int64_t step = numbers.size() > 2 ? numbers[2] : 1;
    constexpr int64_t kLargest = int64_t{1} << 40;
    if (step == 0) fault("range wants a step that is not 0");
    if (std::max({std::abs(first), std::abs(last), std::abs(step)}) > kLargest) fault("range is too long");
    std::vector<Value> items;
    for (int64_t i = first; step > 0 ? i < last : i > last; i += step) {
        work.spend(sizeof(Value));
        items.push_back(Value::of(i));
    }
    return Value::of(std::move(items));
}

Value new_map(const std::string& name, const Arguments& arguments) {
    JinjaMap map;
    map.is_namespace = name == "namespace";
    arguments.require(name, 0, 1, [&] {
        std::vector<const char*> names;
        for (const auto& [key, value] : arguments.named) names.push_back(key.c_str());
        return names;
    }());
    if (const Value* from = arguments.find(0)) {
        if (from->map() == nullptr || from->map()->is_namespace) fault("{} wants a dict, not {}", name, from->kind());
        map.items = from->map()->items;
    }
    for (const auto& [key, value] : arguments.named) map.set(key, value);
    return Value::of(std::move(map));
}

/// The time now, or that of SOURCE_DATE_EPOCH, which builds that are to be repeated set.
Value time_now(const Arguments& arguments) {
    arguments.require("strftime_now", 1, 1);
    const std::string& format = text_of(arguments.positional.at(0), "strftime_now").bytes;
    const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
    const std::time_t now = fixed != nullptr ? static_cast<std::time_t>(std::atoll(fixed)) : std::time(nullptr);
    std::tm parts = {};
    fixed != nullptr ? gmtime_r(&now, &parts) : localtime_r(&now, &parts);
    char buffer[256];
    return Value::of(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &parts)));
}

}  // namespace

bool is_jinja_function(const std::string& name) { return is_one_of(kFunctions, name); }

Value call_jinja_function(const std::string& name, const Arguments& arguments, JinjaWork& work) {
    if (name == "range") return range(arguments, work);
    if (name == "strftime_now") return time_now(arguments);
    if (name != "raise_exception") return new_map(name, arguments);
    const Value* message = arguments.find(0, "message");
    fault("the template refuses the conversation: {}", message == nullptr ? "" : written(*message, work).bytes);
}

}  // namespace llmc
