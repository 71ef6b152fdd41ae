#include "llmc/io/text_file.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/io/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

namespace llmc {
namespace {

constexpr size_t kSample = 64 * 1024;  ///< Bytes looked at to tell text from something else.

bool is_utf16(std::string_view text) { return text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"); }

/// Text has no NUL bytes and hardly any other control characters; a tenth of random bytes would be such.
bool looks_binary(std::string_view text) {
    constexpr std::string_view kTextControls = "\t\n\v\f\r\b\x1b";
    const auto is_control = [&](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (byte < 32 || byte == 127) && kTextControls.find(c) == std::string_view::npos;
    };
    if (text.find('\0') != std::string_view::npos) return true;
    const auto controls = std::count_if(text.begin(), text.end(), is_control);
    return static_cast<size_t>(controls) * 20 > text.size();
}

}  // namespace

MappedFile map_data(const std::string& path, const std::string& option) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::not_found) {
        fail("{}: '{}' does not exist; check the name and the current folder", option, path);
    }
    if (std::filesystem::is_directory(status)) {
        fail("{}: '{}' is a folder; name a file in it, or several with a quoted pattern such as '{}/*.txt'", option,
             path, path);
    }
    if (!std::filesystem::is_regular_file(status)) {
        fail("{}: '{}' is not a regular file; save its content to a file first", option, path);
    }
    try {
        return MappedFile(path);
    } catch (const Error& cause) {
        fail("{}: {}; check its permissions", option, cause.what());
    }
}

void require_text(const MappedFile& file, const std::string& option) {
    const std::string_view sample = file.text().substr(0, kSample);
    if (is_utf16(sample)) {
        fail("{}: '{}' is UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8", option, file.path());
    }
    if (looks_binary(sample)) {
        fail("{}: '{}' is a binary file, neither text nor an llm.c token file; unpack or convert it first", option,
             file.path());
    }
}

TextFile::TextFile(MappedFile file, const std::string& option) : file_(std::move(file)) { require_text(file_, option); }

void TextFile::read(int64_t position, std::span<int32_t> out) const {
    const auto count = static_cast<int64_t>(out.size());
    CHECK(position >= 0 && position + count <= size(), position, count, size());
    if (count == 0) return;
    if (position == 0) {
        out[0] = ByteTokenizer::kEndOfText;
        out = out.subspan(1);
        position = 1;
    }
    const auto* bytes = reinterpret_cast<const uint8_t*>(file_.data()) + position - 1;
    std::copy(bytes, bytes + out.size(), out.begin());
}

std::string TextFile::where(int64_t position) const {
    if (position == 0) return fmt::format("'{}' at its start", file_.path());
    return fmt::format("'{}' at byte {}", file_.path(), position - 1);
}

int32_t TextFile::vocab_size() const { return ByteTokenizer::kVocabSize; }
int32_t TextFile::end_of_text() const { return ByteTokenizer::kEndOfText; }
std::string TextFile::describe() const { return fmt::format("'{}' is text, read as bytes", file_.path()); }

}  // namespace llmc
