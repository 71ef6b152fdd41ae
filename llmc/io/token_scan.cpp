#include "llmc/io/token_scan.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/io/token_file.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <omp.h>
#include <optional>
#include <sstream>
#include <sys/stat.h>

namespace llmc {
namespace {

constexpr int64_t kChunkTokens = int64_t{1} << 20;

/// What is remembered of a file: all of it, and the result, as one line.
struct Memory {
    std::string place;     ///< The file in the cache folder; "" if there is none.
    std::string identity;  ///< Path, tokens and their size, times at which its content and its status changed.
};

/// A file that was written just now may be written again without a change of its time: it is not remembered.
Memory memory_of(const TokenFile& file) {
    constexpr std::time_t kSettledSeconds = 2;
    const std::string folder = cache_folder();
    struct stat info = {};
    if (folder.empty() || stat(file.path().c_str(), &info) != 0) return {};
    if (std::time(nullptr) - std::max(info.st_mtim.tv_sec, info.st_ctim.tv_sec) < kSettledSeconds) return {};
    std::error_code error;
    const std::string whole = std::filesystem::canonical(file.path(), error).string();
    if (error) return {};
    const std::string hash = checksum_of(std::as_bytes(std::span(whole)));
    return {folder + "/token_files/" + hash,
            fmt::format("{}\n{} x {} of {} bytes, {}.{} {}.{}\n", whole, file.size(), file.item_bytes(), info.st_size,
                        info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec)};
}

std::optional<uint32_t> recall(const Memory& memory) {
    if (memory.place.empty() || !path_exists(memory.place)) return std::nullopt;
    try {
        const std::string text = read_text(memory.place);
        if (!text.starts_with(memory.identity)) return std::nullopt;
        std::istringstream rest(text.substr(memory.identity.size()));
        uint32_t largest = 0;
        if (rest >> largest) return largest;
    } catch (const Error&) {  // Then it is looked at again.
    }
    return std::nullopt;
}

void remember(const Memory& memory, uint32_t largest) {
    static bool has_warned = false;
    if (memory.place.empty() || has_warned) return;
    try {
        make_directories(std::filesystem::path(memory.place).parent_path().string(), "the cache");
        write_shared_text(memory.place, fmt::format("{}{}\n", memory.identity, largest));
    } catch (const Error& error) {
        spdlog::warn("what the check of token ids found is not remembered: {}", error.what());
        has_warned = true;
    }
}

uint32_t scan(const TokenFile& file, int threads, ProgressBar& progress, int64_t* done_bytes) {
    const int64_t at_once = kChunkTokens * 16 * threads;
    uint32_t largest = 0;
    for (int64_t begin = 0; begin < file.size(); begin += at_once) {
        const int64_t end = std::min(file.size(), begin + at_once);
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(max : largest)
        for (int64_t first = begin; first < end; first += kChunkTokens) {
            largest = std::max(largest, file.largest(first, std::min(kChunkTokens, end - first)));
        }
        *done_bytes += (end - begin) * file.item_bytes();
        progress.update(*done_bytes);
    }
    return largest;
}

}  // namespace

int64_t largest_id(const TokenSource& source, int threads) {
    struct Unseen {
        const TokenFile* file;
        Memory memory;
    };
    std::vector<Unseen> unseen;
    int64_t largest = -1, bytes = 0;
    for (const TokenFile* file : source.token_files()) {
        Memory memory = memory_of(*file);
        if (const auto known = recall(memory)) {
            largest = std::max<int64_t>(largest, *known);
        } else {
            bytes += file->size() * file->item_bytes();
            unseen.push_back({file, std::move(memory)});
        }
    }
    constexpr int64_t kBig = int64_t{1} << 30;
    if (bytes >= kBig) {
        spdlog::info("data    checking the ids of {} of token files; remembered afterwards, or left out by --no-scan",
                     format_bytes(bytes));
    }
    const double begin = now_seconds();
    ProgressBar progress("checking token ids", bytes);
    int64_t done_bytes = 0;
    for (const Unseen& next : unseen) {
        const uint32_t of_file = scan(*next.file, threads, progress, &done_bytes);
        remember(next.memory, of_file);
        largest = std::max<int64_t>(largest, of_file);
    }
    if (bytes >= kBig) {
        const double seconds = std::max(now_seconds() - begin, 1e-9);
        spdlog::info("data    checked in {:.1f} s, {:.1f} GB/s", seconds, static_cast<double>(bytes) / 1e9 / seconds);
    }
    return largest;
}

std::string find_id_beyond(const TokenSource& source, int64_t vocab_size) {
    for (const TokenFile* file : source.token_files()) {
        for (int64_t first = 0; first < file->size(); first += kChunkTokens) {
            const int64_t count = std::min(kChunkTokens, file->size() - first);
            if (file->largest(first, count) < vocab_size) continue;
            int64_t place = first;
            while (file->largest(place, 1) < vocab_size) ++place;
            return fmt::format("token {} in {}", file->largest(place, 1), file->where(place));
        }
    }
    return "";
}

}  // namespace llmc
