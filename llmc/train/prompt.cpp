#include "llmc/train/prompt.h"

#include "llmc/base/error.h"
#include "llmc/io/special_names.h"

namespace llmc {

std::vector<int32_t> encode_prompt(const std::string& prompt, const Tokenizer& tokenizer, int32_t document, int64_t V,
                                   const PromptReading& reading) {
    std::vector<int32_t> tokens;
    if (!prompt.empty()) {
        const auto special = reading.special_tokens ? SpecialTokens::AsIds : SpecialTokens::AsText;
        tokenizer.make_encoder(special)->encode(prompt, /*continues=*/false, &tokens);
        if (!reading.special_tokens) {
            SpecialNames names(tokenizer);
            names.count(prompt);
            names.report(reading.option);
        }
    }
    const bool is_there = !tokens.empty() && tokens.front() == document;
    if (document >= 0 && !is_there) tokens.insert(tokens.begin(), document);
    if (tokens.empty()) tokens.push_back(0);
    for (const int32_t token : tokens) {
        if (token >= V) fail("{}: token {} is beyond the model's vocabulary of {}", reading.option, token, V);
    }
    return tokens;
}

}  // namespace llmc
