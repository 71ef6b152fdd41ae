#include "llmc/plan/verify_transfers.h"

#include "llmc/plan/communicate.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/update.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {

TransferCheck::TransferCheck(const Model& model, const Plan& plan)
    : model_(model),
      plan_(plan),
      partition_(make_partition(model, plan.parallel.ranks, plan.places.row_multiple())),
      frozen_(make_frozen_partition(model, plan.parallel.ranks, plan.places)) {}

bool TransferCheck::Content::is_of(const Step& step) const {
    return bucket == step.bucket && first == step.first_element && elements == step.elements &&
           own_piece == step.own_piece;
}

/// Of a rank's piece and of a whole bucket it cannot be told.
bool TransferCheck::Content::overlaps(const Content& other) const {
    if (buffer != other.buffer || bucket != other.bucket) return false;
    return own_piece != other.own_piece || (first < other.first + other.elements && other.first < first + elements);
}

TransferCheck::Content TransferCheck::content_of(const Step& step, Buffer buffer) {
    return {buffer, step.bucket, step.first_element, step.elements, step.own_piece};
}

std::string TransferCheck::name(const Content& content) const {
    const int layer = partition_.layer_of(content.bucket);
    const std::string where = layer >= 0            ? fmt::format("layer {}", layer)
                              : content.bucket == 0 ? "the embedding"
                                                    : "the head";
    return fmt::format("the {} of {}", name_of(content.buffer), where);
}

std::string TransferCheck::fault_of(const Step& step) {
    switch (step.kind) {
        case StepKind::CopyOut:
        case StepKind::Fetch:
        case StepKind::WaitCopyOut: return step.is_copy_of_state() ? copy(step) : "";
        case StepKind::Compute:
        case StepKind::Unpack: return compute(step);
        case StepKind::AddGradients:
        case StepKind::WaitReduce:
        case StepKind::Share:
        case StepKind::FoldGradients: return complete(step);
        case StepKind::SquareSums:
            if (!on_host(Buffer::Gradients)) return "";
            if (step.phase == Phase::Update) return "reads gradients that are in host memory";
            return complete(step);
        case StepKind::Gather: {
            if (!on_host(step.buffer)) return "";
            const auto found = held_.find(step.operand(slot_of(step.buffer)));
            const bool holds = found != held_.end() && found->second.bucket == step.bucket &&
                               found->second.buffer == step.buffer && found->second.own_piece;
            return holds ? "" : "gathers a piece that has not come from host memory";
        }
        case StepKind::WaitGather:
            if (on_host(step.buffer) && step.phase == Phase::Update) {
                const int64_t whole = partition_.bucket_elements(step.bucket);
                change(step.operand(Slot::Parameters), {Buffer::Parameters, step.bucket, 0, whole, false});
            }
            return "";
        case StepKind::Update: return update(step);
        default: return "";
    }
}

std::string TransferCheck::copy(const Step& step) {
    if (step.kind == StepKind::WaitCopyOut) {
        leaving_.erase(step.copied());
        return "";
    }
    const Content content = content_of(step, step.buffer);
    if (step.buffer == Buffer::Boundaries || !on_host(step.buffer)) {
        return fmt::format("copies {}, which are not in host memory", name_of(step.buffer));
    }
    if (step.bucket > partition_.last_bucket() || !fits(step)) {
        return fmt::format("copies elements {} .. {} of {}, which are not there, or have no room", content.first,
                           content.first + content.elements, name(content));
    }
    return step.kind == StepKind::Fetch ? fetch(step) : copy_out(step);
}

