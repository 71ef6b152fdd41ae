// Fields of a config.json, taken out strictly. A field that is null counts as absent, as transformers treats it.
#pragma once

#include "llmc/base/error.h"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace llmc {

class HfFields {
  public:
    /// Errors name `path`, the file. Both must outlive this.
    HfFields(const nlohmann::json& object, const std::string& path);

    bool has(const char* name) const;
    /// Whether it is there, be it null.
    bool mentions(const char* name) const;
    const nlohmann::json& value(const char* name) const;
    const nlohmann::json& all() const { return object_; }
    const std::string& path() const { return path_; }

    int64_t integer(const char* name) const;
    int64_t integer(const char* name, int64_t otherwise) const { return has(name) ? integer(name) : otherwise; }
    double number(const char* name) const;
    double number(const char* name, double otherwise) const { return has(name) ? number(name) : otherwise; }
    /// Above 0.
    double positive(const char* name) const;
    double positive(const char* name, double otherwise) const { return has(name) ? positive(name) : otherwise; }
    bool flag(const char* name, bool otherwise) const;
    std::string text(const char* name, const std::string& otherwise) const;
    /// Of numbers above 0.
    std::vector<double> numbers(const char* name) const;
    HfFields object(const char* name) const { return {value(name), path_}; }

    /// Refuses a field that would make another model of it.
    void refuse(const char* name, bool unsupported, const std::string& supported) const {
        if (unsupported) refuse(name, supported);
    }
    [[noreturn]] void refuse(const char* name, const std::string& supported) const;
    [[noreturn]] void wrong(const char* name, const char* wanted) const;

  private:
    void require(const char* name) const;

    const nlohmann::json& object_;
    const std::string& path_;
};

}  // namespace llmc
