#include "llmc/model/dropout.h"

#include "llmc/base/check.h"
#include "llmc/base/dropout.h"
#include "llmc/model/lora.h"

#include <utility>

namespace llmc {

Model with_dropout(Model model, double p) {
    CHECK(p >= 0 && p < 1 && !model.lora && model.dropout == 0, p);
    if (p == 0) return model;
    model.dropout = static_cast<float>(p);
    int sites = 0;
    for (OpRow row : std::exchange(model.block, {})) {
        if (row.kind != OpKind::Matmul || row.residual == kNone) {
            model.block.push_back(std::move(row));
            continue;
        }
        const DropoutSite site = sites++ == 0 ? DropoutSite::Attention : DropoutSite::Mlp;
        model.activations.push_back({row.name + "_branch", model.config.C, ActivationRole::MatmulOut});
        const int branch = static_cast<int>(model.activations.size()) - 1;
        OpRow drops = {.kind = OpKind::Dropout, .name = row.name + "_dropout", .in = branch};
        drops.out = std::exchange(row.out, branch);
        drops.residual = std::exchange(row.residual, kNone);
        drops.dropout_site = static_cast<int>(site);
        model.block.push_back(std::move(row));
        model.block.push_back(std::move(drops));
    }
    CHECK(sites == 2, sites);
    return model;
}

std::vector<OpRow> block_without_dropout(const Model& model) {
    std::vector<OpRow> block = model.block;
    for (const OpRow& drops : model.block) {
        if (drops.kind != OpKind::Dropout) continue;
        OpRow* last = &block[static_cast<size_t>(model.producer(drops.in))];
        last->out = drops.out;
        if (last->kind == OpKind::AdapterUp) last = &block[static_cast<size_t>(model.producer(last->residual))];
        last->residual = drops.residual;
    }
    return block;
}

Model with_config(const Model& model, const ModelConfig& config) {
    return with_lora(with_dropout(make_model(config), model.dropout), model.lora);
}

}  // namespace llmc
