#include "llmc/io/special_names.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/parallel_for.h"
#include "llmc/base/units.h"

#include <algorithm>

namespace llmc {
namespace {

/// The text of a token, or "" where it has none.
std::string text_of(const Tokenizer& tokenizer, int32_t token) {
    try {
        return tokenizer.token_bytes(token);
    } catch (const Error&) {
        return "";
    }
}

bool looks_special(std::string_view name) {
    return name.size() >= 3 &&
           ((name.front() == '<' && name.back() == '>') || (name.front() == '[' && name.back() == ']'));
}

size_t first_two(std::string_view text) {
    return static_cast<unsigned char>(text[0]) * size_t{256} + static_cast<unsigned char>(text[1]);
}

std::unique_ptr<Encoder> encoder_or_null(const Tokenizer& tokenizer, SpecialTokens special) {
    try {
        return tokenizer.make_encoder(special);
    } catch (const Error&) {
        return nullptr;
    }
}

}  // namespace

std::vector<SpecialToken> special_tokens_of(const Tokenizer& tokenizer) {
    std::vector<SpecialToken> tokens;
    const auto as_text = encoder_or_null(tokenizer, SpecialTokens::AsText);
    const auto as_ids = encoder_or_null(tokenizer, SpecialTokens::AsIds);
    const int32_t size = as_text == nullptr ? 0 : tokenizer.vocab_size();
    for (int32_t id = 0; id < size; ++id) {
        std::string name = text_of(tokenizer, id);
        if (id != tokenizer.end_of_text() && !looks_special(name)) continue;
        if (name.size() < 3) continue;
        std::vector<int32_t> text, ids;
        as_text->encode(name, /*continues=*/false, &text);
        if (as_ids != nullptr) as_ids->encode(name, /*continues=*/false, &ids);
        const bool is_special =
            as_ids != nullptr ? ids == std::vector{id} && text != ids : id == tokenizer.end_of_text();
        if (is_special) tokens.push_back({std::move(name), id});
    }
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](const auto& a, const auto& b) { return a.name.size() > b.name.size(); });
    return tokens;
}

SpecialNames::SpecialNames(const Tokenizer& tokenizer)
    : can_be_ids_(encoder_or_null(tokenizer, SpecialTokens::AsIds) != nullptr) {
    for (SpecialToken& token : special_tokens_of(tokenizer)) names_.push_back(std::move(token.name));
    beginnings_.resize(size_t{1} << 16);
    for (const std::string& name : names_) {
        beginnings_[first_two(name)] = true;
        if (first_bytes_.find(name[0]) == std::string::npos) first_bytes_ += name[0];
    }
    counts_ = std::make_unique<std::atomic<int64_t>[]>(names_.size());
}

size_t SpecialNames::at(std::string_view text) const {
    if (text.size() < 2 || !beginnings_[first_two(text)]) return names_.size();
    const auto name = std::find_if(names_.begin(), names_.end(), [&](const auto& n) { return text.starts_with(n); });
    return static_cast<size_t>(name - names_.begin());
}

void SpecialNames::count(std::string_view text) {
    for (const char first : first_bytes_) {
        for (size_t i = text.find(first); i != std::string_view::npos;) {
            const size_t name = at(text.substr(i));
            if (name < names_.size()) counts_[name].fetch_add(1, std::memory_order_relaxed);
            i = text.find(first, i + (name < names_.size() ? names_[name].size() : 1));
        }
    }
}

void SpecialNames::count_on_threads(std::string_view text, int threads) {
    constexpr size_t kPiece = size_t{1} << 22;
    if (names_.empty()) return;
    ProgressBar progress("looking for special tokens", static_cast<int64_t>(text.size()));
    std::vector<size_t> cuts = {0};
    while (cuts.back() < text.size()) {
        cuts.assign(1, cuts.back());
        while (cuts.back() < text.size() && cuts.size() <= 16 * static_cast<size_t>(threads)) {
            size_t cut = std::min(cuts.back() + kPiece, text.size());
            while (cut < text.size() && cuts_through(text, cut)) ++cut;
            cuts.push_back(cut);
        }
        parallel_for(threads, static_cast<int64_t>(cuts.size()) - 1, [&](int64_t i, int) {
            const auto piece = static_cast<size_t>(i);
            count(text.substr(cuts[piece], cuts[piece + 1] - cuts[piece]));
        });
        progress.update(static_cast<int64_t>(cuts.back()));
    }
}

bool SpecialNames::cuts_through(std::string_view text, size_t p) const {
    const size_t longest = names_.empty() ? 0 : names_.front().size();
    for (size_t i = p - std::min(p, longest); i < p; ++i) {
        const size_t name = at(text.substr(i));
        if (name < names_.size() && i + names_[name].size() > p) return true;
    }
    return false;
}

int64_t SpecialNames::total() const {
    int64_t sum = 0;
    for (size_t i = 0; i < names_.size(); ++i) sum += counts_[i];
    return sum;
}

std::string SpecialNames::found() const {
    std::string all;
    for (size_t i = 0; i < names_.size(); ++i) {
        if (counts_[i] == 0) continue;
        all += fmt::format("{}'{}' {} time{}", all.empty() ? "" : ", ", names_[i], format_count(counts_[i]),
                           counts_[i] == 1 ? "" : "s");
    }
    return all;
}

void SpecialNames::report(const std::string& option) const {
    const std::string names = found();
    if (names.empty()) return;
    spdlog::warn("{}: in the text stands {}, read as letters{}", option, names,
                 can_be_ids_ ? "; for the tokens of these names, give --special-tokens" : "");
}

}  // namespace llmc
