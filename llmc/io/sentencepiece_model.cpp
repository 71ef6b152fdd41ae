#include "llmc/io/sentencepiece_model.h"

#include <cstdint>
#include <cstring>

namespace llmc {
namespace {

/// Fields of one message, in their order (https://protobuf.dev/programming-guides/encoding).
class FieldReader {
  public:
    explicit FieldReader(std::string_view message) : rest_(message) {}
    int number = 0;
    uint64_t value = 0;      ///< Of a number.
    std::string_view bytes;  ///< Of a text or a message.

    /// False at the end, and where the bytes make no sense.
    bool next() {
        uint64_t tag = 0, size = 0;
        if (rest_.empty() || !read_varint(&tag)) return false;
        number = static_cast<int>(tag >> 3);
        value = 0;
        bytes = {};
        switch (tag & 7) {
            case 0: return read_varint(&value);
            case 1: size = 8; break;
            case 2:
                if (!read_varint(&size)) return false;
                break;
            case 5: size = 4; break;
            default: return false;
        }
        if (size > rest_.size()) return false;
        bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return true;
    }

  private:
    bool read_varint(uint64_t* number_read) {
        *number_read = 0;
        for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
            const auto byte = static_cast<unsigned char>(rest_[0]);
            rest_.remove_prefix(1);
            *number_read |= uint64_t{byte & 0x7Fu} << shift;
            if (byte < 0x80) return true;
        }
        return false;
    }
    std::string_view rest_;
};

SentencePiece read_piece(std::string_view message) {
    constexpr int kText = 1, kScore = 2, kType = 3;
    SentencePiece piece;
    for (FieldReader field(message); field.next();) {
        if (field.number == kText) piece.text = field.bytes;
        if (field.number == kScore && field.bytes.size() == sizeof piece.score) {
            std::memcpy(&piece.score, field.bytes.data(), sizeof piece.score);
        }
        if (field.number == kType) piece.type = static_cast<SentencePiece::Type>(field.value);
    }
    return piece;
}

void read_trainer(std::string_view message, SentencePieceContent* content) {
    constexpr int kModelType = 3, kSpaceAsSuffix = 24, kUnk = 40, kBos = 41, kEos = 42, kPad = 43;
    for (FieldReader field(message); field.next();) {
        const auto id = static_cast<int32_t>(field.value);
        switch (field.number) {
            case kModelType: content->kind = static_cast<SentencePieceContent::Kind>(field.value); break;
            case kSpaceAsSuffix: content->space_as_suffix = field.value != 0; break;
            case kUnk: content->unk = id; break;
            case kBos: content->bos = id; break;
            case kEos: content->eos = id; break;
            case kPad: content->pad = id; break;
            default: break;
        }
    }
}

void read_normalizer(std::string_view message, SentencePieceContent* content) {
    constexpr int kName = 1, kCharacterMap = 2, kAddPrefix = 3, kRemoveBlanks = 4;
    for (FieldReader field(message); field.next();) {
        switch (field.number) {
            case kName: content->normalizer = field.bytes; break;
            case kCharacterMap: content->character_map = field.bytes; break;
            case kAddPrefix: content->adds_prefix = field.value != 0; break;
            case kRemoveBlanks: content->removes_blanks = field.value != 0; break;
            default: break;
        }
    }
}

}  // namespace

SentencePieceContent read_sentencepiece_model(std::string_view model) {
    constexpr int kPiece = 1, kTrainer = 2, kNormalizer = 3;
    SentencePieceContent content;
    for (FieldReader field(model); field.next();) {
        if (field.number == kPiece) content.pieces.push_back(read_piece(field.bytes));
        if (field.number == kTrainer) read_trainer(field.bytes, &content);
        if (field.number == kNormalizer) read_normalizer(field.bytes, &content);
    }
    return content;
}

SentencePieceFacts look_at_sentencepiece_model(std::string_view model) {
    const SentencePieceContent content = read_sentencepiece_model(model);
    SentencePieceFacts facts;
    facts.is_bpe = content.kind == SentencePieceContent::Kind::Bpe;
    facts.adds_prefix = content.adds_prefix;
    facts.keeps_text = content.character_map.empty() && !content.removes_blanks && !content.space_as_suffix;
    return facts;
}

std::string without_prefix(const std::string& model) {
    // A message that comes twice is merged: normalizer_spec { add_dummy_prefix: false }.
    return model + std::string("\x1a\x02\x18\x00", 4);
}

}  // namespace llmc
