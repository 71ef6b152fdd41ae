#include "llmc/plan/verify_communication.h"

#include "llmc/plan/communicate.h"
#include "llmc/plan/simulate.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {

CommunicationCheck::CommunicationCheck(const Model& model, const Plan& plan)
    : model_(model),
      plan_(plan),
      partition_(make_partition(model, plan.parallel.ranks, plan.places.row_multiple())),
      frozen_(make_frozen_partition(model, plan.parallel.ranks, plan.places)),
      gradients_(partition_.buckets.size()) {}

std::string CommunicationCheck::fault_of(const Step& step) {
    const bool known = step.bucket >= 0 && step.bucket <= partition_.last_bucket();
    if (step.is_communication()) {
        if (!known || plan_.parallel.ranks == 1 || plan_.partition.ranks != plan_.parallel.ranks) {
            return fmt::format("is about bucket {} of {}, for {} ranks", step.bucket, plan_.partition.buckets.size(),
                               plan_.parallel.ranks);
        }
    }
    switch (step.kind) {
        case StepKind::Compute:
        case StepKind::Unpack: return compute(step);
        case StepKind::Fused: break;  // Its parts come here.
        case StepKind::CopyOut:
        case StepKind::WaitCopyOut:
        case StepKind::WaitFetch: return touched(step);
        case StepKind::Fetch: return fetch(step);
        case StepKind::ZeroGradients: return known ? write(step, step.bucket) : "";  // verify_update.h
        case StepKind::AddGradients: return known ? join(step) : "";                 // verify_update.h
        case StepKind::FoldGradients: return fold(step);
        case StepKind::Reduce: return reduce(step);
        case StepKind::WaitReduce: gradients(step.bucket).complete = true; return wait(step, StepKind::Reduce);
        case StepKind::Share: return share(step);
        case StepKind::WaitShare: return wait(step, StepKind::Share);
        case StepKind::Gather: return gather(step);
        case StepKind::WaitGather: return wait(step, StepKind::Gather);
        case StepKind::SquareSums:
        case StepKind::GatherSums:
        case StepKind::BeginUpdate:
        case StepKind::Update: break;  // verify_update.h
    }
    return "";
}

std::string CommunicationCheck::fault_of_end() const {
    if (!under_way_.empty()) {
        return fmt::format("ends before the wait for \"{}\"", describe_step(model_, under_way_.front()));
    }
    const bool trains = std::any_of(gradients_.begin(), gradients_.end(), [](const Gradients& g) { return g.written; });
    const bool alone = plan_.parallel.ranks == 1;
    if (!trains || (alone && !plan_.places.gathers_gradients_apart())) return "";
    for (int bucket = 0; bucket <= partition_.last_bucket(); ++bucket) {
        const Gradients& sums = gradients_[static_cast<size_t>(bucket)];
        if (partition_.bucket(bucket).is_empty()) continue;
        if (!sums.reduced) {
            return fmt::format("never {} the gradients of {}", alone ? "adds" : "reduces", name_of_bucket(bucket));
        }
        if (!alone && plan_.places.shares_sums() && !sums.shared)
            return fmt::format("never shares the gradients of {}", name_of_bucket(bucket));
    }
    return "";
}

std::string CommunicationCheck::name_of_bucket(int bucket) const {
    if (bucket == partition_.embedding_bucket()) return "the embedding";
    if (bucket == partition_.last_bucket()) return "the head";
    return fmt::format("layer {}", bucket - partition_.layer_bucket(0));
}

/// Nothing but its wait may touch what is under way.
std::string CommunicationCheck::touched(const Step& step) const {
    for (const Step& begun : under_way_) {
        for (const int32_t tensor : step.operands) {
            if (tensor < 0 || std::count(begun.operands.begin(), begun.operands.end(), tensor) == 0) continue;
            return fmt::format("uses {} of {} before the wait for \"{}\"",
                               plan_.tensors[static_cast<size_t>(tensor)].name, name_of_bucket(begun.bucket),
                               describe_step(model_, begun));
        }
    }
    return "";
}

