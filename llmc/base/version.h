// The program's version, as `git describe` gave it at build time.
#pragma once

namespace llmc {

const char* version();

}  // namespace llmc
