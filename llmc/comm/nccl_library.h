// NCCL's library, found when it is first needed rather than when the program starts: the same binary runs on machines
// without it.
#pragma once

#include <nccl.h>

#include <string>

namespace llmc {

/// The library's functions that we call, by their names without "nccl".
struct NcclLibrary {
    decltype(&ncclAllGather) AllGather = nullptr;
    decltype(&ncclCommAbort) CommAbort = nullptr;
    decltype(&ncclCommDestroy) CommDestroy = nullptr;
    decltype(&ncclCommGetAsyncError) CommGetAsyncError = nullptr;
    decltype(&ncclCommInitRank) CommInitRank = nullptr;
    decltype(&ncclGetErrorString) GetErrorString = nullptr;
    decltype(&ncclGetLastError) GetLastError = nullptr;
    decltype(&ncclGetUniqueId) GetUniqueId = nullptr;
    decltype(&ncclGetVersion) GetVersion = nullptr;
    decltype(&ncclGroupEnd) GroupEnd = nullptr;
    decltype(&ncclGroupStart) GroupStart = nullptr;
    decltype(&ncclRecv) Recv = nullptr;
    decltype(&ncclReduceScatter) ReduceScatter = nullptr;
    decltype(&ncclSend) Send = nullptr;
};

/// Looks for the library in the usual places and LD_LIBRARY_PATH, once; an Error says what to do where it is not there.
const NcclLibrary& nccl();

}  // namespace llmc
