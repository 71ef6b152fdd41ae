// Documents in sequences of T slots. A document of n tokens takes n - 1: its tokens but the last, with the tokens after
// them as targets. Where all tokens count, a document is cut into pieces that fit, and ends with the token that begins
// the next one, so that what it is followed by is learned as well; a row of instruction data keeps its beginning, and
// is left out if nothing of that counts.
#pragma once

#include "llmc/io/token_source.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// A document, or a piece of one, that fits into a sequence.
struct Document {
    int64_t first = 0;   ///< Of the range of data.
    int32_t tokens = 0;  ///< At least 2.
    int32_t scored = 0;  ///< Of the targets, those that count.
    int32_t slots() const { return tokens - 1; }
    bool operator==(const Document&) const = default;
};

/// What became of the documents of some data.
struct DocumentCounts {
    int64_t documents = 0;  ///< All there are.
    int64_t cut = 0;        ///< Longer than a sequence.
    int64_t dropped = 0;    ///< Nothing of them counts.
};

struct Documents {
    std::vector<Document> list;  ///< In the order of the data.
    DocumentCounts counts;
    bool marked = false;  ///< Not all tokens count.
};

/// The documents of a range, each at most T + 1 tokens. One begins with the range.
Documents find_documents(const TokenRange& range, int64_t T);

/// Which documents a sequence has, for sequences 0, 1, ... of one epoch.
struct Packing {
    std::vector<Document> documents;    ///< Sequence by sequence.
    std::vector<int64_t> begins = {0};  ///< By sequence, its first in `documents`; then the end of all.
    DocumentCounts counts;
    bool marked = false;
    bool several = false;  ///< A sequence may have several.

    int64_t sequences() const { return static_cast<int64_t>(begins.size()) - 1; }
    int64_t scored(int64_t sequence) const;
};

/// As few sequences as best fit finds: of so many documents at a time, the longest first, each goes where it leaves the
/// least room (best-fit decreasing; Johnson 1973). No document is cut.
Packing pack_documents(Documents documents, int64_t T, int64_t at_a_time = int64_t{1} << 18);

/// A sequence for every document.
Packing one_by_one(Documents documents);

/// "1,200 documents in 300 sequences of 128 tokens, 97.2 % of their slots; ...".
std::string describe(const Packing& packing, int64_t T);

}  // namespace llmc
