// GPT-2 model files of llm.c: a header of 256 int32 (magic, version, maxT, V, L, NH, C, Vp, zeros), then 16 tensors
// back to back, each holding all layers, row-major with weights (out, in): wte (Vp, C), wpe (maxT, C), ln1w, ln1b,
// qkvw, qkvb, attprojw, attprojb, ln2w, ln2b, fcw, fcb, fcprojw, fcprojb, lnfw, lnfb. All of them are fp32 in version 3
// and bf16 in version 5. The head is the embedding. Format: https://github.com/karpathy/llm.c, train_gpt2.py.
#pragma once

#include "llmc/base/file.h"
#include "llmc/io/weights.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Whether a file starts with the magic number of a model file.
bool is_llmc_model(std::span<const std::byte> bytes);

/// An open file, memory-mapped.
class LlmcModel final : public WeightSource {
  public:
    /// An Error if magic, version, sizes or the file's length are wrong.
    explicit LlmcModel(const std::string& path) : LlmcModel(MappedFile(path)) {}
    explicit LlmcModel(MappedFile file);

    void read(int parameter, std::span<float> out) const override;
    std::string describe() const override;
    int64_t padded_vocab_size() const override { return padded_vocab_size_; }

  private:
    MappedFile file_;
    DType dtype_ = DType::F32;
    int64_t padded_vocab_size_ = 0;
    std::vector<int64_t> offsets_;  ///< By parameter, in bytes.
};

/// Writes a file of that type, fp32 or bf16. The embedding gets the padding rows of the file the weights came from, or
/// of llm.c. An Error if llm.c has no such model.
void write_llmc_model(const std::string& path, const WeightSource& weights, DType dtype);

}  // namespace llmc
