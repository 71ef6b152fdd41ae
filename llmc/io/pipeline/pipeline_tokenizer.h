// A tokenizer as a pipeline: added tokens are found in the text; what is between them is normalised and cut into
// pieces; a model makes tokens of every piece. tokenizer.json, vocab.json with merges.txt, and rank files are read as
// such. Any bytes can be encoded: one that is no part of valid UTF-8 stands alone, between texts.
#pragma once

#include "llmc/io/pipeline/added_tokens.h"
#include "llmc/io/pipeline/decoder.h"
#include "llmc/io/pipeline/document_token.h"
#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/pre_tokenizer.h"
#include "llmc/io/pipeline/token_model.h"
#include "llmc/io/tokenizer.h"

#include <memory>
#include <string>
#include <vector>

namespace llmc {

/// The stages, in the order in which a text meets them.
struct Pipeline {
    std::string source;  ///< File it came from, for messages.
    std::vector<AddedToken> added;
    std::vector<std::unique_ptr<Normalizer>> normalizers;
    std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers;
    std::unique_ptr<TokenModel> model;
    Decoder decoder;
    DocumentToken document_token;
    /// normalizer, pre_tokenizer and post_processor as tokenizer.json writes them, a JSON object, for files that name
    /// stages otherwise.
    std::string stages = "{}";
};

class PipelineTokenizer final : public Tokenizer {
  public:
    PipelineTokenizer(std::string name, Pipeline pipeline);
    std::string name() const override { return name_; }
    int32_t vocab_size() const override { return vocab_size_; }
    int32_t end_of_text() const override { return pipeline_.document_token.id; }
    std::string describe_end_of_text() const override;
    std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const override;
    std::string token_bytes(int32_t token) const override;
    std::string decode(std::span<const int32_t> tokens) const override;

    const Pipeline& pipeline() const { return pipeline_; }

  private:
    friend class PipelineEncoder;
    /// The token as it goes into the decoder; an Error if it is outside the vocabulary, "" for an id without a name.
    const std::string& name_of_token(int32_t token) const;

    std::string name_;
    Pipeline pipeline_;
    int32_t vocab_size_ = 0;
    std::vector<std::string> added_names_;  ///< By id, what decodes; "" for tokens of the model.
    AddedTokenFinder raw_;                  ///< Tokens that are looked for before normalisation.
    AddedTokenFinder normal_;               ///< Those that are looked for behind it.
    BlankCut cut_before_space_ = BlankCut::Unknown, cut_before_newline_ = BlankCut::Unknown;
    mutable LostText lost_;
};

}  // namespace llmc
