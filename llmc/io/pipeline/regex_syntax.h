// Oniguruma's syntax, in which tokenizers' patterns are written, said in PCRE2's. The two agree on most; what differs
// is rewritten: \s, \w, \d, \h and \b over Unicode, scripts, nested classes and intersections, {n,m}+ and {,n}, (?m).
// https://github.com/kkos/oniguruma/blob/master/doc/RE
#pragma once

#include <string>
#include <string_view>

namespace llmc {

struct RegexSyntax {
    std::string pattern;   ///< For PCRE2 with UTF, UCP and MULTILINE.
    std::string obstacle;  ///< What cannot be said, by name; else "".
};

RegexSyntax to_pcre2(std::string_view pattern);

}  // namespace llmc
