#include "llmc/backend/cpu/binding.h"

#include "llmc/backend/cpu/machine.h"

#include <sched.h>
#include <system_error>
#include <thread>

namespace llmc::cpu {
namespace {

/// Asks for all processors and looks what it was given: the system leaves out what the control group has not. Only for
/// a thread that ends then, since it is bound no more.
std::vector<int> unbind_this_thread() {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (int i = 0; i < CPU_SETSIZE; ++i) CPU_SET(i, &mask);
    std::vector<int> processors;
    if (sched_setaffinity(0, sizeof mask, &mask) != 0 || sched_getaffinity(0, sizeof mask, &mask) != 0) return {};
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &mask)) processors.push_back(i);
    }
    return processors;
}

}  // namespace

std::vector<int> processors_if_unbound() {
    std::vector<int> processors;
    try {
        std::thread([&] { processors = unbind_this_thread(); }).join();
    } catch (const std::system_error&) {  // No thread to be had: others will say so.
    }
    return processors.empty() ? allowed_processors() : processors;
}

}  // namespace llmc::cpu
