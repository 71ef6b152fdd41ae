// HellaSwag (Zellers et al. 2019) in llm.c's file: a header of 256 int32 (magic, version, examples, bytes of the
// longest), then uint16s. An example is 65535, its bytes (these fields included), its number, the label, the number of
// endings, the context's length and tokens, and for every ending its length and tokens. Tokens are GPT-2's. Format:
// https://github.com/karpathy/llm.c, dev/data/hellaswag.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// A context and possible endings, one of which is right. None of them is empty.
struct HellaswagExample {
    std::vector<int32_t> context;
    std::vector<std::vector<int32_t>> endings;
    int64_t label = 0;  ///< The right one.
};

/// Reads the file. Anything wrong with it is an Error that names `option`, the file and the example.
std::vector<HellaswagExample> read_hellaswag(const std::string& path, const std::string& option);

}  // namespace llmc
