#include "llmc/backend/cpu/binding.h"

#include "llmc/backend/cpu/machine.h"
#include "llmc/backend/cpu/topology.h"

#include <system_error>
#include <thread>

namespace llmc::cpu {

std::vector<int> processors_if_unbound() {
    std::vector<int> processors;
    try {  // In a thread that ends then, since it is bound no more.
        std::thread([&] { processors = this_topology().unbind_this_thread(); }).join();
    } catch (const std::system_error&) {  // No thread to be had: others will say so.
    }
    return processors.empty() ? allowed_processors() : processors;
}

}  // namespace llmc::cpu
