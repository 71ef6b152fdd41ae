#include "llmc/train/packing.h"

#include "llmc/base/check.h"
#include "llmc/base/counted.h"
#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace llmc {
namespace {

/// Walks over the marks of a range.
class DocumentFinder {
  public:
    DocumentFinder(const TokenRange& range, int64_t T) : range_(range), T_(T) { found_.marked = range.is_marked(); }

    Documents find() {
        constexpr int64_t kAtOnce = 1 << 20;
        std::vector<uint8_t> marks;
        for (int64_t position = 0; position < range_.size(); position += kAtOnce) {
            marks.resize(static_cast<size_t>(std::min(kAtOnce, range_.size() - position)));
            range_.read_marks(position, marks);
            for (size_t i = 0; i < marks.size(); ++i) take(position + static_cast<int64_t>(i), marks[i]);
        }
        if (range_.size() > 0) end(range_.size());
        return std::move(found_);
    }

  private:
    void take(int64_t position, uint8_t mark) {
        if ((mark & kDocumentStart) != 0 && position > 0) {
            end(found_.marked ? position : position + 1);
            first_ = position, scored_ = 0;
        }
        const int64_t target = position - first_;  // Of the document's; its first token is none.
        if ((mark & kScored) != 0 && target > 0 && target <= T_) ++scored_;
    }

    void end(int64_t end) {
        ++found_.counts.documents;
        const int64_t targets = end - first_ - 1;
        if (targets > T_) ++found_.counts.cut;
        if (found_.marked ? scored_ == 0 : targets == 0) {
            ++found_.counts.dropped;
        } else if (found_.marked) {
            add(first_, std::min(targets, T_), scored_);
        } else {
            for (int64_t done = 0; done < targets; done += T_) {
                const int64_t of_piece = std::min(T_, targets - done);
                add(first_ + done, of_piece, of_piece);
            }
        }
    }

    void add(int64_t first, int64_t targets, int64_t scored) {
        found_.list.push_back({first, static_cast<int32_t>(targets + 1), static_cast<int32_t>(scored)});
    }

    const TokenRange& range_;
    int64_t T_;
    int64_t first_ = 0, scored_ = 0;
    Documents found_;
};

/// Sequences being filled; documents by number.
class BestFit {
  public:
    explicit BestFit(int64_t T) : T_(T) {}

    void place(size_t number, int64_t slots) {
        const auto tightest = by_room_.lower_bound(slots);
        size_t sequence = sequences_.size();
        int64_t room = T_;
        if (tightest != by_room_.end()) {
            std::tie(room, sequence) = *tightest;
            by_room_.erase(tightest);
        } else {
            sequences_.emplace_back();
        }
        sequences_[sequence].push_back(number);
        if (room > slots) by_room_.emplace(room - slots, sequence);
    }

    const std::vector<std::vector<size_t>>& sequences() const { return sequences_; }

  private:
    int64_t T_;
    std::vector<std::vector<size_t>> sequences_;
    std::multimap<int64_t, size_t> by_room_;
};

}  // namespace

Documents find_documents(const TokenRange& range, int64_t T) { return DocumentFinder(range, T).find(); }

int64_t Packing::scored(int64_t sequence) const {
    int64_t count = 0;
    const auto first = static_cast<size_t>(begins[static_cast<size_t>(sequence)]);
    const auto end = static_cast<size_t>(begins[static_cast<size_t>(sequence) + 1]);
    for (size_t i = first; i < end; ++i) count += documents[i].scored;
    return count;
}

Packing pack_documents(Documents documents, int64_t T, int64_t at_a_time) {
    Packing packing;
    packing.counts = documents.counts, packing.marked = documents.marked, packing.several = true;
    const std::vector<Document>& list = documents.list;
    packing.documents.reserve(list.size());
    for (size_t first = 0; first < list.size(); first += static_cast<size_t>(at_a_time)) {
        std::vector<size_t> longest_first(std::min(list.size() - first, static_cast<size_t>(at_a_time)));
        std::iota(longest_first.begin(), longest_first.end(), first);
        std::stable_sort(longest_first.begin(), longest_first.end(),
                         [&](size_t a, size_t b) { return list[a].slots() > list[b].slots(); });
        BestFit fit(T);
        for (const size_t number : longest_first) {
            CHECK(list[number].slots() >= 1 && list[number].slots() <= T, list[number].slots(), T);
            fit.place(number, list[number].slots());
        }
        for (const std::vector<size_t>& sequence : fit.sequences()) {
            for (const size_t number : sequence) packing.documents.push_back(list[number]);
            packing.begins.push_back(static_cast<int64_t>(packing.documents.size()));
        }
    }
    return packing;
}

Packing one_by_one(Documents documents) {
    Packing packing;
    packing.counts = documents.counts, packing.marked = documents.marked;
    packing.documents = std::move(documents.list);
    for (size_t i = 0; i < packing.documents.size(); ++i) packing.begins.push_back(static_cast<int64_t>(i) + 1);
    return packing;
}

std::string describe(const Packing& packing, int64_t T) {
    int64_t slots = 0, scored = 0;
    for (const Document& document : packing.documents) slots += document.slots(), scored += document.scored;
    const auto share = [](int64_t part, int64_t whole) {
        return 100 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
    };
    const DocumentCounts& counts = packing.counts;
    const std::string what = noun(counts.documents, packing.marked ? "row" : "document");
    std::string text = fmt::format("{} {} in {} {} of {}, which they fill to {:.1f} %", format_count(counts.documents),
                                   what, format_count(packing.sequences()), noun(packing.sequences(), "sequence"),
                                   counted(T, "token"), share(slots, packing.sequences() * T));
    if (packing.marked) {
        text += fmt::format("; {} of {} targets count ({:.1f} %)", format_count(scored), format_count(slots),
                            share(scored, slots));
    }
    if (counts.cut > 0) {
        text += fmt::format(
            "; {} longer than that, {}", format_count(counts.cut),
            packing.marked ? fmt::format("of which the first {} tokens are kept", T + 1) : "cut into pieces");
    }
    if (counts.dropped > 0) {
        text += fmt::format("; {} left out, since nothing of them counts{}", format_count(counts.dropped),
                            packing.marked && counts.cut > 0 ? " or is left" : "");
    }
    return text;
}

}  // namespace llmc
