#include "llmc/io/sentencepiece_tokenizer.h"

#include "llmc/base/error.h"

#ifdef LLMC_WITH_SENTENCEPIECE

#include "llmc/base/file.h"
#include "llmc/io/pipeline/unicode.h"
#include "llmc/io/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <array>
#include <utility>

namespace llmc {
namespace {

using Processor = sentencepiece::SentencePieceProcessor;

constexpr std::string_view kSpace = "\xE2\x96\x81";  ///< U+2581, which stands for a blank inside pieces.

class SentencePieceTokenizer final : public Tokenizer {
  public:
    SentencePieceTokenizer(std::string name, const std::string& path, const std::string& document_token)
        : name_(std::move(name)) {
        const std::string model = read_text(path);
        facts_ = look_at_sentencepiece_model(model);
        load(first_, path, model);
        load(next_, path, facts_.adds_prefix ? without_prefix(model) : model);
        for (size_t byte = 0; byte < 256; ++byte) {
            const int id = first_.PieceToId(fmt::format("<0x{:02X}>", byte));
            bytes_[byte] = first_.IsByte(id) ? id : first_.unk_id();
        }
        // Nothing joins a line to the next one: then a line's ids do not depend on its neighbours.
        lines_stand_alone_ = facts_.is_bpe && facts_.keeps_text && first_.IsByte(first_.PieceToId("<0x0A>"));
        for (int id = 0; id < first_.GetPieceSize(); ++id) {
            const std::string& piece = first_.IdToPiece(id);
            if (piece.size() > 1 && piece.find('\n') != std::string::npos) lines_stand_alone_ = false;
        }
        choose_end_of_text(document_token);
    }
    std::string name() const override { return name_; }
    int32_t vocab_size() const override { return first_.GetPieceSize(); }
    int32_t end_of_text() const override { return end_of_text_; }
    std::string describe_end_of_text() const override {
        if (end_of_text_ < 0) return "";
        return fmt::format("documents begin with '{}', token {}", first_.IdToPiece(end_of_text_), end_of_text_);
    }
    std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const override;

