// The weights of a model in a file of any kind: a checkpoint, a Hugging Face folder, an llm.c file. They are read one
// parameter at a time, in fp32 and in the layout of Model::parameters, so that loading, importing and exporting are the
// same few lines for every kind, and a model is never in memory twice.
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/base/nf4.h"
#include "llmc/base/weight_format.h"
#include "llmc/model/model.h"

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

class WeightSource {
  public:
    explicit WeightSource(Model model) : model_(std::move(model)) {}
    virtual ~WeightSource() = default;
    WeightSource(const WeightSource&) = delete;
    WeightSource& operator=(const WeightSource&) = delete;

    const Model& model() const { return model_; }

    /// The values of a row of model().parameters, (used_rows, cols): without the padding rows of the vocabulary.
    virtual void read(int parameter, std::span<float> out) const = 0;
    /// How the matrices of its layers are stored, where that is NF4; nothing where it is some plain type.
    virtual std::optional<WeightFormat> nf4_format() const { return std::nullopt; }
    /// The part of a parameter (ParameterRow::parts) that begins with a row, as it is in NF4 there; nothing where it is
    /// not.
    virtual std::optional<Nf4Tensor> nf4_part(int parameter, int64_t first_row) const {
        static_cast<void>(parameter), static_cast<void>(first_row);
        return std::nullopt;
    }
    /// What it is, for messages: "the Hugging Face folder 'gpt2'".
    virtual std::string describe() const = 0;
    /// The tokenizer the model was trained with, as make_tokenizer() takes it; "none" where unknown.
    virtual std::string tokenizer() const { return "none"; }
    /// The folder that has the tokenizer's files; empty if there are none.
    virtual std::string tokenizer_folder() const { return ""; }
    /// The type it was trained in, and the length of its sequences; fp32 and 0 where unknown.
    virtual DType dtype() const { return DType::F32; }
    virtual int64_t seq_len() const { return 0; }
    /// Rows of the embedding in the llm.c file the weights came from; 0 if from elsewhere.
    virtual int64_t padded_vocab_size() const { return 0; }

    /// read() into a new vector.
    std::vector<float> values(int parameter) const {
        const ParameterRow& row = model_.parameters[static_cast<size_t>(parameter)];
        std::vector<float> result(static_cast<size_t>(row.used_rows * row.cols));
        read(parameter, result);
        return result;
    }

  private:
    Model model_;
};

}  // namespace llmc
