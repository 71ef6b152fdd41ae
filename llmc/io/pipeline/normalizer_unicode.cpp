// NFC, NFD, NFKC and NFKD, by ICU (https://unicode.org/reports/tr15).
#include "llmc/base/error.h"
#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <string_view>

namespace llmc {
namespace {

const icu::Normalizer2& instance_of(UnicodeForm form) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* instance = nullptr;
    switch (form) {
        case UnicodeForm::NFC: instance = icu::Normalizer2::getNFCInstance(status); break;
        case UnicodeForm::NFD: instance = icu::Normalizer2::getNFDInstance(status); break;
        case UnicodeForm::NFKC: instance = icu::Normalizer2::getNFKCInstance(status); break;
        case UnicodeForm::NFKD: instance = icu::Normalizer2::getNFKDInstance(status); break;
    }
    if (U_FAILURE(status) || instance == nullptr) {
        fail("ICU has no data for Unicode normalisation ({}); install its library again", u_errorName(status));
    }
    return *instance;
}

icu::UnicodeSet known_characters() {
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeSet set(UNICODE_STRING_SIMPLE("[:age=9.0:]"), status);
    if (U_FAILURE(status))
        fail("ICU has no data for Unicode's ages ({}); install its library again", u_errorName(status));
    set.freeze();
    return set;
}

class UnicodeNormalizer final : public Normalizer {
  public:
    explicit UnicodeNormalizer(UnicodeForm form) : known_(known_characters()), rules_(instance_of(form), known_) {}
    void apply(NormalText* text) const override {
        const std::string& from = text->text;
        if (std::all_of(from.begin(), from.end(), [](char c) { return static_cast<signed char>(c) >= 0; })) return;
        std::string out;
        out.reserve(from.size() + from.size() / 8);
        icu::StringByteSink<std::string> sink(&out);
        // ICU counts in 32 bits.
        for (std::string_view rest = from; !rest.empty();) {
            const size_t size = part_size(rest);
            UErrorCode status = U_ZERO_ERROR;
            rules_.normalizeUTF8(0, icu::StringPiece(rest.data(), static_cast<int32_t>(size)), sink, nullptr, status);
            if (U_FAILURE(status)) fail("ICU could not normalise the text: {}", u_errorName(status));
            rest.remove_prefix(size);
        }
        text->text = std::move(out);
    }
    bool allows_cuts() const override { return true; }
    bool keeps_ascii() const override { return true; }

  private:
    /// Up to a character that never joins what stands before it.
    size_t part_size(std::string_view text) const {
        constexpr size_t kPart = size_t{1} << 24;
        if (text.size() <= kPart) return text.size();
        size_t i = character_before(text, kPart);
        while (i < text.size() && rules_.hasBoundaryBefore(static_cast<UChar32>(character_at(text, i))) == 0) {
            i += utf8_bytes(text[i]);
        }
        return i;
    }

    icu::UnicodeSet known_;
    icu::FilteredNormalizer2 rules_;
};

}  // namespace

std::unique_ptr<Normalizer> make_unicode_normalizer(UnicodeForm form) {
    return std::make_unique<UnicodeNormalizer>(form);
}

}  // namespace llmc