/// Whether the elements are there, and the tensor is one for them.
bool TransferCheck::fits(const Step& step) const {
    const Partition& partition = step.buffer == Buffer::Frozen ? frozen_ : partition_;
    const Place& place = plan_.places[step.buffer];
    const int64_t piece = partition.bucket(step.bucket).piece, end = step.first_element + step.elements;
    if (step.first_element < 0 || step.elements < 1) return false;
    if (end > (step.own_piece ? piece : partition.ranks * piece)) return false;
    if (!step.own_piece && place.spread == Spread::Pieces) return false;
    const PlanTensor& tensor = plan_.tensor(step.copied());
    if (tensor.dtype != place.format) return false;
    if (tensor.consumer != Consumer::UpdateSlots) {
        return tensor.cols == piece && (tensor.rows == partition.ranks || (tensor.rows == 1 && step.own_piece));
    }
    const int64_t slot = slice_elements(model_, partition_, plan_.places.updates_pieces());
    const int64_t room = place.format == DType::U8 ? blocks_slot(model_, partition_, slot).bytes : slot;
    return step.elements <= slot && tensor.cols == room;
}

std::string TransferCheck::fetch(const Step& step) {
    const Content content = content_of(step, step.buffer);
    for (const auto& [tensor, other] : leaving_) {
        if (other.overlaps(content)) return fmt::format("fetches {} before their copy out is over", name(content));
    }
    if (plan_.delays_update() && step.buffer == Buffer::Parameters && step.phase != Phase::Update) {
        const auto found = pending_.find({step.buffer, step.bucket});
        const bool all = found != pending_.end() && found->second.elements == kept(step.buffer, step.bucket);
        if (!all && !partition_.bucket(step.bucket).is_empty()) {
            return fmt::format("fetches {} before those of a pending update are there", name(content));
        }
    }
    if (step.buffer == Buffer::Gradients && step.phase != Phase::Update) {
        const bool first = returned_.count({step.buffer, step.bucket}) == 0;
        if (!first) return fmt::format("fetches {} after they have gone back", name(content));
    }
    held_[step.copied()] = content;
    return "";
}

/// What goes back is what has been changed, once.
std::string TransferCheck::copy_out(const Step& step) {
    const auto found = held_.find(step.copied());
    if (found == held_.end() || found->second.buffer != step.buffer || !found->second.is_of(step)) {
        return fmt::format("copies to {} what is something else", name(content_of(step, step.buffer)));
    }
    if (!found->second.is_changed) return fmt::format("copies {} out unchanged", name(found->second));
    Returned& returned = returned_by(step)[{step.buffer, step.bucket}];
    if (returned.end != step.first_element) {
        return fmt::format("copies {} from element {} on after {}", name(found->second), step.first_element,
                           returned.end);
    }
    returned.end += step.elements;
    returned.elements += step.elements;
    leaving_[step.copied()] = found->second;
    return "";
}

/// Parameters that a step reads, and gradients that it adds to, have come; it changes gradients.
std::string TransferCheck::compute(const Step& step) {
    for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen}) {
        const int32_t tensor = step.operand(slot_of(buffer));
        if (tensor < 0 || !plan_.places.on_host(buffer)) continue;
        const auto found = held_.find(tensor);
        const bool holds = found != held_.end() && found->second.buffer == buffer &&
                           found->second.bucket == bucket_of(model_, partition_, step);
        if (!holds) return fmt::format("reads {} that have not come from host memory", name_of(buffer));
    }
    if (!writes_gradients(model_, step)) return "";
    trains_ = true;
    if (!on_host(Buffer::Gradients) || plan_.places.gathers_gradients_apart()) return "";
    const int bucket = bucket_of(model_, partition_, step);
    const int32_t tensor = step.operand(Slot::ParameterGradients);
    const auto found = held_.find(tensor);
    const bool has =
        found != held_.end() && found->second.buffer == Buffer::Gradients && found->second.bucket == bucket;
    if (!has && step.adds != Adds::Never && !plan_.parallel.rank_invariant) {
        return "adds to gradients that have not come from host memory";
    }
    change(tensor, {Buffer::Gradients, bucket, 0, partition_.bucket_elements(bucket), false});
    return "";
}

