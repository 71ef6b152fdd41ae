#include "llmc/io/data_signature.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/unicode.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>

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
    Signature{0, "MMIDIDX\0\0"sv, "an index of Megatron",
              "train on the .bin beside it: --data=FILE.bin --data-format=uint16"},
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

/// The control characters that text has.
constexpr std::string_view kTextControls = "\t\n\v\f\r\b\x1b";

bool is_control(char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 32 || byte == 127) && kTextControls.find(c) == std::string_view::npos;
}

/// The number of 2 or 4 bytes at text[i].
uint32_t unit_at(std::string_view text, size_t i, size_t bytes, bool big) {
    uint32_t unit = 0;
    for (size_t k = 0; k < bytes; ++k) {
        const size_t byte = i + (big ? k : bytes - 1 - k);
        unit = unit << 8 | static_cast<unsigned char>(text[byte]);
    }
    return unit;
}

bool is_surrogate(uint32_t unit) { return unit >= 0xD800 && unit < 0xE000; }

/// Characters by the script they belong to, roughly: most texts have one, besides Latin.
enum class Script : uint8_t { Latin, EastAsian, Hangul, Other };
uint32_t script_of(uint32_t unit) {
    const auto number = [](Script script, uint32_t page = 0) { return static_cast<uint32_t>(script) << 16 | page; };
    if (unit < 0x300 || (unit >= 0x1E00 && unit < 0x1F00) || (unit >= 0x2000 && unit < 0x2070)) {
        return number(Script::Latin);
    }
    if ((unit >= 0x2E80 && unit < 0xA000) || (unit >= 0xF900 && unit < 0xFB00) || (unit >= 0xFE30 && unit < 0xFFF0)) {
        return number(Script::EastAsian);
    }
    if (unit >= 0xAC00 && unit < 0xD7B0) return number(Script::Hangul);
    return number(Script::Other, unit >> 8);
}

/// Whether units of 2 or 4 bytes are text: characters that exist, nearly none of them a control character, words or
/// sentences with something between them, and two scripts at most. Token ids are spread over everything.
bool is_wide_text(std::string_view text, size_t bytes, bool big) {
    constexpr double kMostOdd = 0.002, kLeastBetween = 0.005, kLeastAlike = 0.95;
    constexpr size_t kFewestForStatistics = 32;
    size_t odd = 0, between = 0, ascii = 0, pairs = 0;
    std::map<uint32_t, size_t> scripts;
    const size_t count = text.size() / bytes;
    for (size_t i = 0; i < count; ++i) {
        const uint32_t unit = unit_at(text, i * bytes, bytes, big);
        if (unit > 0x10FFFF || (bytes == 4 && is_surrogate(unit))) return false;
        const bool is_pair = is_surrogate(unit) && unit < 0xDC00 && i + 1 < count &&
                             (unit_at(text, (i + 1) * bytes, bytes, big) & 0xFC00) == 0xDC00;
        if (is_pair) {
            ++pairs, ++i;
            continue;
        }
        const bool is_last = i + 1 == count;  // Where the sample may cut a pair.
        const bool is_odd = (unit < 32 && unit != '\t' && unit != '\n' && unit != '\r') || unit == 127 ||
                            (unit & 0xFFFE) == 0xFFFE || (unit >= 0xE000 && unit < 0xF900) ||
                            (is_surrogate(unit) && !is_last);
        if (is_odd) ++odd;
        ascii += unit < 127 && !is_odd ? 1 : 0;
        between += unit == ' ' || unit == '\n' || (unit >= 0x3000 && unit < 0x3003) || unit == 0xFF0C ? 1 : 0;
        ++scripts[script_of(unit)];
    }
    const auto share = [&](size_t part) { return static_cast<double>(part) / static_cast<double>(count); };
    if (share(ascii) > 0.9 && share(odd) < 0.1) return true;
    if (count < kFewestForStatistics || share(odd) > kMostOdd || share(between) < kLeastBetween) return false;
    size_t latin = scripts[script_of('a')], most = 0;
    for (const auto& [script, size] : scripts) most = script == script_of('a') ? most : std::max(most, size);
    return share(latin + most + 2 * pairs) > kLeastAlike;
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
    // Without a mark at its beginning.
    const std::string_view text = content.substr(0, kSample);
    if (text.size() < 4 || looks_like_utf8(text)) return "";
    for (const bool big : {false, true}) {
        if (text.size() % 4 == 0 && is_wide_text(text, 4, big)) return big ? "UTF-32BE" : "UTF-32LE";
    }
    for (const bool big : {false, true}) {
        if (is_wide_text(text, 2, big)) return big ? "UTF-16BE" : "UTF-16LE";
    }
    return "";
}

bool looks_like_utf8(std::string_view content) {
    constexpr size_t kLongestCharacter = 4;
    const std::string_view text = content.substr(0, kSample);
    const size_t valid = valid_utf8_prefix(text);
    const bool is_cut = content.size() > kSample && text.size() - valid < kLongestCharacter;
    return (valid == text.size() || is_cut) && std::none_of(text.begin(), text.end(), is_control);
}

bool looks_binary(std::string_view content) {
    const std::string_view text = content.substr(0, kSample);
    if (text.find('\0') != std::string_view::npos) return true;
    const auto controls = std::count_if(text.begin(), text.end(), is_control);
    return static_cast<size_t>(controls) * 20 > text.size();  // A tenth of random bytes would be such.
}

}  // namespace llmc
