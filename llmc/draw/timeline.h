// A plan's memory as a picture: who holds how many bytes of the arena at every step of a micro-batch, and where the
// peak stands.
#pragma once

#include "llmc/plan/layout.h"

#include <array>
#include <string>
#include <vector>

namespace llmc {

using BytesByConsumer = std::array<int64_t, kNumConsumers>;

/// Live bytes at every step; they add up to Simulation::live_bytes.
std::vector<BytesByConsumer> live_by_consumer(const Plan& plan);

/// As SVG: the consumers stacked, the phases above them, the peak with its step in words.
std::string draw_timeline(const Model& model, const Plan& plan, const Layout& layout, const std::string& title,
                          const std::string& subtitle);

}  // namespace llmc
