// Text from outside (a model's, a prompt's) on standard output. A pipe gets its bytes; a terminal would obey some of
// them, so it gets control characters, and bytes that are not UTF-8, as \xNN.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// `text` as standard output shall show it.
std::string shown_on_output(std::string_view text);

/// The same for a text that comes in parts, which may end within a character.
class ShownText {
  public:
    /// Whether escapes are needed; of standard output.
    ShownText();
    explicit ShownText(bool is_terminal) : is_terminal_(is_terminal) {}

    /// What can be shown now that this has come.
    std::string add(std::string_view part);
    /// What was held back, at the end.
    std::string finish();

  private:
    bool is_terminal_;
    std::string held_;  ///< The beginning of a character.
};

}  // namespace llmc
