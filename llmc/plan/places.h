// The table of places: for everything that is kept from one step of a plan to the next update, whether every rank has
// all of it, which memory it lies in, and its format. A ZeRO stage (Rajbhandari et al. 2020) and --recompute=offload
// are names for fillings of it; plans, memory, state, checkpoints, prices and the banner read the rows and never a
// stage.
//
//             spread           memory          format
// parameters  whole | pieces   device | host   that of the activations, or fp32
// masters     whole | pieces   device | host   fp32; absent where parameters are fp32, or are the weights themselves
// gradients   whole | pieces   device | host   fp32 | bf16
// moment m    whole | pieces   device | host   fp32 | bf16 | uint8: blocks (formats.h)
// moment v    whole | pieces   device | host   that of m; absent where the optimiser has none
// frozen      whole | pieces   device | host   bytes: matrices of layers as base() says, other rows in the activations'
//                                              type (stored_row.h); without a byte where every parameter trains
// boundaries  (a rank's own)   device | host   that of the activations
//
// What is in host memory comes to the device for the steps that use it, into tensors of the plan, and what they change
// goes back (communicate.h, update.h).
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/base/optimizer.h"
#include "llmc/base/weight_format.h"

#include <array>
#include <cstdint>
#include <string>

namespace llmc {

enum class Buffer : uint8_t {
    Parameters,  ///< The trainable ones; so are the next four.
    Masters,
    Gradients,
    MomentM,
    MomentV,
    Frozen,  ///< Parameters that no update touches (model/trainable.h).
    Boundaries
};
constexpr int kNumBuffers = 7;
std::string_view name_of(Buffer buffer);

enum class Spread : uint8_t {
    Whole,   ///< Every rank has all of it.
    Pieces,  ///< A rank has its piece of every bucket (partition.h).
};
enum class Memory : uint8_t { Device, Host };

struct Place {
    bool exists = true;
    Spread spread = Spread::Whole;
    Memory memory = Memory::Device;
    DType format = DType::F32;
    bool operator==(const Place&) const = default;
};

class Places {
  public:
    /// Everything whole, on the device, parameters in this format.
    Places(DType parameters = DType::F32, OptimizerKind optimizer = OptimizerKind::AdamW);

    const Place& operator[](Buffer buffer) const { return rows_[static_cast<size_t>(buffer)]; }
    Place& operator[](Buffer buffer) { return rows_[static_cast<size_t>(buffer)]; }
    bool in_pieces(Buffer buffer) const { return (*this)[buffer].spread == Spread::Pieces; }
    bool on_host(Buffer buffer) const { return (*this)[buffer].memory == Memory::Host; }
    DType format(Buffer buffer) const { return (*this)[buffer].format; }
    /// Type of activations and their gradients.
    DType activations() const { return format(Buffer::Boundaries); }
    /// How frozen matrices of layers are stored: as activations are, unless set.
    WeightFormat base() const { return base_; }
    void set_base(WeightFormat format) { base_ = format; }
    /// The same formats, but everything whole and on the device.
    Places at_hand() const;

    /// Each rank updates its piece of every bucket.
    bool updates_pieces() const { return in_pieces(Buffer::MomentM); }
    /// Parameters are whole, but a rank updates a piece of them: the pieces travel after the update.
    bool gathers_after_update() const { return updates_pieces() && !in_pieces(Buffer::Parameters); }
    /// Each rank wants the sums of all gradients, not only those of its piece.
    bool shares_sums() const { return !updates_pieces(); }
    OptimizerKind optimizer() const { return optimizer_; }
    /// Gradients of a micro-batch are in a tensor of the plan, and join those that are kept when they are complete: as
    /// pieces, or in another format.
    bool gathers_gradients_apart() const {
        return in_pieces(Buffer::Gradients) || format(Buffer::Gradients) != DType::F32;
    }
    /// The bucket that an operation needs of these parameters is in a tensor of the plan, which it has come to.
    bool arrive(Buffer parameters) const { return in_pieces(parameters) || on_host(parameters); }
    /// Gradients that an operation writes are in a tensor of the plan.
    bool gradients_are_elsewhere() const { return gathers_gradients_apart() || on_host(Buffer::Gradients); }
    /// An update has something of what it works on in host memory.
    bool updates_from_host() const;
    /// Something is rounded stochastically: weights without masters, moments or gradients.
    bool rounds() const;
    /// Something an update writes is rounded so or kept in blocks: it works row by row.
    bool updates_by_row() const;
    /// Elements that rows of the trainable buffers begin at multiples of.
    int64_t row_multiple() const;
    /// What an update reads and writes for one element: weight and moments both ways, the gradient, a rounded copy.
    double update_bytes() const;

    /// Why the rows contradict each other, or ask for what there is not; "" if they do not.
    std::string fault() const;
    /// What is in pieces and what on the host, in words: "optimiser state and gradients in pieces"; "" if nothing.
    std::string describe() const;

    bool operator==(const Places&) const = default;

  private:
    OptimizerKind optimizer_;
    WeightFormat base_;
    std::array<Place, kNumBuffers> rows_;
};

/// What trains is kept in fp32, whatever the type of activations: adapters (model/lora.h) are read so.
Places for_adapters(Places places);

constexpr int kMaxZero = 3;
/// --zero: 0 leaves everything whole; 1 cuts masters and moments, 2 gradients too, 3 all parameters too. One rank has
/// nobody to share with, so for it every stage is stage 0.
Places places_of_zero(int stage, int ranks, DType parameters, OptimizerKind optimizer = OptimizerKind::AdamW);

}  // namespace llmc
