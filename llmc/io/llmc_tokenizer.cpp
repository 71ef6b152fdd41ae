#include "llmc/io/llmc_tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <array>
#include <cstring>
#include <utility>

namespace llmc {
namespace {

constexpr int32_t kMagic = 20240328;
constexpr size_t kHeaderBytes = 1024;
constexpr int32_t kGpt2EndOfText = 50256;

using Header = std::array<int32_t, kHeaderBytes / sizeof(int32_t)>;

}  // namespace

bool is_llmc_tokenizer(std::span<const std::byte> bytes) {
    int32_t magic = 0;
    if (bytes.size() < sizeof magic) return false;
    std::memcpy(&magic, bytes.data(), sizeof magic);
    return magic == kMagic;
}

LlmcTokenizer::LlmcTokenizer(std::string name, const std::string& path) : name_(std::move(name)) {
    const MappedFile file(path);
    Header header = {};
    std::string_view rest = file.text();
    if (rest.size() < kHeaderBytes)
        fail("tokenizer file '{}' is truncated: its header alone has {} bytes", path, kHeaderBytes);
    std::memcpy(header.data(), rest.data(), kHeaderBytes);
    rest.remove_prefix(kHeaderBytes);
    if (header[1] != 1 && header[1] != 2) {
        fail("tokenizer file '{}' has version {}; this program reads 1 and 2", path, header[1]);
    }
    end_of_text_ = header[1] == 1 ? kGpt2EndOfText : header[3];
    for (int32_t id = 0; id < header[2]; ++id) {
        const size_t length = rest.empty() ? 0 : static_cast<unsigned char>(rest[0]);
        if (rest.empty() || rest.size() < 1 + length) {
            fail("tokenizer file '{}' is truncated at token {} of {}; copy or make it again", path, id, header[2]);
        }
        tokens_.emplace_back(rest.substr(1, length));
        rest.remove_prefix(1 + length);
    }
    if (tokens_.empty() || !rest.empty() || end_of_text_ < 0 || end_of_text_ >= vocab_size()) {
        fail("tokenizer file '{}' is corrupt: {} tokens, end-of-text {}, {} bytes too many", path, header[2],
             end_of_text_, rest.size());
    }
}

std::unique_ptr<Encoder> LlmcTokenizer::make_encoder(SpecialTokens) const {
    fail(
        "text cannot be turned into tokens by '{}': llm.c's tokenizer file has no merges; give vocab.json with "
        "merges.txt, "
        "or tokenizer.json",
        name_);
}

std::string LlmcTokenizer::token_bytes(int32_t token) const {
    if (token < 0 || token >= vocab_size()) {
        fail("token {} is not in the vocabulary of tokenizer '{}', which has {}; the data or model needs another one",
             token, name_, vocab_size());
    }
    return tokens_[static_cast<size_t>(token)];
}

std::string LlmcTokenizer::decode(std::span<const int32_t> tokens) const {
    std::string text;
    for (const int32_t token : tokens) {
        if (token != end_of_text_) text += token_bytes(token);
    }
    return text;
}

void write_llmc_tokenizer(const Tokenizer& tokenizer, const std::string& path) {
    if (tokenizer.vocab_size() == 0 || tokenizer.end_of_text() < 0) {
        fail("'{}' cannot be written as llm.c's tokenizer file: its vocabulary or its end-of-text is not known",
             tokenizer.name());
    }
    const Header header = {kMagic, 2, tokenizer.vocab_size(), tokenizer.end_of_text()};
    std::string content(reinterpret_cast<const char*>(header.data()), kHeaderBytes);
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
        std::string bytes = tokenizer.token_bytes(id);
        if (bytes.empty()) bytes = fmt::format("<|{}|>", id);
        if (bytes.size() > 255) {
            fail("token {} of '{}' has {} bytes, but llm.c's tokenizer file holds at most 255 for each", id,
                 tokenizer.name(), bytes.size());
        }
        content += static_cast<char>(bytes.size());
        content += bytes;
    }
    write_shared_text(path, content);
}

}  // namespace llmc
