// What the sequences of a run are made of. A sequence has T slots: in each a token and its target, the token after it,
// or -1 where that does not count. It is a piece of one long stream of tokens; or it holds documents, one behind the
// other, and then nothing (packing.h). What a sequence holds is a pure function of its number, so a resumed run needs
// to know only how many were read, and other batch sizes and ranks read the same ones.
#pragma once

#include "llmc/io/token_source.h"
#include "llmc/train/packing.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace llmc {

/// Position of a sequence's first token in its range of data, or which of an epoch's sequences it is, for sequences
/// 0, 1, 2, ... without end.
using SequenceOrder = std::function<int64_t(int64_t sequence)>;

/// For training on a stream of `size` tokens. An epoch cuts them into sequences of T tokens that do not overlap, from a
/// random first position, and visits them in a random order; both differ from epoch to epoch and depend on `seed`
/// alone. It has one sequence less than would fit, so that the first position has room to move. size > T.
SequenceOrder shuffled_order(int64_t size, int64_t T, uint64_t seed);

/// Sequences in one epoch of shuffled_order.
int64_t sequences_per_epoch(int64_t size, int64_t T);

/// For validation: `sequences` sequences spread evenly over all `size` tokens, the same ones every time; they overlap
/// only if there are too few tokens. After the last the first comes again. size > T.
SequenceOrder spread_order(int64_t size, int64_t T, int64_t sequences);

/// For training on `count` sequences that are there already: every epoch visits each once, in a random order of its
/// own.
SequenceOrder permuted_order(int64_t count, uint64_t seed);

/// Where a sequence is written to: T numbers each.
struct SequenceSlots {
    std::span<int32_t> tokens, targets;
    /// The slot where the document of a slot begins; empty for those that are not packed.
    std::span<int32_t> documents;
    /// A number of a slot's document, or of the sequence where it is a piece of a stream, modulo 2^32: the same however
    /// documents are packed, and no other's, nor its own in another epoch.
    std::span<int32_t> numbers;
};

class Sequences {
  public:
    virtual ~Sequences() = default;
    /// How many are read until they come again.
    virtual int64_t per_epoch() const = 0;
    /// A sequence may hold several documents.
    virtual bool packed() const = 0;
    /// Not every target counts.
    virtual bool partly_scored() const = 0;
    /// Targets of a sequence that count.
    virtual int64_t scored(int64_t sequence) const = 0;
    /// A token outside the vocabulary is an Error that names its file.
    virtual void read(int64_t sequence, const SequenceSlots& out) const = 0;
    /// For the banner; "" where there is nothing to say.
    virtual std::string describe() const = 0;
    int64_t T() const { return T_; }

  protected:
    explicit Sequences(int64_t T) : T_(T) {}

  private:
    int64_t T_;
};

/// Pieces of a stream. The source behind `range` must outlive them; range.size() > T.
class StreamSequences final : public Sequences {
  public:
    StreamSequences(const TokenRange& range, int64_t T, int32_t vocab_size, SequenceOrder order, int64_t per_epoch);
    int64_t per_epoch() const override { return per_epoch_; }
    bool packed() const override { return false; }
    bool partly_scored() const override { return false; }
    int64_t scored(int64_t) const override { return T(); }
    void read(int64_t sequence, const SequenceSlots& out) const override;
    std::string describe() const override { return ""; }

  private:
    TokenRange range_;
    int32_t vocab_size_;
    SequenceOrder order_;
    int64_t per_epoch_;
};

/// Documents, in the sequences of a packing. The source behind `range` must outlive them.
class DocumentSequences final : public Sequences {
  public:
    /// `order` says which of the packing's sequences comes.
    DocumentSequences(const TokenRange& range, int64_t T, int32_t vocab_size, std::shared_ptr<const Packing> packing,
                      SequenceOrder order, int64_t per_epoch);
    int64_t per_epoch() const override { return per_epoch_; }
    bool packed() const override { return packing_->several; }
    bool partly_scored() const override { return true; }
    int64_t scored(int64_t sequence) const override { return packing_->scored(order_(sequence)); }
    void read(int64_t sequence, const SequenceSlots& out) const override;
    std::string describe() const override { return llmc::describe(*packing_, T()); }

  private:
    int64_t read_document(const Document& document, int64_t slot, int64_t epoch, const SequenceSlots& out) const;

    TokenRange range_;
    int32_t vocab_size_;
    std::shared_ptr<const Packing> packing_;
    SequenceOrder order_;
    int64_t per_epoch_;
};

/// What --pack makes of data: "auto", "documents" or "none".
struct SequenceSettings {
    std::string pack = "auto";
    int64_t T = 0;
    int32_t vocab_size = 0;
    uint64_t seed = 0;
    std::string option;  ///< That names the data, for messages: "--data".
};

/// Whether data becomes sequences of documents, rather than a stream.
bool reads_documents(const TokenRange& range, const std::string& pack);

/// For training. An Error if nothing in the data counts.
std::unique_ptr<const Sequences> training_sequences(const TokenRange& range, const SequenceSettings& settings);

/// For validation: at most `most` sequences, spread over all data, the same ones every time.
std::unique_ptr<const Sequences> validation_sequences(const TokenRange& range, const SequenceSettings& settings,
                                                      int64_t most);

}  // namespace llmc
