#include "llmc/io/tokenizer.h"

#include "llmc/base/error.h"

namespace llmc {

std::vector<int32_t> ByteTokenizer::encode(std::string_view text) const {
    std::vector<int32_t> tokens;
    tokens.reserve(text.size());
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
}

std::string ByteTokenizer::decode(std::span<const int32_t> tokens) const {
    std::string text;
    text.reserve(tokens.size());
    for (const int32_t token : tokens) {
        if (token == kEndOfText) continue;
        if (token < 0 || token >= kVocabSize) {
            fail("token {} is not in the byte tokenizer's vocabulary of {}; the data or model needs another tokenizer",
                 token, kVocabSize);
        }
        text += static_cast<char>(token);
    }
    return text;
}

std::vector<int32_t> UnknownTokenizer::encode(std::string_view) const {
    fail("text cannot be turned into tokens: the model was trained on token files whose tokenizer is not known");
}

std::string UnknownTokenizer::decode(std::span<const int32_t> tokens) const {
    std::string text;
    for (const int32_t token : tokens) text += fmt::format("<{}>", token);
    return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& reference) {
    if (reference == "bytes") return std::make_unique<ByteTokenizer>();
    if (reference == "none") return std::make_unique<UnknownTokenizer>();
    fail("unknown tokenizer '{}'; this program has 'bytes' and 'none'", reference);
}

}  // namespace llmc
