#include "llmc/io/models_tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

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

  private:
    std::string name_, why_;
    UnknownTokenizer unknown_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_models_tokenizer(const std::string& reference, const TokenizerChoices& choices) {
    try {
        return make_tokenizer(reference, choices);
    } catch (const Error& error) {
        if (error.exit_code() == kExitBadUsage) throw;
        spdlog::warn("{}; without it only token files can be read, and tokens are shown as numbers", error.what());
        return std::make_unique<UnreadTokenizer>(reference, error.what());
    }
}

}  // namespace llmc