/// What is done with gradients of a bucket that are kept in host memory is done before they go there.
std::string TransferCheck::complete(const Step& step) {
    if (!on_host(Buffer::Gradients) || step.bucket < 0) return "";
    const Content content = {Buffer::Gradients, step.bucket};
    const int32_t kept = step.operand(Slot::KeptGradients);
    if (returned_.count({Buffer::Gradients, step.bucket}) > 0) {
        return fmt::format("comes after {} have gone back", name(content));
    }
    const bool joins = step.kind == StepKind::AddGradients || step.kind == StepKind::WaitReduce;
    if (joins && !plan_.places.gathers_gradients_apart()) return "";
    if (kept < 0) return fmt::format("has not {} that are kept", name(content));
    const auto found = held_.find(kept);
    const bool has =
        found != held_.end() && found->second.buffer == Buffer::Gradients && found->second.bucket == step.bucket;
    if (!has && step.adds != Adds::Never) return fmt::format("adds to {} that have not come", name(content));
    if (!joins) return "";
    const bool pieces = plan_.places.in_pieces(Buffer::Gradients);
    const int64_t piece = partition_.bucket(step.bucket).piece;
    change(kept, {Buffer::Gradients, step.bucket, 0, pieces ? piece : partition_.ranks * piece, pieces});
    return "";
}

std::string TransferCheck::update(const Step& step) {
    for (const Buffer buffer :
         {Buffer::Parameters, Buffer::Masters, Buffer::Gradients, Buffer::MomentM, Buffer::MomentV}) {
        if (!plan_.places[buffer].exists) continue;
        const int32_t tensor = step.operand(update_slot_of(buffer));
        if ((tensor >= 0) != on_host(buffer)) {
            return fmt::format("{} {}", tensor >= 0 ? "needs no slot for" : "has no slot for", name_of(buffer));
        }
        if (tensor < 0) continue;
        const bool only_writes = buffer == Buffer::Parameters && plan_.places[Buffer::Masters].exists;
        const Content content = content_of(step, buffer);
        const auto found = held_.find(tensor);
        const bool has = found != held_.end() && found->second.buffer == buffer &&
                         found->second.bucket == step.bucket && found->second.own_piece == step.own_piece;
        // A bucket's tensor holds all of a rank's piece, and is updated slice by slice.
        const bool is_slot = plan_.tensor(tensor).consumer == Consumer::UpdateSlots;
        if (!only_writes && (!has || (is_slot && !found->second.is_of(step)))) {
            return fmt::format("has other {} than those it is about", name_of(buffer));
        }
        if (buffer != Buffer::Gradients) change(tensor, content);
    }
    return "";
}

int64_t TransferCheck::kept(Buffer buffer, int bucket) const {
    const bool all = !plan_.places.in_pieces(buffer) || partition_.ranks == 1;
    return all ? partition_.bucket_elements(bucket) : partition_.bucket(bucket).piece;
}

std::string TransferCheck::fault_of(const Return& returned, Buffer buffer) const {
    for (int bucket = 0; bucket <= partition_.last_bucket(); ++bucket) {
        if (partition_.bucket(bucket).is_empty()) continue;
        const auto found = returned.find({buffer, bucket});
        const int64_t elements = found == returned.end() ? 0 : found->second.elements;
        if (elements == kept(buffer, bucket)) continue;
        return fmt::format("sends back {} of {} elements of {}", elements, kept(buffer, bucket),
                           name({buffer, bucket}));
    }
    return "";
}

std::string TransferCheck::fault_of_end() const {
    if (!trains_ || !plan_.trains()) return "";
    for (const Buffer buffer :
         {Buffer::Parameters, Buffer::Masters, Buffer::Gradients, Buffer::MomentM, Buffer::MomentV}) {
        if (!on_host(buffer)) continue;
        if (std::string fault = fault_of(returned_, buffer); !fault.empty()) return fault;
        if (!plan_.delays_update() || buffer == Buffer::Gradients) continue;
        if (std::string fault = fault_of(pending_, buffer); !fault.empty()) return fault + " for a pending update";
    }
    return "";
}

}  // namespace llmc
