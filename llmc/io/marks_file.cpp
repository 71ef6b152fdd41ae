#include "llmc/io/marks_file.h"

#include "llmc/base/error.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/units.h"
#include "llmc/io/token_source.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace llmc {
namespace {

constexpr int32_t kMagic = 20261128, kVersion = 1;
constexpr size_t kChecksumBytes = 16;
constexpr int64_t kHeaderBytes = 16 + 2 * kChecksumBytes;

std::span<const std::byte> bytes_of(std::span<const uint8_t> marks) { return std::as_bytes(marks); }

}  // namespace

std::string marks_beside(const std::string& token_file) {
    constexpr std::string_view kEnding = ".bin";
    const bool has_ending = token_file.ends_with(kEnding);
    return token_file.substr(0, token_file.size() - (has_ending ? kEnding.size() : 0)) + ".marks";
}

void write_marks(const std::string& path, std::span<const uint8_t> marks, const std::string& tokens_checksum) {
    FileWriter writer(path);
    const int32_t kind[] = {kMagic, kVersion};
    const auto count = static_cast<int64_t>(marks.size());
    writer.write(kind, sizeof kind);
    writer.write(&count, sizeof count);
    writer.write(checksum_of(bytes_of(marks)));
    writer.write(tokens_checksum);
    writer.write(marks.data(), count);
    writer.close();
}

MarksFile::MarksFile(const std::string& path, const MappedFile& tokens, int64_t count, const std::string& option)
    : file_(path) {
    const auto refuse = [&](const std::string& what) {
        fail(
            "{}: '{}' says what is scored of '{}', but {}; make both again with tokenize, or remove it to train on "
            "every token",
            option, path, tokens.path(), what);
    };
    int32_t kind[2] = {};
    int64_t marks_count = 0;
    if (file_.size() < kHeaderBytes) refuse(fmt::format("it is cut: it has {} bytes", file_.size()));
    std::memcpy(kind, file_.data(), sizeof kind);
    std::memcpy(&marks_count, file_.data() + sizeof kind, sizeof marks_count);
    if (kind[0] != kMagic) refuse("it is a file of another kind");
    if (kind[1] != kVersion) refuse(fmt::format("it has version {}, and this program knows {}", kind[1], kVersion));
    if (marks_count != file_.size() - kHeaderBytes) {
        refuse(fmt::format("it is cut or damaged: {} marks are announced, {} are there", format_count(marks_count),
                           format_count(file_.size() - kHeaderBytes)));
    }
    if (marks_count != count) {
        refuse(fmt::format("it has {} marks, and there are {} tokens", format_count(marks_count), format_count(count)));
    }
    const std::string_view sums = file_.text().substr(sizeof kind + sizeof count, 2 * kChecksumBytes);
    if (sums.substr(0, kChecksumBytes) != checksum_of(bytes_of(marks()))) refuse("it is damaged: its checksum differs");
    if (sums.substr(kChecksumBytes) != checksum_of(tokens.bytes())) refuse("it belongs to other tokens than these");
    const bool is_known = std::all_of(marks().begin(), marks().end(),
                                      [](uint8_t mark) { return (mark & ~(kScored | kDocumentStart)) == 0; });
    if (!is_known || (count > 0 && (marks()[0] & kDocumentStart) == 0)) refuse("it has marks that make no sense");
}

void MarksFile::read(int64_t position, std::span<uint8_t> out) const {
    read_mapped(file_, kHeaderBytes + position, static_cast<int64_t>(out.size()), [&](const std::byte* from) {
        std::transform(from, from + out.size(), out.begin(), std::to_integer<uint8_t>);
    });
}

std::span<const uint8_t> MarksFile::marks() const {
    const std::span<const std::byte> bytes = file_.bytes().subspan(static_cast<size_t>(kHeaderBytes));
    return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

}  // namespace llmc