    std::string token_bytes(int32_t token) const override {
        if (token < 0 || token >= vocab_size()) {
            fail(
                "token {} is not in the vocabulary of tokenizer '{}', which has {}; the data or model needs another "
                "one",
                token, name_, vocab_size());
        }
        const std::string& piece = first_.IdToPiece(token);
        if (first_.IsByte(token)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
        std::string text;
        for (size_t i = 0; i < piece.size();) {
            const bool is_space = std::string_view(piece).substr(i).starts_with(kSpace);
            text += is_space ? ' ' : piece[i];
            i += is_space ? kSpace.size() : 1;
        }
        return text;
    }
    std::string decode(std::span<const int32_t> tokens) const override {
        std::string text;
        bool starts = facts_.adds_prefix;
        for (const int32_t token : tokens) {
            const std::string more = decode_next(token);
            if (token == end_of_text()) starts = facts_.adds_prefix;
            if (more.empty()) continue;
            text += starts && more.starts_with(' ') ? more.substr(1) : more;
            starts = false;
        }
        return text;
    }
    std::string decode_next(int32_t token) const override {
        std::string text = token_bytes(token);
        if (first_.IsControl(token)) return "";
        return first_.IsUnknown(token) ? " \xE2\x81\x87 " : text;  // As the library shows what it does not know.
    }

    void encode(std::string_view text, bool continues, std::vector<int32_t>* tokens) const {
        const Processor& processor = continues ? next_ : first_;
        if (valid_utf8_prefix(text) == text.size()) {
            std::vector<int> ids;
            require(processor.Encode(text, &ids));
            tokens->insert(tokens->end(), ids.begin(), ids.end());
            return;
        }
        // The library reads bytes that are not UTF-8 as U+FFFD. Its alignment says where: those become single bytes. Of
        // the byte tokens of one character, the last alone is aligned.
        const auto encoded = processor.EncodeAsImmutableProto(text);
        std::vector<int32_t> character;
        for (const auto& piece : encoded.pieces()) {
            const auto id = static_cast<int32_t>(piece.id());
            const std::string_view source = text.substr(piece.begin(), piece.end() - piece.begin());
            character.push_back(id);
            if (source.empty() && first_.IsByte(id)) continue;
            if (valid_utf8_prefix(source) < source.size()) {
                character.clear();
                for (const char c : source) character.push_back(bytes_[static_cast<unsigned char>(c)]);
            }
            tokens->insert(tokens->end(), character.begin(), character.end());
            character.clear();
        }
    }
    size_t safe_cut(std::string_view text, size_t from) const {
        if (!lines_stand_alone_) return text.size();
        const size_t end = text.find('\n', from == 0 ? 0 : from - 1);
        return end == std::string_view::npos ? text.size() : end + 1;
    }

  private:
    /// By its name or its id, or the model's own choice.
    void choose_end_of_text(const std::string& choice) {
        end_of_text_ = first_.bos_id() >= 0 ? first_.bos_id() : first_.eos_id();
        for (int id = 0; id < first_.GetPieceSize() && !choice.empty(); ++id) {
            if (first_.IdToPiece(id) != choice && std::to_string(id) != choice) continue;
            end_of_text_ = id;
            return;
        }
        if (choice.empty()) return;
        fail_usage("--document-token={}: the tokenizer has no such token; give the name, or the id, of one that it has",
                   choice);
    }
    void require(const sentencepiece::util::Status& status) const {
        if (!status.ok()) fail("the SentencePiece library could not encode the text: {}", status.message());
    }
    static void load(Processor& processor, const std::string& path, const std::string& model) {
        if (processor.LoadFromSerializedProto(model).ok()) return;
        fail("'{}' is a corrupt SentencePiece model; copy or download it again", path);
    }

    std::string name_;
    SentencePieceFacts facts_;
    Processor first_;  ///< For the beginning of a text, in front of which the model may put a blank.
    Processor next_;   ///< For what goes on.
    std::array<int32_t, 256> bytes_{};
    bool lines_stand_alone_ = false;
    int32_t end_of_text_ = -1;
};

class SentencePieceEncoder final : public Encoder {
  public:
    explicit SentencePieceEncoder(const SentencePieceTokenizer& tokenizer) : tokenizer_(tokenizer) {}
    void encode(std::string_view text, bool continues, std::vector<int32_t>* tokens) override {
        // The library is several times faster with short texts.
        constexpr size_t kPiece = 4096;
        for (; !text.empty(); continues = true) {
            const size_t cut = text.size() > kPiece ? safe_cut(text, kPiece) : text.size();
            tokenizer_.encode(text.substr(0, cut), continues, tokens);
            text.remove_prefix(cut);
        }
    }
    size_t safe_cut(std::string_view text, size_t from) override { return tokenizer_.safe_cut(text, from); }

  private:
    const SentencePieceTokenizer& tokenizer_;
};

std::unique_ptr<Encoder> SentencePieceTokenizer::make_encoder(SpecialTokens special) const {
    if (special == SpecialTokens::AsIds) {
        fail("SentencePiece models have no special tokens that can be written in a text; leave --special-tokens out");
    }
    return std::make_unique<SentencePieceEncoder>(*this);
}

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::string& name, const std::string& path,
                                                        const std::string& document_token) {
    return std::make_unique<SentencePieceTokenizer>(name, path, document_token);
}

}  // namespace llmc

#else

namespace llmc {

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::string&, const std::string& path,
                                                        const std::string&) {
    fail(
        "'{}' is a SentencePiece model, and this program was built without its library; install libsentencepiece-dev "
        "and "
        "build again",
        path);
}

}  // namespace llmc

#endif
