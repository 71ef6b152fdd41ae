#include "llmc/train/hellaswag_tokens.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <algorithm>

namespace llmc {
namespace {

/// Valid UTF-8 (RFC 3629) without control characters: what the text of an example is.
bool is_plain_text(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const size_t size = byte < 0x80 ? 1 : byte < 0xc2 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 0;
        const bool is_control = (byte < 32 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 127;
        if (size == 0 || is_control || i + size > text.size()) return false;
        for (size_t k = 1; k < size; ++k) {
            if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
        }
        i += size;
    }
    return true;
}

/// For a message: one line, and not too long.
std::string excerpt(std::string text) {
    constexpr size_t kLongest = 60;
    for (char& c : text) c = c >= ' ' && c < 127 ? c : '?';
    return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

std::unique_ptr<Encoder> encoder_or_null(const Tokenizer& tokenizer) {
    try {
        return tokenizer.make_encoder(SpecialTokens::AsText);
    } catch (const Error&) {  // It can only decode.
        return nullptr;
    }
}

/// The text, or what no text is.
std::string decoded(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens) {
    try {
        return tokenizer.decode(tokens);
    } catch (const Error&) {
        return std::string(1, '\0');
    }
}

void require_ids(int64_t V, std::span<const HellaswagExample> examples, const std::string& path) {
    const auto check = [&](const std::vector<int32_t>& tokens) {
        const int32_t largest = *std::max_element(tokens.begin(), tokens.end());
        if (largest < V) return;
        fail(
            "--hellaswag={}: token {} in it, but the model's vocabulary is {}; its tokens are GPT-2's, so make the "
            "file "
            "anew with the model's tokenizer",
            path, largest, V);
    };
    for (const HellaswagExample& example : examples) {
        check(example.context);
        for (const auto& ending : example.endings) check(ending);
    }
}

bool is_gpt2s(int64_t V) { return V >= 50257 && V <= 50432; }  // With what pads it.

}  // namespace

void require_tokens_of(const Tokenizer& tokenizer, int64_t V, std::span<const HellaswagExample> examples,
                       const std::string& path) {
    require_ids(V, examples, path);
    if (tokenizer.vocab_size() == 0) {
        if (is_gpt2s(V)) return;
        spdlog::warn(
            "--hellaswag={}: the model's tokenizer is not known, and its vocabulary of {} is not GPT-2's; the "
            "score means nothing unless the file was made for this model",
            path, V);
        return;
    }
    constexpr size_t kLookedAt = 100;
    const auto encoder = encoder_or_null(tokenizer);
    const bool is_bytes = tokenizer.name() == ByteTokenizer().name();
    const size_t count = std::min(examples.size(), kLookedAt);
    size_t good = 0, letters = 0, blanks = 0, wide = 0;  // In examples; in bytes.
    for (const HellaswagExample& example : examples.first(count)) {
        const std::string text = decoded(tokenizer, example.context);
        letters += text.size();
        blanks += static_cast<size_t>(std::count(text.begin(), text.end(), ' '));
        wide += static_cast<size_t>(std::count_if(text.begin(), text.end(), [](unsigned char c) { return c >= 0x80; }));
        if (!is_plain_text(text)) continue;
        std::vector<int32_t> again;
        if (encoder != nullptr) encoder->encode(text, /*continues=*/false, &again);
        good += encoder == nullptr || again == example.context ? 1 : 0;
    }
    // Any bytes come back as they are, but words have blanks between them. (Scripts without have no single bytes.)
    const bool has_words = !is_bytes || letters < 200 || 25 * blanks > letters || wide > letters / 2;
    if (2 * good >= count && has_words) return;
    fail(
        "--hellaswag={}: its tokens are not those of the model's tokenizer '{}', by which the first example reads "
        "'{}'; llm.c's files have GPT-2's, so make one with the model's tokenizer",
        path, tokenizer.name(), excerpt(decoded(tokenizer, examples[0].context)));
}

}  // namespace llmc
