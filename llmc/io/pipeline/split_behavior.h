// What becomes of the matches, and of what is between them, when a pre-tokeniser splits a piece.
#pragma once

#include "llmc/io/pipeline/piece.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace llmc {

enum class SplitBehavior : uint8_t {
    Removed,             ///< Matches are dropped.
    Isolated,            ///< Matches are pieces of their own.
    MergedWithPrevious,  ///< A match ends the piece before it.
    MergedWithNext,      ///< A match begins the piece after it.
    Contiguous,          ///< Neighbouring matches are one piece.
};

/// The behaviour that a file calls so; an Error that names `source` if there is none.
SplitBehavior split_behavior(const std::string& name, const std::string& source);

/// Turns matches and the stretches between them, which are told in their order, into pieces.
class PieceCutter {
  public:
    PieceCutter(SplitBehavior behavior, bool invert, PieceSink& next)
        : behavior_(behavior), invert_(invert), next_(next) {}

    void start(Piece piece) {
        piece_ = piece;
        begin_ = end_ = 0;
        is_held_ = was_match_ = false;
    }
    /// [begin, end) is a match, or is between two; it may be empty.
    void add(size_t begin, size_t end, bool is_match) {
        is_match = is_match != invert_;
        if (behavior_ == SplitBehavior::Isolated || (behavior_ == SplitBehavior::Removed && !is_match)) {
            emit(begin, end);
        } else if (behavior_ != SplitBehavior::Removed) {
            hold(begin, end, is_match);
        }
    }
    void finish() {
        if (is_held_) emit(begin_, end_);
        is_held_ = false;
    }

  private:
    void hold(size_t begin, size_t end, bool is_match);
    void emit(size_t begin, size_t end) {
        if (begin < end) next_.take({piece_.text.substr(begin, end - begin), piece_.is_first && begin == 0});
    }

    SplitBehavior behavior_;
    bool invert_;
    PieceSink& next_;
    Piece piece_;
    size_t begin_ = 0, end_ = 0;  ///< What is held back, since it may grow.
    bool is_held_ = false;
    bool was_match_ = false;
};

}  // namespace llmc
