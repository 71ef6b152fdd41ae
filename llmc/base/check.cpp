#include "llmc/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace llmc {

void check_failed(const char* file, int line, const char* expression, const std::string& values) {
    const char* open = values.empty() ? "" : " (";
    const char* close = values.empty() ? "" : ")";
    std::fprintf(stderr, "%s:%d: check failed: %s%s%s%s\n", file, line, expression, open, values.c_str(), close);
    std::abort();
}

}  // namespace llmc
