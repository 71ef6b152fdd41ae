// Cores and hardware threads of this machine, as hwloc finds them.
#pragma once

#include <memory>
#include <string>
#include <vector>

struct hwloc_topology;

namespace llmc::cpu {

class Topology {
  public:
    /// Of this machine; or one that hwloc makes up of a description such as "pack:1 core:2 pu:2".
    explicit Topology(const std::string& synthetic = "");

    /// All processors (hardware threads), as the system numbers them.
    std::vector<int> processors() const;
    /// Physical cores that have one of these processors; one that is unknown is a core of its own. At least 1.
    int cores_of(const std::vector<int>& processors) const;
    /// Binds the calling thread to all processors and says on which of them it may run then: the system leaves out
    /// those that a control group has not. Empty where the system refuses.
    std::vector<int> unbind_this_thread() const;
    /// What the processor calls itself; "" where it does not say.
    std::string processor_model() const;

  private:
    struct Destroy {
        void operator()(hwloc_topology* topology) const;
    };
    std::unique_ptr<hwloc_topology, Destroy> topology_;  ///< Null where hwloc finds nothing.
};

/// Of this machine; found at the first call.
const Topology& this_topology();

}  // namespace llmc::cpu
