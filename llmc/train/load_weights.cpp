#include "llmc/train/load_weights.h"

#include "llmc/base/check.h"
#include "llmc/io/peft/adapters.h"
#include "llmc/model/lora.h"

#include <vector>

namespace llmc {
namespace {

/// Row `of_weights` of the weights into what this rank keeps of row `index`: what they have in NF4 as it is, where it
/// is stored so.
void load_row(const WeightSource& weights, int of_weights, int index, State& state) {
    state.write_row(
        index, [&] { return weights.values(of_weights); },
        [&](int64_t first_row) { return weights.nf4_part(of_weights, first_row); });
}

}  // namespace

void load_weights(const WeightSource& weights, State& state) {
    const Model& model = state.model();
    CHECK(model.config == weights.model().config, describe(model.config), describe(weights.model().config));
    for (int index = 0; index < static_cast<int>(model.parameters.size()); ++index) {
        load_row(weights, index, index, state);
    }
    state.round_masters();
}

void load_adapted(const WeightSource& weights, const PeftFolder* adapter, uint64_t seed, State& state) {
    const Model &model = state.model(), &base = weights.model();
    CHECK(model.config == base.config && model.lora, describe(model.config), describe(base.config));
    int of_base = 0;  // Rows of the base have the order that they have in the model.
    for (int index = 0; index < static_cast<int>(model.parameters.size()); ++index) {
        const ParameterRow& row = model.parameters[static_cast<size_t>(index)];
        if (is_adapter(model, index)) {
            if (adapter == nullptr) {
                state.initialise_row(index, seed);
            } else {
                state.write_row(index, [&] {
                    std::vector<float> values(static_cast<size_t>(row.count()));
                    adapter->read_adapter(row.name, values);
                    return values;
                });
            }
            continue;
        }
        CHECK(base.parameters[static_cast<size_t>(of_base)].name == row.name, row.name);
        if (state.model().trains(index)) {
            state.write_row(index, [&] {
                std::vector<float> values = weights.values(of_base);
                if (adapter != nullptr) adapter->replace(of_base, values);
                return values;
            });
        } else {
            load_row(weights, of_base, index, state);
        }
        ++of_base;
    }
    state.round_masters();
}

}  // namespace llmc
