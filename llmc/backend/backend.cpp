// What a backend does unless it can do better.
#include "llmc/backend/backend.h"

#include <chrono>

namespace llmc {

TimeMark Backend::mark() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return {std::chrono::duration<double>(now).count(), nullptr};
}

double Backend::seconds_between(const TimeMark& first, const TimeMark& second) {
    return second.seconds - first.seconds;
}

void Backend::repeat(const void*, const std::function<void()>& work) { work(); }

void Backend::forget(const void*) {}

}  // namespace llmc
