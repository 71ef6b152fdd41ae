#include "llmc/io/encoded_text.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/io/encode_corpus.h"

#include <algorithm>

namespace llmc {

EncodedText::EncodedText(MappedFile file, const Tokenizer& tokenizer, const std::string& option)
    : path_(file.path()),
      tokenizer_(tokenizer.name()),
      describes_end_of_text_(tokenizer.describe_end_of_text()),
      vocab_size_(tokenizer.vocab_size()),
      end_of_text_(tokenizer.end_of_text()) {
    TextCorpus corpus({path_}, /*jsonl_field=*/"", option);
    encode_corpus(corpus, tokenizer, SpecialTokens::AsText, threads_or_all(0),
                  [&](const CorpusChunk&, std::span<const int32_t> tokens) {
                      if (vocab_size_ <= 65536) {
                          small_.insert(small_.end(), tokens.begin(), tokens.end());
                      } else {
                          large_.insert(large_.end(), tokens.begin(), tokens.end());
                      }
                  });
}

void EncodedText::read(int64_t position, std::span<int32_t> out) const {
    const auto count = static_cast<int64_t>(out.size());
    CHECK(position >= 0 && position + count <= size(), position, count, size());
    if (large_.empty()) {
        std::copy_n(small_.begin() + position, count, out.begin());
    } else {
        std::copy_n(large_.begin() + position, count, out.begin());
    }
}

std::string EncodedText::where(int64_t position) const { return fmt::format("'{}' at token {}", path_, position); }

std::string EncodedText::describe() const {
    return fmt::format("'{}' is text, read with the tokenizer '{}'{}{}", path_, tokenizer_,
                       describes_end_of_text_.empty() ? "" : "; ", describes_end_of_text_);
}

}  // namespace llmc
