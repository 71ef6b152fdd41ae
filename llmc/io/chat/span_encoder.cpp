// Where a place of the text falls among its tokens: what stands before the place, encoded by itself, decodes to as many
// bytes as do the tokens up to there, whatever the stages do to a text, since they do the same to both. A letter behind
// it keeps stages from taking white space off its end. The work is kept short by beginning at the last special token
// before the place: nothing reaches over one.
#include "llmc/io/chat/span_encoder.h"

#include "llmc/base/error.h"

#include <algorithm>

namespace llmc {
namespace {

constexpr const char* kProbe = "x";

size_t bytes_of(const Tokenizer& tokenizer, int32_t token) {
    try {
        return tokenizer.token_bytes(token).size();
    } catch (const Error&) {  // A hole in the vocabulary.
        return 0;
    }
}

}  // namespace

TokenLengths::TokenLengths(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), specials_(special_tokens_of(tokenizer)) {
    const auto size = static_cast<size_t>(tokenizer.vocab_size());
    for (size_t id = 0; id < size; ++id) bytes_.push_back(bytes_of(tokenizer, static_cast<int32_t>(id)));
    is_special_.resize(size);
    for (const SpecialToken& token : specials_) {
        is_special_[static_cast<size_t>(token.id)] = true;
        if (first_bytes_.find(token.name[0]) == std::string::npos) first_bytes_ += token.name[0];
    }
}

size_t TokenLengths::bytes(std::span<const int32_t> tokens) const {
    size_t sum = 0;
    for (const int32_t token : tokens) sum += bytes(token);
    return sum;
}

int32_t TokenLengths::special_id(std::string_view name) const {
    const auto is_it = [&](const SpecialToken& token) { return token.name == name; };
    const auto found = std::find_if(specials_.begin(), specials_.end(), is_it);
    return found == specials_.end() ? -1 : found->id;
}

const SpecialToken* TokenLengths::special_at(std::string_view text, size_t i) const {
    if (first_bytes_.find(text[i]) == std::string::npos) return nullptr;
    const std::string_view rest = text.substr(i);
    const auto is_it = [&](const SpecialToken& token) { return rest.starts_with(token.name); };
    const auto found = std::find_if(specials_.begin(), specials_.end(), is_it);
    return found == specials_.end() ? nullptr : &*found;
}

SpanEncoder::SpanEncoder(const TokenLengths& lengths)
    : lengths_(lengths), encoder_(lengths.tokenizer().make_encoder(SpecialTokens::AsIds)) {
    const std::string twice = std::string(kProbe) + kProbe;
    probe_bytes_ = decoded_bytes(twice, /*continues=*/false) - decoded_bytes(kProbe, /*continues=*/false);
}

size_t SpanEncoder::decoded_bytes(std::string_view text, bool continues) {
    scratch_.clear();
    encoder_->encode(text, continues, &scratch_);
    return lengths_.bytes(scratch_);
}

/// The special tokens of the text. None if the tokens do not have the same ones: a name may be part of another token.
std::vector<SpanEncoder::Anchor> SpanEncoder::anchors_in(std::string_view text, std::span<const int32_t> tokens) const {
    std::vector<Anchor> anchors;
    size_t token = 0;
    for (size_t i = 0; i < text.size();) {
        const SpecialToken* special = lengths_.special_at(text, i);
        if (special == nullptr) {
            ++i;
            continue;
        }
        while (token < tokens.size() && !lengths_.is_special(tokens[token])) ++token;
        if (token == tokens.size() || tokens[token] != special->id) return {};
        anchors.push_back({i, token++, i + special->name.size()});
        i = anchors.back().end;
    }
    while (token < tokens.size() && !lengths_.is_special(tokens[token])) ++token;
    return token == tokens.size() ? anchors : std::vector<Anchor>();
}

void SpanEncoder::encode(std::string_view text, std::span<const Stretch> stretches, std::vector<int32_t>* tokens,
                         std::vector<bool>* inside) {
    const size_t first = tokens->size();
    encoder_->encode(text, /*continues=*/false, tokens);
    const std::span<const int32_t> own = std::span<const int32_t>(*tokens).subspan(first);
    inside->resize(tokens->size(), false);
    if (stretches.empty()) return;
    const std::vector<Anchor> anchors = anchors_in(text, own);
    size_t token = 0, done = 0;  // Tokens before that one, and the bytes that they decode to.
    // Goes on to the first token that ends behind `place`, or with `begun` begins at or behind it; returns it.
    const auto go_to = [&](size_t place, bool begun) {
        const auto behind = std::upper_bound(anchors.begin(), anchors.end(), place,
                                             [](size_t p, const Anchor& anchor) { return p < anchor.end; });
        size_t base = 0, begin = 0;
        if (behind != anchors.begin()) {
            const Anchor& anchor = *(behind - 1);
            base = anchor.token, begin = anchor.place;
        }
        const bool ends_there = behind != anchors.begin() && (behind - 1)->end == place;
        if (ends_there) ++base;  // Stages may put a blank in front of what follows, which is no part of what is before.
        if (base > token) {
            done += lengths_.bytes(own.subspan(token, base - token));
            token = base;
        }
        if (ends_there) return token;
        // The decoded place, counted from `base` on.
        const std::string before = std::string(text.substr(begin, place - begin)) + kProbe;
        const size_t bytes = decoded_bytes(before, /*continues=*/begin > 0);
        const size_t here = lengths_.bytes(own.subspan(0, base)) + bytes - std::min(bytes, probe_bytes_);
        while (token < own.size()) {
            const size_t end = done + lengths_.bytes(own[token]);
            if (begun ? done >= here : end > here) break;
            done = end;
            ++token;
        }
        return token;
    };
    for (const auto& [begin, end] : stretches) {
        if (begin == end) continue;
        const size_t from = begin == 0 ? token : go_to(begin, /*begun=*/false);
        const size_t to = end == text.size() ? own.size() : go_to(end, /*begun=*/true);
        for (size_t i = from; i < to; ++i) (*inside)[first + i] = true;
        // A token that reaches over the border is the next stretch's, too.
        if (to > from && to < own.size()) {
            token = to - 1;
            done -= lengths_.bytes(own[token]);
        }
    }
}

}  // namespace llmc
