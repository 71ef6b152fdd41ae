#include "llmc/base/temporary_folder.h"

#include "llmc/base/file.h"

#include <filesystem>
#include <utility>

namespace llmc {

TemporaryFolder::TemporaryFolder(std::string path) : path_(std::move(path)) { make_directories(path_, "--output-dir"); }

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

}  // namespace llmc