std::string CommunicationCheck::compute(const Step& step) {
    if (std::string fault = touched(step); !fault.empty()) return fault;
    const int bucket = bucket_of(model_, partition_, step);
    const int32_t sums = step.operand(Slot::ParameterGradients);
    for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen}) {
        const bool needs =
            plan_.places.arrive(buffer) && reads_parameters(step) && !partition_of(buffer).bucket(bucket).is_empty();
        if (needs && !is_gathered(step, buffer)) {
            const char* how = in_pieces(buffer) ? "gathered" : "fetched";
            return fmt::format("has no {} {} of {}", how, name_of(buffer), name_of_bucket(bucket));
        }
        if (!needs && step.operand(slot_of(buffer)) != kNone) {
            return fmt::format("has {} in a tensor, and needs none", name_of(buffer));
        }
    }
    if (!writes_gradients(model_, step)) return sums == kNone ? "" : "has gradients of a bucket, and writes none";
    if (std::string fault = write(step, bucket); !fault.empty()) return fault;
    gradients(bucket).written = true;
    return "";
}

bool CommunicationCheck::is_gathered(const Step& step, Buffer buffer) const {
    const auto found = gathered_.find(step.operand(slot_of(buffer)));
    return found != gathered_.end() && found->second == std::pair(bucket_of(model_, partition_, step), buffer);
}

/// The tensor of a bucket's gradients, or none where they are kept whole, is the same for all its steps.
std::string CommunicationCheck::write(const Step& step, int bucket) {
    if (std::string fault = touched(step); !fault.empty()) return fault;
    const int32_t tensor = step.operand(Slot::ParameterGradients);
    Gradients& sums = gradients(bucket);
    if (sums.reduced) {
        const char* gone = plan_.parallel.ranks == 1 ? "added" : "reduced";
        return fmt::format("writes gradients of {} after they were {}", name_of_bucket(bucket), gone);
    }
    if (plan_.places.gradients_are_elsewhere() != (tensor != kNone) ||
        (tensor != kNone && !holds(tensor, partition_.ranks, bucket, Buffer::Gradients))) {
        return fmt::format("has no tensor for the gradients of {}", name_of_bucket(bucket));
    }
    if (sums.tensor != kNone && sums.tensor != tensor) {
        return fmt::format("writes other gradients of {} than the steps before it", name_of_bucket(bucket));
    }
    sums.tensor = tensor;
    return "";
}

/// Of one rank, once a bucket, what was written apart from the sums that are kept.
std::string CommunicationCheck::join(const Step& step) {
    Gradients& sums = gradients(step.bucket);
    if (plan_.parallel.ranks > 1 || sums.tensor == kNone) return "adds gradients that are kept already";
    if (sums.reduced) return "comes twice";
    if (!sums.written) return "comes before anything was written";
    if (step.operand(Slot::ParameterGradients) != sums.tensor) return "adds other gradients than those written";
    sums.reduced = sums.complete = true;
    return "";
}

/// What joins the tree of sums is the sum over ranks.
std::string CommunicationCheck::fold(const Step& step) const {
    const bool complete = std::all_of(partition_.buckets.begin(), partition_.buckets.end(), [&](const Bucket& bucket) {
        const Gradients& sums = gradients_[static_cast<size_t>(&bucket - partition_.buckets.data())];
        const bool other = step.bucket >= 0 && step.bucket != &bucket - partition_.buckets.data();
        return other || bucket.is_empty() || (sums.complete && (sums.shared || !plan_.places.shares_sums()));
    });
    const auto is_of_it = [&](const Step& begun) {
        return begun.kind != StepKind::Gather && (step.bucket < 0 || begun.bucket == step.bucket);
    };
    const bool under_way = std::any_of(under_way_.begin(), under_way_.end(), is_of_it);
    if (plan_.parallel.ranks == 1 || (complete && !under_way)) return "";
    return "comes before the sums are complete";
}

