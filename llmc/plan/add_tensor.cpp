#include "llmc/plan/add_tensor.h"

#include "llmc/base/units.h"

#include <utility>

namespace llmc {

int32_t add_tensor(Plan* plan, const std::string& name, int layer, DType dtype, int64_t rows, int64_t cols,
                   Consumer consumer) {
    PlanTensor tensor;
    tensor.name = name, tensor.layer = layer, tensor.dtype = dtype, tensor.rows = rows, tensor.cols = cols;
    tensor.bytes = round_up(rows * cols * size_of(dtype), kPlanAlignment);
    tensor.consumer = consumer;
    plan->tensors.push_back(std::move(tensor));
    return static_cast<int32_t>(plan->tensors.size()) - 1;
}

}  // namespace llmc
