#include "llmc/io/hf_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace llmc {

using nlohmann::json;

HfFields::HfFields(const json& object, const std::string& path) : object_(object), path_(path) {
    if (!object.is_object()) fail("'{}': {} is not a JSON object", path, object.dump());
}

bool HfFields::has(const char* name) const { return mentions(name) && !value(name).is_null(); }
bool HfFields::mentions(const char* name) const { return object_.contains(name); }
const json& HfFields::value(const char* name) const { return object_[name]; }

int64_t HfFields::integer(const char* name) const {
    require(name);
    constexpr double kMost = 1u << 31;  // Products of two are whole numbers still.
    if (!object_[name].is_number_integer()) wrong(name, "a whole number");
    if (!(std::abs(object_[name].get<double>()) <= kMost)) wrong(name, "a number that a model can have");
    return object_[name].get<int64_t>();
}

double HfFields::number(const char* name) const {
    require(name);
    if (!object_[name].is_number()) wrong(name, "a number");
    return object_[name].get<double>();
}

double HfFields::positive(const char* name) const {
    const double value = number(name);
    if (!(value > 0)) wrong(name, "above 0");
    return value;
}

bool HfFields::flag(const char* name, bool otherwise) const {
    if (!has(name)) return otherwise;
    if (!object_[name].is_boolean()) wrong(name, "true or false");
    return object_[name].get<bool>();
}

std::string HfFields::text(const char* name, const std::string& otherwise) const {
    if (!has(name)) return otherwise;
    if (!object_[name].is_string()) wrong(name, "a text");
    return object_[name].get<std::string>();
}

std::vector<double> HfFields::numbers(const char* name) const {
    require(name);
    const json& list = object_[name];
    const auto is_good = [](const json& value) { return value.is_number() && value.get<double>() > 0; };
    if (!list.is_array() || !std::all_of(list.begin(), list.end(), is_good)) wrong(name, "a list of numbers above 0");
    return list.get<std::vector<double>>();
}

void HfFields::refuse(const char* name, const std::string& supported) const {
    fail("'{}': {} is {}, which this program does not have; it has {}", path_, name,
         has(name) ? object_[name].dump() : "absent", supported);
}

void HfFields::wrong(const char* name, const char* wanted) const {
    fail("'{}': {} is {}, not {}", path_, name, object_[name].dump(), wanted);
}

void HfFields::require(const char* name) const {
    if (!has(name)) fail("'{}' has no field '{}'; it belongs to another kind of model or is incomplete", path_, name);
}

}  // namespace llmc
