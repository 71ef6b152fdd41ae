// Where a generated text begins and ends: the token in front of it, the tokens that end it, and a text that stops it.
#pragma once

#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Ids of a model, from its tokenizer and from generation_config.json and config.json in its tokenizer's folder.
struct EndTokens {
    int32_t document = -1;      ///< Stands in front of documents; -1 where unknown.
    std::vector<int32_t> ends;  ///< End a text: `document`, and every eos_token_id. Those below V.
};
EndTokens end_tokens(const Tokenizer& tokenizer, const std::string& folder, int64_t V);

/// Passes a text on as it comes, up to where `stop` would begin.
class StopText {
  public:
    using Print = std::function<void(std::string_view)>;
    StopText(std::string stop, Print print);
    /// Adds to the text; true once it has the stop in it. What may be its beginning is held back.
    bool add(std::string_view text);
    /// Prints what was held back, if the stop did not come.
    void finish();

  private:
    std::string stop_;
    Print print_;
    std::string held_;
    bool has_come_ = false;
};

}  // namespace llmc
