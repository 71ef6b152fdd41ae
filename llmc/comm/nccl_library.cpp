#include "llmc/comm/nccl_library.h"

#include "llmc/base/error.h"

#include <dlfcn.h>

namespace llmc {
namespace {

#ifdef LLMC_CUDA_ON_CPU

/// The stand-in is part of the test program.
#define LLMC_FIND(function) found.function = &nccl##function

void* open_library() { return nullptr; }

#else

#define LLMC_FIND(function)                                                                        \
    found.function = reinterpret_cast<decltype(found.function)>(dlsym(library, "nccl" #function)); \
    if (found.function == nullptr) fail("NCCL: {} lacks nccl" #function "; install NCCL 2.13 or newer", kLibrary)

// A literal, so that scripts/gpu_machine.py can read it in the binary.
[[gnu::used]] const char kLibrary[] = "libnccl.so.2";

void* open_library() {
    const std::string name = kLibrary;
    for (const std::string& path : {name, std::string(LLMC_CUDA_LIBRARIES "/") + name}) {
        if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    }
    fail("NCCL: {} was not found, which ranks on GPUs need; install NCCL, or add its folder to LD_LIBRARY_PATH", name);
}

#endif

NcclLibrary find_functions() {
    [[maybe_unused]] void* library = open_library();
    NcclLibrary found;
    LLMC_FIND(AllGather);
    LLMC_FIND(CommAbort);
    LLMC_FIND(CommDestroy);
    LLMC_FIND(CommGetAsyncError);
    LLMC_FIND(CommInitRank);
    LLMC_FIND(GetErrorString);
    LLMC_FIND(GetLastError);
    LLMC_FIND(GetUniqueId);
    LLMC_FIND(GetVersion);
    LLMC_FIND(GroupEnd);
    LLMC_FIND(GroupStart);
    LLMC_FIND(Recv);
    LLMC_FIND(ReduceScatter);
    LLMC_FIND(Send);
    return found;
}

}  // namespace

const NcclLibrary& nccl() {
    static const NcclLibrary library = find_functions();
    return library;
}

}  // namespace llmc
