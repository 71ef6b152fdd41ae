#include "dev/cuda_on_cpu/report.h"

#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/streams.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <link.h>
#include <map>
#include <unistd.h>
#include <vector>

namespace cuda_on_cpu {

namespace {

std::string reports;
bool quiet = false;
cudaError_t sticky = cudaSuccess;

// Where the program was loaded.
uintptr_t program_base() {
    uintptr_t base = 0;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* result) {
            *static_cast<uintptr_t*>(result) = info->dlpi_addr;
            return 1;
        },
        &base);
    return base;
}

struct Frame {
    std::string function, place;
};

// "/top/of/tree/llmc/backend/cuda/norm.cu:41 (discriminator 3)" -> "llmc/backend/cuda/norm.cu:41".
std::string shortened(std::string place) {
    place = place.substr(0, place.find(' '));
    for (const char* top : {"/llmc/", "/tests/", "/dev/"}) {
        const size_t at = place.rfind(top);
        if (at != std::string::npos) return place.substr(at + 1);
    }
    return place;
}

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

// The frames that were inlined at one address, innermost first, from the debug information.
const std::vector<Frame>& frames_at(const void* pc) {
    static std::map<const void*, std::vector<Frame>> known;
    const auto [entry, is_new] = known.try_emplace(pc);
    std::vector<Frame>& frames = entry->second;
    if (!is_new) return frames;
    char program[4096] = {};
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) return frames;
    const uintptr_t offset = reinterpret_cast<uintptr_t>(pc) - program_base();
    FILE* const output = popen(format("addr2line -i -f -C -e '%s' 0x%zx 2>/dev/null", program, offset).c_str(), "r");
    if (!output) return frames;
    char function[4096], place[4096];
    while (std::fgets(function, sizeof function, output) && std::fgets(place, sizeof place, output)) {
        Frame frame{function, place};
        frame.function.pop_back();
        frame.place.pop_back();
        frame.place = shortened(frame.place);
        frames.push_back(frame);
    }
    pclose(output);
    return frames;
}

}  // namespace

std::string format(const char* pattern, ...) {
    char text[4096];
    va_list values;
    va_start(values, pattern);
    vsnprintf(text, sizeof text, pattern, values);
    va_end(values);
    return text;
}

std::string text_of(const Where& where) { return shortened(where.file_name()) + format(":%u", where.line()); }

std::string lines_of(const void* pc) {
    std::string text;
    for (const Frame& frame : frames_at(static_cast<const char*>(pc) - 1)) {
        const bool ours = starts_with(frame.place, "dev/cuda_on_cpu/");
        if (ours || starts_with(frame.place, "/usr/") || starts_with(frame.place, "??")) continue;
        if (!text.empty()) text += " < ";
        text += frame.place;
    }
    return text.empty() ? format("%p", pc) : text;
}

std::string lines_of(const void* return_address, const Where& where) {
    const std::string direct = text_of(where), text = lines_of(return_address);
    return text.find(direct) == std::string::npos ? direct : text.substr(text.find(direct));
}

std::string function_at(const void* pc) {
    const std::vector<Frame>& frames = frames_at(pc);
    if (frames.empty()) return format("%p", pc);
    std::string name = frames.back().function;
    const std::string of_file = "_kernels::";  // Inline namespaces (device.cuh).
    for (size_t at = name.find(of_file); at != std::string::npos; at = name.find(of_file)) {
        const size_t before = name.find_last_of(": <(,", at), begin = before == std::string::npos ? 0 : before + 1;
        name.erase(begin, at + of_file.size() - begin);
    }
    if (starts_with(name, "void ")) name.erase(0, std::strlen("void "));
    return name.substr(0, name.find('('));
}

void report(cudaError_t error, const std::string& text) {
    if (!reports.empty()) reports += "\n";
    reports += text;
    if (!quiet) std::fprintf(stderr, "CUDA on the CPU, seed %ju: %s\n", uintmax_t{current_seed()}, text.c_str());
    if (sticky == cudaSuccess) sticky = error;
    wake_waiting_threads();
}

cudaError_t sticky_error() { return sticky; }
const std::string& last_report() { return reports; }
void set_quiet(bool value) { quiet = value; }

void clear_report() {
    drop_operations();
    reports.clear();
    sticky = cudaSuccess;
    cudaGetLastError();
}

}  // namespace cuda_on_cpu