/// Whether a tensor can hold that many pieces of a bucket of a buffer.
bool CommunicationCheck::holds(int32_t tensor, int64_t pieces, int bucket, Buffer buffer) const {
    if (tensor < 0) return false;
    const DType format = buffer == Buffer::Gradients ? DType::F32 : plan_.places.format(buffer);
    const PlanTensor& found = plan_.tensors[static_cast<size_t>(tensor)];
    return found.dtype == format && found.rows == pieces && found.cols == partition_of(buffer).bucket(bucket).piece;
}

std::string CommunicationCheck::reduce(const Step& step) {
    if (std::string fault = touched(step); !fault.empty()) return fault;
    Gradients& sums = gradients(step.bucket);
    if (sums.reduced) return "comes twice";
    if (!sums.written) return "comes before anything was written";
    if (step.operand(Slot::ParameterGradients) != sums.tensor) return "reduces other gradients than those written";
    const bool receives = step.operand(Slot::Workspace) >= 0;
    const bool fits = holds(step.operand(Slot::Workspace), partition_.ranks - 1, step.bucket, Buffer::Gradients);
    if (receives != plan_.parallel.exchanges || (receives && !fits))
        return "has no room of the right size to receive in";
    sums.reduced = true;
    under_way_.push_back(step);
    return "";
}

std::string CommunicationCheck::share(const Step& step) {
    Gradients& sums = gradients(step.bucket);
    if (!plan_.places.shares_sums()) return "gives ranks what they do not keep";
    if (sums.shared) return "comes twice";
    if (!sums.complete) return "comes before the sums are complete";
    sums.shared = true;
    under_way_.push_back(step);
    return "";
}

std::string CommunicationCheck::gather(const Step& step) {
    if (std::string fault = touched(step); !fault.empty()) return fault;
    const int32_t tensor = step.operand(slot_of(step.buffer));
    if (step.phase == Phase::Update) {
        const bool changed = step.buffer == Buffer::Parameters;
        const bool fits = plan_.places.on_host(step.buffer) ? holds(tensor, partition_.ranks, step.bucket, step.buffer)
                                                            : tensor == kNone;
        if (!plan_.places.gathers_after_update() || !changed || !fits) return "gathers what is whole, or kept nowhere";
        under_way_.push_back(step);
        return "";
    }
    if (!in_pieces(step.buffer) || !holds(tensor, partition_.ranks, step.bucket, step.buffer))
        return "has no tensor for the bucket";
    const bool has_come = plan_.places.on_host(step.buffer);  // From host memory, a piece of it.
    if (gathered_.count(tensor) > (has_come ? 1 : 0)) return "fills a tensor for the second time";
    gathered_[tensor] = {step.bucket, step.buffer};
    under_way_.push_back(step);
    return "";
}

/// What arrives from host memory alone arrives for the steps that would wait for a gather.
std::string CommunicationCheck::fetch(const Step& step) {
    if (std::string fault = touched(step); !fault.empty()) return fault;
    const bool arrives = step.is_copy_of_state() && step.phase != Phase::Update && step.buffer != Buffer::Gradients;
    if (!arrives) return "";
    if (!holds(step.copied(), partition_.ranks, step.bucket, step.buffer)) return "has no tensor for the bucket";
    if (gathered_.count(step.copied()) > 0) return "fills a tensor for the second time";
    gathered_[step.copied()] = {step.bucket, step.buffer};
    return "";
}

std::string CommunicationCheck::wait(const Step& step, StepKind begun) {
    const auto is_its_begin = [&](const Step& other) {
        Step alike = step;  // A reduction's sums join others only in the end.
        if (begun == StepKind::Reduce) alike.operand(Slot::KeptGradients) = kNone;
        return other.kind == begun && other.bucket == step.bucket && other.buffer == step.buffer &&
               other.operands == alike.operands;
    };
    const auto found = std::find_if(under_way_.begin(), under_way_.end(), is_its_begin);
    if (found == under_way_.end()) return "waits for what has not begun";
    if (found != under_way_.begin()) {
        return fmt::format("comes before the wait for \"{}\", which began earlier",
                           describe_step(model_, under_way_.front()));
    }
    under_way_.pop_front();
    return "";
}

}  // namespace llmc
