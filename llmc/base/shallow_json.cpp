#include "llmc/base/shallow_json.h"

#include <algorithm>
#include <cstddef>

namespace llmc {
namespace {

/// Behind the string that begins at `begin`.
size_t end_of_string(std::string_view text, size_t begin) {
    for (size_t i = begin + 1; i < text.size(); ++i) {
        if (text[i] == '"') return i + 1;
        if (text[i] == '\\') ++i;
    }
    return text.size();
}

}  // namespace

std::string_view shallow_json(std::string_view text) {
    int level = 0;
    for (size_t i = text.find_first_of("\"[]{}"); i < text.size(); i = text.find_first_of("\"[]{}", i)) {
        if (text[i] == '"') {
            i = end_of_string(text, i);
            continue;
        }
        level += text[i] == '[' || text[i] == '{' ? 1 : -1;
        if (level > kMostJsonLevels) return text.substr(0, i);
        ++i;
    }
    return text;
}

}  // namespace llmc
