#include "llmc/base/program_name.h"

#include "llmc/base/printable.h"

namespace llmc {
namespace {

std::string& name() {
    static std::string word = "train_gpt";
    return word;
}

}  // namespace

void name_program(const char* as_called) {
    if (as_called != nullptr && *as_called != '\0') name() = shell_word(as_called);
}

const std::string& program_name() { return name(); }

}  // namespace llmc
