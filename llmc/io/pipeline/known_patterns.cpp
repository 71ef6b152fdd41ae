// Expressions of published tokenizers of which it is known how they cut in front of blanks: none looks back, and in
// each a match that has a letter never goes on with white space. Others are not trusted with it.
#include "llmc/io/pipeline/pre_tokenizer.h"

#include <algorithm>
#include <vector>

namespace llmc {
namespace {

/// A match that has a letter ends before a blank, and one begins there.
std::vector<std::string> cutting_patterns() {
    const std::string ends = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))", any = R"([^\r\n\p{L}\p{N}]?)";
    const std::string space = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)", cl100k_space = R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
    const std::string other = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)", o200k_other = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)";
    const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
    std::vector<std::string> patterns = {
        kGpt2Pattern,
        // GPT-2, written in another way.
        R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
        R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)",
        // cl100k.
        R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*)" + cl100k_space,
        R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+)"
        R"(|\s++$|\s*[\r\n]|\s+(?!\S)|\s)",
        ends + "|" + any + R"(\p{L}+|\p{N}{1,3})" + other + cl100k_space,
        // DeepSeek.
        R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
        R"(| ?[\p{P}\p{S}]+[\r\n]*)" +
            space,
    };
    for (const char* digits : {R"(|\p{N}{1,3})", R"(|\p{N})"}) {
        // Llama 3 and Qwen, with marks in words and without.
        patterns.push_back(ends + "|" + any + R"(\p{L}+)" + digits + other + space);
        patterns.push_back(ends + "|" + any + R"([\p{L}\p{M}]+)" + digits + other + space);
        patterns.push_back(ends + "|" + any + R"([\p{L}\p{M}]+)" + digits + R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" +
                           space);
        // o200k, with contractions and without.
        for (const std::string& end : {ends + "?", std::string()}) {
            patterns.push_back(any + upper + "*" + lower + "+" + end + "|" + any + upper + "+" + lower + "*" + end +
                               digits + o200k_other + space);
        }
    }
    return patterns;
}

/// Characters that are neither letters nor white space, or only letters of some scripts: a blank is never in a match.
std::vector<std::string> keeping_patterns() {
    return {R"(\p{N}{1,3})", R"(\p{N})", R"(\p{N}+)", R"(\d{1,3})",
            R"(\d)",         R"(\d+)",   "[0-9]",     "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"};
}

bool has(const std::vector<std::string>& patterns, const std::string& pattern) {
    return std::find(patterns.begin(), patterns.end(), pattern) != patterns.end();
}

}  // namespace

BlankCut known_pattern_cut(const std::string& pattern, SplitBehavior behavior, bool invert) {
    static const std::vector<std::string> kCutting = cutting_patterns(), kKeeping = keeping_patterns();
    const bool all_pieces = behavior == SplitBehavior::Isolated || (behavior == SplitBehavior::Removed && invert);
    if (!all_pieces) return BlankCut::Unknown;
    if (has(kCutting, pattern)) return BlankCut::Cut;
    return !invert && has(kKeeping, pattern) ? BlankCut::Kept : BlankCut::Unknown;
}

}  // namespace llmc
