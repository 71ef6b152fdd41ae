// The part of the verifier that knows what is kept in host memory (places.h): whether a tensor that has come from there
// holds what its step means, whether what has changed goes back, and nothing is fetched that has not gone back yet.
#pragma once

#include "llmc/plan/partition.h"
#include "llmc/plan/step.h"

#include <map>
#include <string>
#include <vector>

namespace llmc {

/// Follows a plan step by step. That copies are waited for before their tensors are used is checked with all others.
class TransferCheck {
  public:
    TransferCheck(const Model& model, const Plan& plan);

    /// What is wrong with the next step as far as host memory goes; empty if nothing.
    std::string fault_of(const Step& step);
    /// To be asked after the last step.
    std::string fault_of_end() const;

  private:
    /// Elements of a bucket of a buffer, of all of it or of each rank's piece.
    struct Content {
        Buffer buffer = Buffer::Parameters;
        int bucket = kNone;
        int64_t first = 0, elements = 0;
        bool own_piece = false;
        bool is_changed = false;
        bool is_of(const Step& step) const;
        bool overlaps(const Content& other) const;
    };
    static Content content_of(const Step& step, Buffer buffer);
    std::string copy(const Step& step);
    std::string fetch(const Step& step);
    std::string copy_out(const Step& step);
    std::string compute(const Step& step);
    std::string complete(const Step& step);
    std::string update(const Step& step);
    std::string name(const Content& content) const;
    bool fits(const Step& step) const;
    bool on_host(Buffer buffer) const { return plan_.places[buffer].exists && plan_.places.on_host(buffer); }
    /// What has gone back of a bucket of a buffer, by its elements.
    struct Returned {
        int64_t elements = 0, end = 0;  ///< All of them; where the last ended.
    };
    using Return = std::map<std::pair<Buffer, int>, Returned>;
    Return& returned_by(const Step& step) { return step.when == When::Pending ? pending_ : returned_; }
    int64_t kept(Buffer buffer, int bucket) const;
    std::string fault_of(const Return& returned, Buffer buffer) const;
    /// What a step makes of a tensor.
    void change(int32_t tensor, Content content) { content.is_changed = true, held_[tensor] = content; }

    const Model& model_;
    const Plan& plan_;
    const Partition partition_, frozen_;
    std::map<int32_t, Content> held_;     ///< By tensor.
    std::map<int32_t, Content> leaving_;  ///< Copies out that are not waited for, by tensor.
    Return returned_, pending_;  ///< By the update, or of gradients; by the update before, where it is pending.
    bool trains_ = false;
};

}  // namespace llmc
