#include "llmc/io/pipeline/decoder.h"

#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/unicode.h"

#include <cctype>
#include <string_view>
#include <utility>

namespace llmc {
namespace {

void replace_all(std::string* text, const std::string& from, std::string_view to) {
    if (from.empty()) return;
    for (size_t p = text->find(from); p != std::string::npos; p = text->find(from, p + to.size())) {
        text->replace(p, from.size(), to);
    }
}

class ByteLevelDecoder final : public DecoderStage {
  public:
    void apply(std::string* text, bool, bool) const override {
        std::string bytes;
        if (from_alphabet(*text, &bytes)) *text = std::move(bytes);
    }
    bool fuses() const override { return true; }
};

class ByteFallbackDecoder final : public DecoderStage {
  public:
    void apply(std::string* text, bool, bool) const override {
        const bool is_byte = text->size() == 6 && text->starts_with("<0x") && text->ends_with('>') &&
                             std::isxdigit(static_cast<unsigned char>((*text)[3])) != 0 &&
                             std::isxdigit(static_cast<unsigned char>((*text)[4])) != 0;
        if (is_byte) *text = std::string(1, static_cast<char>(std::stoi(text->substr(3, 2), nullptr, 16)));
    }
};

class FuseDecoder final : public DecoderStage {
  public:
    void apply(std::string*, bool, bool) const override {}
    bool fuses() const override { return true; }
};

class ReplaceDecoder final : public DecoderStage {
  public:
    explicit ReplaceDecoder(std::unique_ptr<Normalizer> replace) : replace_(std::move(replace)) {}
    void apply(std::string* text, bool, bool) const override {
        NormalText normal = {std::move(*text), false, false};
        replace_->apply(&normal);
        *text = std::move(normal.text);
    }

  private:
    std::unique_ptr<Normalizer> replace_;
};

class StripDecoder final : public DecoderStage {
  public:
    StripDecoder(std::string content, size_t start, size_t stop)
        : content_(std::move(content)), start_(start), stop_(stop) {}
    void apply(std::string* text, bool, bool) const override {
        for (size_t i = 0; i < start_ && text->starts_with(content_); ++i) text->erase(0, content_.size());
        for (size_t i = 0; i < stop_ && text->ends_with(content_); ++i) text->erase(text->size() - content_.size());
    }

  private:
    std::string content_;
    size_t start_, stop_;
};

class MetaspaceDecoder final : public DecoderStage {
  public:
    MetaspaceDecoder(std::string replacement, bool drops_first)
        : replacement_(std::move(replacement)), drops_first_(drops_first) {}
    void apply(std::string* text, bool is_first, bool) const override {
        replace_all(text, replacement_, is_first && drops_first_ ? "" : " ");
    }

  private:
    std::string replacement_;
    bool drops_first_;
};

class SuffixDecoder final : public DecoderStage {
  public:
    explicit SuffixDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
    void apply(std::string* text, bool, bool is_last) const override { replace_all(text, suffix_, is_last ? "" : " "); }

  private:
    std::string suffix_;
};

}  // namespace

std::unique_ptr<DecoderStage> make_byte_level_decoder() { return std::make_unique<ByteLevelDecoder>(); }

std::unique_ptr<DecoderStage> make_byte_fallback_decoder() { return std::make_unique<ByteFallbackDecoder>(); }

std::unique_ptr<DecoderStage> make_fuse_decoder() { return std::make_unique<FuseDecoder>(); }

std::unique_ptr<DecoderStage> make_replace_decoder(const std::string& pattern, const std::string& content,
                                                   const std::string& source) {
    return std::make_unique<ReplaceDecoder>(make_replace(pattern, content, source));
}

std::unique_ptr<DecoderStage> make_literal_replace_decoder(const std::string& text, const std::string& content,
                                                           const std::string& source) {
    return std::make_unique<ReplaceDecoder>(make_literal_replace(text, content, source));
}

std::unique_ptr<DecoderStage> make_strip_decoder(const std::string& content, size_t start, size_t stop) {
    return std::make_unique<StripDecoder>(content, start, stop);
}

std::unique_ptr<DecoderStage> make_metaspace_decoder(const std::string& replacement, bool drops_first) {
    return std::make_unique<MetaspaceDecoder>(replacement, drops_first);
}

std::unique_ptr<DecoderStage> make_suffix_decoder(const std::string& suffix) {
    return std::make_unique<SuffixDecoder>(suffix);
}

std::string Decoder::decode(std::span<const std::string> tokens) const {
    std::string all;
    size_t next = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
        std::string text = tokens[i];
        for (next = 0; next < stages_.size(); ++next) {
            stages_[next]->apply(&text, i == 0, i + 1 == tokens.size());
            if (!stages_[next]->fuses()) continue;
            ++next;
            break;
        }
        all += text;
        if (stages_.empty() && i + 1 < tokens.size()) all += ' ';
    }
    for (; next < stages_.size() && !tokens.empty(); ++next) stages_[next]->apply(&all, true, true);
    return all;
}

std::string Decoder::decode_next(const std::string& token) const {
    std::string text = stages_.empty() ? " " + token : token;
    for (const auto& stage : stages_) {
        stage->apply(&text, false, false);
        if (stage->fuses()) break;
    }
    return text;
}

}  // namespace llmc
