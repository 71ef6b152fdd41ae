#include "llmc/io/models_tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

class UnreadTokenizer final : public Tokenizer {
  public:
    UnreadTokenizer(std::string name, std::string why) : name_(std::move(name)), why_(std::move(why)) {}
    std::string name() const override { return name_; }
    int32_t vocab_size() const override { return 0; }
    int32_t end_of_text() const override { return -1; }
    std::unique_ptr<Encoder> make_encoder(SpecialTokens) const override {
        fail("the model's own tokenizer cannot be read ({}); name another one with --tokenizer", why_);
    }
    std::string token_bytes(int32_t token) const override { return unknown_.token_bytes(token); }
    std::string decode(std::span<const int32_t> tokens) const override { return unknown_.decode(tokens); }

    const std::string& why() const { return why_; }

  private:
    std::string name_, why_;
    UnknownTokenizer unknown_;
};

/// Of the ids that both have, how many are another token in each. Kinds of files differ in how they spell a few special
/// tokens, so that up to 1 % counts as none.
int32_t differing_ids(const Tokenizer& one, const Tokenizer& other) {
    const int32_t both = std::min(one.vocab_size(), other.vocab_size());
    int32_t count = 0;
    for (int32_t id = 0; id < both; ++id) count += one.token_bytes(id) == other.token_bytes(id) ? 0 : 1;
    return count <= both / 100 ? 0 : count;
}

void warn_of_other_ids(const Tokenizer& given, const std::string& models) {
    if (models.empty() || models == "none" || models == given.name()) return;
    try {
        const std::unique_ptr<Tokenizer> own = make_tokenizer(models);
        const int32_t count = differing_ids(given, *own);
        if (count == 0) return;
        const std::string sizes = given.vocab_size() == own->vocab_size()
                                      ? ""
                                      : fmt::format(" ({} tokens, not {})", format_count(given.vocab_size()),
                                                    format_count(own->vocab_size()));
        spdlog::warn(
            "--tokenizer: '{}' is not that of the model, '{}'{}: {} of its ids mean other tokens there; leave "
            "--tokenizer out",
            given.name(), models, sizes, format_count(count));
    } catch (const Error&) {  // Who cannot read the model's own has to name another.
    }
}

}  // namespace

std::unique_ptr<Tokenizer> make_models_tokenizer(const std::string& reference, const TokenizerChoices& choices) {
    try {
        return make_tokenizer(reference, choices);
    } catch (const Error& error) {
        if (error.exit_code() == kExitBadUsage) throw;
        return std::make_unique<UnreadTokenizer>(reference, error.what());
    }
}

void warn_if_unread(const Tokenizer& tokenizer) {
    const auto* const unread = dynamic_cast<const UnreadTokenizer*>(&tokenizer);
    if (unread == nullptr) return;
    spdlog::warn("{}; without it only token files can be read, and tokens are shown as numbers", unread->why());
}

std::unique_ptr<Tokenizer> make_given_tokenizer(const std::string& reference, const std::string& models,
                                                const TokenizerChoices& choices) {
    std::unique_ptr<Tokenizer> tokenizer;
    try {
        tokenizer = make_tokenizer(reference, choices);
    } catch (const Error& error) {
        if (error.exit_code() == kExitBadUsage) throw;  // Another option's.
        fail("--tokenizer: {}", error.what());
    }
    warn_of_other_ids(*tokenizer, models);
    return tokenizer;
}

}  // namespace llmc
