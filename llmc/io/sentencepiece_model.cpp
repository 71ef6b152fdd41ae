#include "llmc/io/sentencepiece_model.h"

#include <cstdint>

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

}  // namespace

SentencePieceFacts look_at_sentencepiece_model(std::string_view model) {
    constexpr int kTrainer = 2, kNormalizer = 3;
    constexpr int kModelType = 3, kSpaceAsSuffix = 24;
    constexpr uint64_t kBpe = 2;
    constexpr int kCharacterMap = 2, kAddPrefix = 3, kRemoveBlanks = 4;
    SentencePieceFacts facts;
    bool has_map = false, removes_blanks = true, space_as_suffix = false;
    for (FieldReader field(model); field.next();) {
        if (field.number != kTrainer && field.number != kNormalizer) continue;
        const bool is_trainer = field.number == kTrainer;
        for (FieldReader inner(field.bytes); inner.next();) {
            if (is_trainer && inner.number == kModelType) facts.is_bpe = inner.value == kBpe;
            if (is_trainer && inner.number == kSpaceAsSuffix) space_as_suffix = inner.value != 0;
            if (!is_trainer && inner.number == kCharacterMap) has_map = !inner.bytes.empty();
            if (!is_trainer && inner.number == kAddPrefix) facts.adds_prefix = inner.value != 0;
            if (!is_trainer && inner.number == kRemoveBlanks) removes_blanks = inner.value != 0;
        }
    }
    facts.keeps_text = !has_map && !removes_blanks && !space_as_suffix;
    return facts;
}

std::string without_prefix(const std::string& model) {
    // A message that comes twice is merged: normalizer_spec { add_dummy_prefix: false }.
    return model + std::string("\x1a\x02\x18\x00", 4);
}

}  // namespace llmc
