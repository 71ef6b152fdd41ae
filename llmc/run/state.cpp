#include "llmc/run/state.h"

#include "llmc/base/error.h"
#include "llmc/base/rng.h"

#include <algorithm>
#include <utility>

namespace llmc {

DeviceBuffer::DeviceBuffer(Backend& backend, int64_t bytes, const std::string& what)
    : backend_(&backend), bytes_(bytes) {
    if (bytes > 0) data_ = static_cast<char*>(backend.allocate(bytes, what));
}

DeviceBuffer::~DeviceBuffer() {
    if (data_ != nullptr) backend_->release(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

State::State(Backend& backend, const Model& model, DType dtype, int64_t T, int64_t arena_bytes, bool training)
    : backend_(backend), model_(model), dtype_(dtype) {
    const std::string obstacle = backend.why_unsupported({1, T, model.config.NH, model.config.NKV, model.config.HD});
    if (!obstacle.empty()) fail("model {}: {}", model.config.name, obstacle);
    const StateBytes bytes =
        state_bytes(model, dtype, T, backend.global_norm_workspace(model.parameter_elements), training);
    parameters_ = DeviceBuffer(backend, bytes.parameters, "parameters");
    gradients_ = DeviceBuffer(backend, bytes.gradients, "gradients");
    moments_ = DeviceBuffer(backend, bytes.moments, "AdamW moments");
    master_ = DeviceBuffer(backend, bytes.master, "master weights");
    rope_ = DeviceBuffer(backend, bytes.rope_table, "RoPE table");
    scalars_ = DeviceBuffer(backend, bytes.scalars, "scalars");
    arena_ = DeviceBuffer(backend, arena_bytes, "activations");
    if (bytes.rope_table > 0) {
        rope_table_view_ = Tensor(DType::F32, rope_.data(), T, model.config.HD);
        backend.copy_to_device(rope_table_view_, llmc::rope_table(model.config, T).data());
    }
}

void State::reserve_host(int64_t bytes) {
    if (bytes <= host_bytes_) return;
    host_.reset();
    void* memory = backend_.allocate_host(bytes, std::string(kHostMemoryRow));
    host_ = std::unique_ptr<char, ReleaseHost>(static_cast<char*>(memory), {&backend_});
    host_bytes_ = bytes;
}

void State::initialise(uint64_t seed) {
    constexpr int64_t kPiece = 1 << 18;  // A large tensor is drawn in pieces, so that the host never holds it twice.
    std::vector<float> values;
    for (size_t i = 0; i < model_.parameters.size(); ++i) {
        const ParameterRow& row = model_.parameters[i];
        const Tensor tensor = master_or_parameter(static_cast<int>(i));
        const int64_t used = row.used_rows * row.cols;
        for (int64_t first = 0; first < row.count(); first += kPiece) {
            const int64_t count = std::min(kPiece, row.count() - first);
            values.assign(static_cast<size_t>(count), 0.0f);  // Padding rows stay zero.
            const int64_t drawn = std::clamp<int64_t>(used - first, 0, count);
            if (row.init == Init::Ones) std::fill_n(values.begin(), drawn, 1.0f);
            if (row.init == Init::Normal) {
                fill_normal(values.data(), drawn, row.stddev, seed, RngStream::Init, static_cast<uint32_t>(i),
                            static_cast<uint64_t>(first));
            }
            backend_.copy_to_device(Tensor(DType::F32, static_cast<float*>(tensor.data) + first, count), values.data());
        }
    }
    round_masters();
}

Tensor State::flat(const DeviceBuffer& buffer, int64_t first) const {
    if (buffer.data() == nullptr) return {};
    return {DType::F32, buffer.data() + first * size_of(DType::F32), model_.parameter_elements};
}

Tensor State::all_parameters() const { return {dtype_, parameters_.data(), model_.parameter_elements}; }

Tensor State::row(const Tensor& flat_tensor, int index) const {
    if (index == kNone || !flat_tensor) return {};
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    char* data = static_cast<char*>(flat_tensor.data) + row.offset * size_of(flat_tensor.dtype);
    return {flat_tensor.dtype, data, row.rows, row.cols};
}

Tensor State::parameter(int index) const { return row(all_parameters(), index); }
Tensor State::gradient(int index) const { return row(all_gradients(), index); }
Tensor State::moment_m(int index) const { return row(all_m(), index); }
Tensor State::moment_v(int index) const { return row(all_v(), index); }

Tensor State::master_or_parameter(int index) const {
    return master_.data() != nullptr ? row(all_masters(), index) : parameter(index);
}

void State::round_masters() {
    if (master_.data() != nullptr) backend_.convert(all_parameters(), all_masters());
}

Tensor State::loss_sum() const { return {DType::F64, scalars_.data(), 1}; }
Tensor State::grad_norm() const { return {DType::F64, scalars_.data() + kTensorAlignment, 1}; }

Tensor State::norm_workspace() const {
    return {DType::U8, scalars_.data() + 2 * kTensorAlignment, scalars_.bytes() - 2 * kTensorAlignment};
}

int64_t State::allocated_bytes() const {
    return parameters_.bytes() + gradients_.bytes() + moments_.bytes() + master_.bytes() + rope_.bytes() +
           scalars_.bytes() + arena_.bytes();
}

std::vector<ParameterRange> parameter_ranges(const Model& model) {
    std::vector<ParameterRange> ranges;
    for (const ParameterRow& row : model.parameters) {
        // A row begins where the last range ends, up to an alignment gap of zeros that may be updated as well.
        const bool extends = !ranges.empty() && ranges.back().decay == row.decay;
        if (!extends) ranges.push_back({row.offset, 0, row.decay});
        ranges.back().count = row.offset + row.count() - ranges.back().offset;
    }
    return ranges;
}

}  // namespace llmc
