#include "llmc/plan/places.h"

#include "llmc/base/check.h"
#include "llmc/base/dynamic_map.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

namespace llmc {

std::string_view name_of(Buffer buffer) {
    switch (buffer) {
        case Buffer::Parameters: return "parameters";
        case Buffer::Masters: return "master weights";
        case Buffer::Gradients: return "gradients";
        case Buffer::MomentM: return "first moments";
        case Buffer::MomentV: return "second moments";
        case Buffer::Frozen: return "frozen parameters";
        case Buffer::Boundaries: return "layer boundaries";
    }
    return "?";
}

Places::Places(DType parameters, OptimizerKind optimizer) : optimizer_(optimizer), base_(plain_format(parameters)) {
    for (const Buffer buffer : {Buffer::Parameters, Buffer::Boundaries}) (*this)[buffer].format = parameters;
    (*this)[Buffer::Frozen].format = DType::U8;
    (*this)[Buffer::Masters].exists = parameters != DType::F32;
    (*this)[Buffer::MomentV].exists = optimizer_row(optimizer).second_moment;
}

Places Places::at_hand() const {
    Places places = *this;
    for (Place& place : places.rows_) place.spread = Spread::Whole, place.memory = Memory::Device;
    return places;
}

bool Places::rounds() const {
    const bool rounds_weights = format(Buffer::Parameters) != DType::F32 && !(*this)[Buffer::Masters].exists;
    return rounds_weights || format(Buffer::MomentM) == DType::BF16 || format(Buffer::Gradients) != DType::F32;
}

bool Places::updates_from_host() const {
    constexpr Buffer kUpdated[] = {Buffer::Parameters, Buffer::Masters, Buffer::Gradients, Buffer::MomentM,
                                   Buffer::MomentV};
    return std::any_of(std::begin(kUpdated), std::end(kUpdated),
                       [&](Buffer buffer) { return (*this)[buffer].exists && on_host(buffer); });
}

bool Places::updates_by_row() const { return rounds() || format(Buffer::MomentM) != DType::F32; }

int64_t Places::row_multiple() const { return format(Buffer::MomentM) == DType::U8 ? kStateBlock : 1; }

double Places::update_bytes() const {
    const auto bytes = [&](Buffer buffer) {
        if (!(*this)[buffer].exists) return 0.0;
        const double scales = format(buffer) == DType::U8 ? 4.0 / kStateBlock : 0;
        return static_cast<double>(size_of(format(buffer))) + scales;
    };
    const Buffer weights = (*this)[Buffer::Masters].exists ? Buffer::Masters : Buffer::Parameters;
    const double rounded = (*this)[Buffer::Masters].exists ? bytes(Buffer::Parameters) : 0;
    return 2 * (bytes(weights) + bytes(Buffer::MomentM) + bytes(Buffer::MomentV)) + bytes(Buffer::Gradients) + rounded;
}

std::string Places::fault() const {
    const auto need = [&](Buffer cut, Buffer also) -> std::string {
        if (!(*this)[also].exists || !in_pieces(cut) || in_pieces(also)) return "";
        return fmt::format("{} in pieces need {} in pieces: a rank could not update what it has no gradient of",
                           name_of(cut), name_of(also));
    };
    for (const auto& [cut, also] :
         {std::pair(Buffer::Parameters, Buffer::Gradients), std::pair(Buffer::Gradients, Buffer::MomentM)}) {
        if (std::string why = need(cut, also); !why.empty()) return why;
    }
    for (const Buffer other : {Buffer::MomentV, Buffer::Masters}) {
        if (!(*this)[other].exists || in_pieces(other) == in_pieces(Buffer::MomentM)) continue;
        return fmt::format("{} and {} are updated together: both whole, or both in pieces", name_of(Buffer::MomentM),
                           name_of(other));
    }
    for (const Buffer buffer :
         {Buffer::Parameters, Buffer::Gradients, Buffer::MomentM, Buffer::Frozen, Buffer::Boundaries}) {
        if (!(*this)[buffer].exists) return fmt::format("there are always {}", name_of(buffer));
    }
    if ((*this)[Buffer::MomentV].exists != optimizer_row(optimizer_).second_moment) {
        return fmt::format("{} are not those of the optimiser", name_of(Buffer::MomentV));
    }
    if (in_pieces(Buffer::Boundaries)) return "layer boundaries are each rank's own, and have no pieces";
    if ((*this)[Buffer::Masters].exists && format(Buffer::Parameters) == DType::F32) {
        return "fp32 parameters have no master weights: they are the weights";
    }
    if (format(Buffer::Frozen) != DType::U8) return "frozen parameters are kept as bytes";
    if (format(Buffer::Parameters) != activations() && format(Buffer::Parameters) != DType::F32) {
        return "parameters are kept as activations are, or in fp32";
    }
    if (format(Buffer::Masters) != DType::F32) return "master weights are kept in fp32";
    const auto is_one_of = [&](Buffer buffer, std::initializer_list<DType> formats) {
        return std::find(formats.begin(), formats.end(), format(buffer)) != formats.end();
    };
    if (!is_one_of(Buffer::Gradients, {DType::F32, DType::BF16})) return "gradients are kept in fp32 or bf16";
    if (!is_one_of(Buffer::MomentM, {DType::F32, DType::BF16, DType::U8})) {
        return "first moments are kept in fp32, bf16 or 8-bit blocks";
    }
    const bool alike = format(Buffer::MomentV) == format(Buffer::MomentM);
    return alike || !(*this)[Buffer::MomentV].exists ? "" : "first and second moments are kept in one format";
}

std::string Places::describe() const {
    std::vector<std::string> cut;
    if (updates_pieces()) cut.emplace_back("optimiser state");
    for (const Buffer buffer : {Buffer::Gradients, Buffer::Parameters}) {
        if (in_pieces(buffer)) cut.emplace_back(name_of(buffer));
    }
    if (in_pieces(Buffer::Frozen) && !in_pieces(Buffer::Parameters)) cut.emplace_back(name_of(Buffer::Frozen));
    std::vector<std::string> away;
    for (const auto& [buffer, name] :
         {std::pair(Buffer::MomentM, "moments"), std::pair(Buffer::Masters, "master weights"),
          std::pair(Buffer::Gradients, "gradients"), std::pair(Buffer::Parameters, "parameters"),
          std::pair(Buffer::Boundaries, "layer boundaries")}) {
        if ((*this)[buffer].exists && on_host(buffer)) away.emplace_back(name);
    }
    const auto listed = [](const std::vector<std::string>& names) {
        std::string text;
        for (size_t i = 0; i < names.size(); ++i) {
            text += (i == 0 ? "" : i + 1 < names.size() ? ", " : " and ") + names[i];
        }
        return text;
    };
    std::string text = cut.empty() ? "" : listed(cut) + " in pieces";
    if (!away.empty()) text += fmt::format("{}{} on the host", cut.empty() ? "" : "; ", listed(away));
    return text;
}

Places for_adapters(Places places) {
    places[Buffer::Parameters].format = DType::F32;
    places[Buffer::Masters].exists = false;
    return places;
}

Places places_of_zero(int stage, int ranks, DType parameters, OptimizerKind optimizer) {
    CHECK(stage >= 0 && stage <= kMaxZero, stage);
    Places places(parameters, optimizer);
    if (ranks == 1) return places;
    const auto cut = [&](Buffer buffer, int from) {
        if (stage >= from) places[buffer].spread = Spread::Pieces;
    };
    for (const Buffer buffer : {Buffer::Masters, Buffer::MomentM, Buffer::MomentV}) cut(buffer, 1);
    cut(Buffer::Gradients, 2);
    cut(Buffer::Parameters, 3);
    cut(Buffer::Frozen, 3);
    return places;
}

}  // namespace llmc
