#include "llmc/io/unpack.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <unistd.h>
#include <vector>

namespace llmc {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 17;

/// Says what is wrong with a packed file.
struct Complaint {
    const MappedFile& packed;
    const std::string& packing;
    const std::string& option;

    [[noreturn]] void damaged(const char* why) const {
        fail("{}: '{}' cannot be unpacked ({}): {}; copy or download it again", option, packed.path(), packing, why);
    }
    [[noreturn]] void cut() const { damaged("it ends in the middle"); }
};

void unpack_gzip(const Complaint& complaint, ProgressBar& progress, UnnamedFile& out) {
    z_stream stream = {};
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream, kGzipOnly) != Z_OK) fail("zlib cannot begin; is there memory left?");
    const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
    std::vector<char> buffer(kBufferBytes);
    std::string_view rest = complaint.packed.text();
    while (!rest.empty()) {
        const size_t given = std::min(rest.size(), kBufferBytes);
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(rest.data()));
        stream.avail_in = static_cast<uInt>(given);
        stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
        stream.avail_out = static_cast<uInt>(buffer.size());
        const int status = inflate(&stream, Z_NO_FLUSH);
        if (status != Z_OK && status != Z_STREAM_END) {
            complaint.damaged(status == Z_BUF_ERROR   ? "it ends in the middle"
                              : stream.msg != nullptr ? stream.msg
                                                      : "it is damaged");
        }
        out.write({buffer.data(), buffer.size() - stream.avail_out});
        rest.remove_prefix(given - stream.avail_in);
        progress.update(complaint.packed.size() - static_cast<int64_t>(rest.size()));
        if (status == Z_STREAM_END) {  // Another member may follow, and zeros that fill a block of a tape.
            rest.remove_prefix(std::min(rest.find_first_not_of('\0'), rest.size()));
            if (rest.empty()) return;
            if (packing_of(rest) != "gzip") complaint.damaged("something else follows its end");
            inflateReset(&stream);
        }
    }
    // All was taken in; what is still to come out needs no input.
    for (int status = Z_OK; status != Z_STREAM_END;) {
        stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
        stream.avail_out = static_cast<uInt>(buffer.size());
        status = inflate(&stream, Z_FINISH);
        if (status != Z_STREAM_END && status != Z_OK && (status != Z_BUF_ERROR || stream.avail_out != 0)) {
            complaint.cut();
        }
        out.write({buffer.data(), buffer.size() - stream.avail_out});
    }
}

void unpack_zstd(const Complaint& complaint, ProgressBar& progress, UnnamedFile& out) {
    constexpr int kLongestWindow = 31;
    const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
    if (context == nullptr) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kLongestWindow);
    std::vector<char> buffer(kBufferBytes);
    ZSTD_inBuffer in = {complaint.packed.data(), static_cast<size_t>(complaint.packed.size()), 0};
    size_t wanted = 0;  // Bytes that are still to come of a frame.
    for (bool is_full = false; in.pos < in.size || is_full;) {
        ZSTD_outBuffer chunk = {buffer.data(), buffer.size(), 0};
        wanted = ZSTD_decompressStream(context.get(), &chunk, &in);
        if (ZSTD_isError(wanted) != 0) complaint.damaged(ZSTD_getErrorName(wanted));
        out.write({buffer.data(), chunk.pos});
        is_full = chunk.pos == chunk.size && wanted != 0;
        progress.update(static_cast<int64_t>(in.pos));
    }
    if (wanted != 0) complaint.cut();
}

}  // namespace

std::string packing_of(std::string_view content) {
    if (content.size() < 4) return "";
    if (content.starts_with("\x1f\x8b\x08")) return "gzip";
    uint32_t magic = 0;
    std::memcpy(&magic, content.data(), sizeof magic);
    constexpr uint32_t kFirstSkippable = 0x184d2a50;  // Frames that only carry notes.
    return magic == ZSTD_MAGICNUMBER || (magic & ~0xfU) == kFirstSkippable ? "zstd" : "";
}

MappedFile unpack(const MappedFile& packed, const std::string& packing, const std::string& option) {
    UnnamedFile out(fmt::format("what '{}' unpacks to", packed.path()));
    ProgressBar progress("unpacking", packed.size());
    const Complaint complaint = {packed, packing, option};
    packing == "gzip" ? unpack_gzip(complaint, progress, out) : unpack_zstd(complaint, progress, out);
    return out.map(packed.path());
}

MappedFile read_standard_input(const std::string& option) {
    UnnamedFile out("what comes from standard input");
    std::vector<char> buffer(kBufferBytes);
    for (;;) {
        const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail("{}: cannot read standard input: {}", option, std::strerror(errno));
        if (count == 0) return out.map("-");
        out.write({buffer.data(), static_cast<size_t>(count)});
    }
}

}  // namespace llmc
