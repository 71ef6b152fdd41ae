#include "llmc/train/step_numbers.h"

#include "llmc/base/check.h"

namespace llmc {

StepNumbers::StepNumbers(Backend& backend, int64_t losses)
    : backend_(backend), memory_(backend, (1 + losses) * size_of(DType::F64), "losses", Memory::Host) {}

void StepNumbers::copy_loss(int64_t index, Tensor loss) { copy(1 + static_cast<size_t>(index), loss); }

void StepNumbers::copy_norm(Tensor norm) {
    copy(0, norm);
    copied_ = backend_.mark();
}

void StepNumbers::wait() { backend_.seconds_between(copied_, copied_); }

std::span<double> StepNumbers::values() const {
    return {reinterpret_cast<double*>(memory_.data()), static_cast<size_t>(memory_.bytes() / size_of(DType::F64))};
}

void StepNumbers::copy(size_t index, Tensor number) {
    CHECK(number.dtype == DType::F64 && number.count() == 1, name_of(number.dtype), number.count());
    CHECK(index < values().size(), index, values().size());
    backend_.wait_copy(backend_.copy_out(&values()[index], number));
}

}  // namespace llmc
