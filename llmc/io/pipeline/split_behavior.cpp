#include "llmc/io/pipeline/split_behavior.h"

#include "llmc/base/error.h"

namespace llmc {

SplitBehavior split_behavior(const std::string& name, const std::string& source) {
    if (name == "Removed") return SplitBehavior::Removed;
    if (name == "Isolated") return SplitBehavior::Isolated;
    if (name == "MergedWithPrevious") return SplitBehavior::MergedWithPrevious;
    if (name == "MergedWithNext") return SplitBehavior::MergedWithNext;
    if (name == "Contiguous") return SplitBehavior::Contiguous;
    fail("{}: there is no behaviour '{}'", source, name);
}

void PieceCutter::hold(size_t begin, size_t end, bool is_match) {
    const bool joins = behavior_ == SplitBehavior::Contiguous           ? is_match == was_match_
                       : behavior_ == SplitBehavior::MergedWithPrevious ? is_match && !was_match_
                                                                        : !is_match && was_match_;
    if (!joins || !is_held_) {
        if (is_held_) emit(begin_, end_);
        begin_ = begin;
    }
    end_ = end;
    is_held_ = true;
    was_match_ = is_match;
}

}  // namespace llmc
