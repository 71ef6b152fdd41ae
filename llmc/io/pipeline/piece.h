// Text on its way through a pipeline, piece by piece.
#pragma once

#include <string_view>

namespace llmc {

struct Piece {
    std::string_view text;
    bool is_first = false;  ///< Begins with the document's first character.
};

/// Takes pieces in their order; none is empty. The text lives as long as the call.
class PieceSink {
  public:
    virtual ~PieceSink() = default;
    virtual void take(Piece piece) = 0;
};

}  // namespace llmc
