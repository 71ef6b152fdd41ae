#include "llmc/base/version.h"

#ifndef LLMC_VERSION
#define LLMC_VERSION "unknown"
#endif

namespace llmc {

const char* version() { return LLMC_VERSION; }

}  // namespace llmc
