#include "llmc/io/data_signature.h"

#include "llmc/base/error.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace llmc {
namespace {

using namespace std::string_view_literals;

constexpr size_t kSample = 64 * 1024;  ///< Bytes looked at to tell text from something else.

struct Signature {
    size_t position;
    std::string_view bytes;
    const char* name;
    const char* advice;  ///< {} is the path.
};
constexpr std::array kSignatures = {
    Signature{0, "PAR1"sv, "a Parquet file",
              "convert it: scripts/parquet_text.py '{0}' > '{0}.jsonl' (needs pyarrow: pip install pyarrow), and read "
              "that with --jsonl-field=text"},
    Signature{4, "1AY&SY"sv, "packed by bzip2", "unpack it: bunzip2 -k '{0}'"},
    Signature{0,
              "\xfd"
              "7zXZ\0"sv,
              "packed by xz", "unpack it: unxz -k '{0}'"},
    Signature{0, "\x04\x22\x4d\x18"sv, "packed by lz4", "unpack it: unlz4 '{0}'"},
    Signature{0, "\xff\x06\0\0sNaPpY"sv, "packed by snappy", "unpack it first, as with python-snappy"},
    Signature{0, "\x1f\x9d"sv, "packed by compress", "unpack it: uncompress -k '{0}'"},
    Signature{0, "\x5d\0\0"sv, "packed by lzma", "unpack it: unlzma -k '{0}'"},
    Signature{0, "LZIP\x01"sv, "packed by lzip", "unpack it: lzip -dk '{0}'"},
    Signature{0, "PARE"sv, "an encrypted Parquet file", "decrypt it, and convert it with scripts/parquet_text.py"},
    Signature{0, "PK\x03\x04"sv, "a zip archive", "unpack it: unzip '{0}'"},
    Signature{0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive", "unpack it: 7z x '{0}'"},
    Signature{0, "Rar!\x1a\x07"sv, "a RAR archive", "unpack it: unrar x '{0}'"},
    Signature{257, "ustar"sv, "a tar archive", "unpack it: tar -xf '{0}'"},
    Signature{0, "ARROW1\0\0"sv, "an Arrow file", "write its table as JSON Lines, and give --jsonl-field"},
    Signature{0, "\xff\xff\xff\xff\x10"sv, "an Arrow stream", "write its table as JSON Lines, and give --jsonl-field"},
    Signature{0, "\x93NUMPY"sv, "a NumPy array",
              "write the ids alone: numpy.load('{0}').astype('uint16').tofile('ids.bin'), and give "
              "--data=ids.bin --data-format=uint16"},
    Signature{0, "MMIDIDX\0\0"sv, "an index of Megatron", "name the .bin beside it, with --data-format=uint16"},
    Signature{0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file", "write its texts to a text file"},
    Signature{0, "SQLite format 3\0"sv, "an SQLite database", "write its texts to a text file"},
    Signature{0, "%PDF-"sv, "a PDF", "make text of it: pdftotext '{0}'"},
    Signature{0, "\x80\x02"sv, "a pickle of Python", "write its texts, or its token ids as uint16"},
    Signature{0, "\x80\x03"sv, "a pickle of Python", "write its texts, or its token ids as uint16"},
    Signature{0, "\x80\x04\x95"sv, "a pickle of Python", "write its texts, or its token ids as uint16"},
    Signature{0, "\x80\x05\x95"sv, "a pickle of Python", "write its texts, or its token ids as uint16"},
    Signature{8, "{\""sv, "a safetensors file, which has weights", "name data; --model takes the weights' folder"},
    Signature{0, "\xc6\xd7\x34\x01"sv, "llm.c's model file", "name data; --model takes this file"},
    Signature{0, "\xc7\xd7\x34\x01"sv, "llm.c's debug state", "name data"},
    Signature{0, "\xc8\xd7\x34\x01"sv, "llm.c's tokenizer file", "name data; --tokenizer takes this file"},
    Signature{0, "\x8a\xd8\x34\x01"sv, "llm.c's HellaSwag file", "evaluate takes it as --hellaswag='{0}'"},
};

/// Share of the bytes at `first`, `first` + `step`, ... that `is_one` is true of.
template <typename Predicate>
double share(std::string_view text, size_t first, size_t step, Predicate is_one) {
    size_t ones = 0, all = 0;
    for (size_t i = first; i < text.size(); i += step, ++all) ones += is_one(text[i]) ? 1 : 0;
    return all == 0 ? 0 : static_cast<double>(ones) / static_cast<double>(all);
}

/// The control characters that text has.
constexpr std::string_view kTextControls = "\t\n\v\f\r\b\x1b";

bool is_control(char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 32 || byte == 127) && kTextControls.find(c) == std::string_view::npos;
}

}  // namespace

void refuse_foreign(std::string_view content, const std::string& path, const std::string& option) {
    for (const Signature& kind : kSignatures) {
        if (content.size() < kind.position || !content.substr(kind.position).starts_with(kind.bytes)) continue;
        if (kind.bytes.starts_with("PAR") && !looks_binary(content)) continue;
        if (kind.position == 8 && content.find('\0') >= kind.position) continue;  // A text, not a length and a header.
        fail("{}: '{}' is {}; {}", option, path, kind.name, fmt::format(fmt::runtime(kind.advice), path));
    }
}

std::string utf_encoding_of(std::string_view content) {
    if (content.starts_with("\xff\xfe\0\0"sv) || content.starts_with("\0\0\xfe\xff"sv)) return "UTF-32";
    if (content.starts_with("\xff\xfe"sv) || content.starts_with("\xfe\xff"sv)) return "UTF-16";
    // Without a mark at its beginning: letters of one byte, and a NUL with each.
    const std::string_view text = content.substr(0, kSample);
    const auto is_nul = [](char c) { return c == '\0'; };
    const auto is_letter = [](char c) { return static_cast<unsigned char>(c) < 127 && c != '\0' && !is_control(c); };
    if (text.size() < 4 || text.size() % 2 != 0) return "";
    for (const size_t low : {size_t{0}, size_t{1}}) {
        const char* order = low == 0 ? "LE" : "BE";
        const size_t first = low == 0 ? 0 : 3;
        if (text.size() % 4 == 0 && share(text, first, 4, is_letter) > 0.9 &&
            share(text, 1, 4, is_nul) + share(text, 2, 4, is_nul) + share(text, 3 - first, 4, is_nul) > 2.7) {
            return std::string("UTF-32") + order;
        }
        if (share(text, low, 2, is_letter) > 0.9 && share(text, 1 - low, 2, is_nul) > 0.9) {
            return std::string("UTF-16") + order;
        }
    }
    return "";
}

bool looks_binary(std::string_view content) {
    const std::string_view text = content.substr(0, kSample);
    if (text.find('\0') != std::string_view::npos) return true;
    const auto controls = std::count_if(text.begin(), text.end(), is_control);
    return static_cast<size_t>(controls) * 20 > text.size();  // A tenth of random bytes would be such.
}

}  // namespace llmc
