// A Jinja template and what it renders: the part of Jinja that chat templates use, in the environment that Hugging
// Face's library gives them. Everything else is refused with its line. A template comes with a model from anywhere:
// how long it runs, how much it writes and how deep it nests are bounded.
#pragma once

#include "llmc/io/jinja/tree.h"
#include "llmc/io/jinja/value.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {

struct JinjaRendered {
    JinjaText text;
    /// Bytes [begin, end) that {% generation %} blocks wrote.
    std::vector<std::pair<size_t, size_t>> generations;
};

class JinjaTemplate {
  public:
    /// Parses it. An Error that begins with "chat template NAME line N" where it has what is not supported.
    JinjaTemplate(std::string_view source, std::string name);
    /// Whether it has a {% generation %} block.
    bool has_generation() const { return has_generation_; }
    const std::string& name() const { return name_; }
    /// With these names defined. An Error where it raises one, does what makes no sense, or does not come to an end.
    /// Any number of threads at once.
    JinjaRendered render(const JinjaMap& context) const;

  private:
    std::string name_;
    JinjaBody body_;
    bool has_generation_ = false;
};

}  // namespace llmc
