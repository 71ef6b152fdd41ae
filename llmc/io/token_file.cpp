#include "llmc/io/token_file.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian and are read as they are");

const TokenFormat* format_of(int32_t magic) {
    if (magic == kGpt2Tokens.magic) return &kGpt2Tokens;
    if (magic == kLlama3Tokens.magic) return &kLlama3Tokens;
    return nullptr;
}

int32_t header_field(std::span<const std::byte> bytes, size_t index) {
    int32_t value = 0;
    std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
    return value;
}

template <typename Item>
void copy_items(const std::byte* from, std::span<int32_t> out) {
    for (size_t i = 0; i < out.size(); ++i) {
        Item item = 0;
        std::memcpy(&item, from + i * sizeof item, sizeof item);
        out[i] = static_cast<int32_t>(item);
    }
}

template <typename Item>
uint32_t largest_item(const std::byte* from, int64_t count) {
    uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; ++i) {
        Item item = 0;
        std::memcpy(&item, from + i * static_cast<int64_t>(sizeof item), sizeof item);
        largest = std::max<uint32_t>(largest, item);
    }
    return largest;
}

/// Whether all items but each `step`th are zero: ids that are wider than they are taken for.
bool are_wider(std::span<const std::byte> bytes, size_t step) {
    constexpr size_t kLookedAt = size_t{1} << 14, kFewest = 16;
    const size_t count = std::min(bytes.size() / sizeof(uint16_t), kLookedAt);
    std::vector<uint16_t> items(count);
    std::memcpy(items.data(), bytes.data(), count * sizeof(uint16_t));
    for (size_t i = 0; i < count; ++i) {
        if (i % step != 0 && items[i] != 0) return false;
    }
    return count >= kFewest && std::any_of(items.begin(), items.end(), [](uint16_t item) { return item != 0; });
}

/// Beside the file, where no pattern for shards finds it.
std::string temporary_name(const std::string& path) {
    const size_t name = path.rfind('/') + 1;
    return path.substr(0, name) + ".tmp-" + path.substr(name);
}

/// What may be NAME in this path of a file NAME_train_000000.bin or NAME_val_000000.bin.
std::vector<std::string> names_before_split(const std::string& path) {
    std::vector<std::string> names;
    for (const std::string_view part : {"_train_", "_val_"}) {
        const size_t end = path.rfind(part);
        if (end != std::string::npos && path.find('/', end) == std::string::npos) names.push_back(path.substr(0, end));
    }
    return names;
}

void require_finished(const std::string& path, const std::string& option) {
    for (const std::string& name : names_before_split(path)) {
        const std::string rest = unfinished_shard(name);
        if (rest.empty()) continue;
        fail(
            "{}: '{}' is one of several token files, and '{}' has not got its name yet; wait for the tokenize that "
            "writes them, or run it again if it was killed",
            option, path, rest);
    }
}

}  // namespace

bool is_token_file(std::span<const std::byte> bytes) {
    return bytes.size() >= sizeof(int32_t) && format_of(header_field(bytes, 0)) != nullptr;
}

TokenFormat format_for(const Tokenizer& tokenizer) {
    TokenFormat format = tokenizer.vocab_size() <= 65536 ? kGpt2Tokens : kLlama3Tokens;
    format.vocab_size = tokenizer.vocab_size();
    format.end_of_text = tokenizer.end_of_text();
    return format;
}

std::string tokenizer_beside(const std::string& path) {
    for (const std::string& name : names_before_split(path)) {
        if (is_directory(name + "_tokenizer")) return name + "_tokenizer";
    }
    return "";
}

std::string unfinished_shard(const std::string& name) {
    const std::string first = name + "_train_000000.bin";
    const std::string temporary = temporary_name(first);
    return path_exists(temporary) && !path_exists(first) ? temporary : "";
}

TokenFile::TokenFile(DataFile file, const std::string& option, const Tokenizer* tokenizer)
    : what_(file.describe()), file_(std::move(file.file)) {
    require_finished(path(), option);
    if (file.kind == DataKind::TokenFile) {
        check_header(option);
    } else {
        format_ = file.kind == DataKind::Uint16 ? &kGpt2Tokens : &kLlama3Tokens;
        count_ = file_.size() / item_bytes();
        if (file_.size() % item_bytes() != 0) {
            fail("{}: '{}' has {} bytes, which is no whole number of uint{} token ids; it is cut or of another kind",
                 option, path(), file_.size(), 8 * item_bytes());
        }
        const size_t halves = static_cast<size_t>(item_bytes()) / 2;
        if (are_wider(file_.bytes(), 2 * halves)) {
            fail("{}: '{}' looks like ids of {} bits, read as {}: every second one is 0; {}", option, path(),
                 16 * item_bytes(), 8 * item_bytes(),
                 halves == 1 && !are_wider(file_.bytes(), 4) ? "give --data-format=uint32"
                                                             : "write them as uint32, and give --data-format=uint32");
        }
    }
    const bool known = tokenizer != nullptr && tokenizer->vocab_size() > 0;
    vocab_size_ = known ? tokenizer->vocab_size() : format_->vocab_size;
    end_of_text_ = known ? tokenizer->end_of_text() : format_->end_of_text;
    if (known) tokenizer_ = tokenizer->name();
    const std::string marks = marks_beside(path());
    if (marks != path() && path_exists(marks)) marks_.emplace(marks, file_, count_, option);
}

void TokenFile::check_header(const std::string& option) {
    CHECK(is_token_file(file_.bytes()), file_.path());
    format_ = format_of(header_field(file_.bytes(), 0));
    header_bytes_ = kTokenFileHeaderBytes;
    if (file_.size() < kTokenFileHeaderBytes) {
        fail("{}: token file '{}' is truncated: {} bytes, its header alone has {}; copy or make it again", option,
             file_.path(), file_.size(), kTokenFileHeaderBytes);
    }
    const int32_t version = header_field(file_.bytes(), 1);
    if (version != format_->version) {
        fail("{}: token file '{}' has version {}, {} token files have {}; make it again with llm.c's data scripts",
             option, file_.path(), version, format_->name, format_->version);
    }
    count_ = header_field(file_.bytes(), 2);
    if (count_ <= 0) {
        fail("{}: token file '{}' holds {} tokens by its header; make it again", option, file_.path(), count_);
    }
    const int64_t expected = kTokenFileHeaderBytes + count_ * format_->item_bytes;
    if (file_.size() != expected) {
        fail("{}: token file '{}' is {}: {} tokens make {} bytes, the file has {}; copy or make it again", option,
             file_.path(), file_.size() < expected ? "truncated" : "too long", format_count(count_), expected,
             file_.size());
    }
}

void TokenFile::read(int64_t position, std::span<int32_t> out) const {
    CHECK(position >= 0 && position + static_cast<int64_t>(out.size()) <= count_, position, out.size(), count_);
    const int64_t first = header_bytes_ + position * item_bytes();
    const auto copy = format_->item_bytes == 2 ? copy_items<uint16_t> : copy_items<uint32_t>;
    read_mapped(file_, first, static_cast<int64_t>(out.size()) * item_bytes(),
                [&](const std::byte* from) { copy(from, out); });
}

void TokenFile::read_marks(int64_t position, std::span<uint8_t> out) const {
    if (!marks_) return TokenSource::read_marks(position, out);
    CHECK(position >= 0 && position + static_cast<int64_t>(out.size()) <= count_, position, out.size(), count_);
    marks_->read(position, out);
}

std::string TokenFile::where(int64_t position) const { return fmt::format("'{}' at token {}", file_.path(), position); }

std::string TokenFile::describe() const {
    const std::string marked = marks_ ? ", with marks of what is scored" : "";
    return (header_bytes_ > 0 ? fmt::format("{} ({})", what_, format_->name) : what_) + marked;
}

uint32_t TokenFile::largest(int64_t first, int64_t count) const {
    CHECK(first >= 0 && count >= 0 && first + count <= count_, first, count, count_);
    const std::byte* from = items() + first * item_bytes();
    return item_bytes() == 2 ? largest_item<uint16_t>(from, count) : largest_item<uint32_t>(from, count);
}

TokenShardWriter::TokenShardWriter(std::string prefix, const TokenFormat& format, int64_t shard_tokens)
    : prefix_(std::move(prefix)), format_(format), shard_tokens_(shard_tokens) {
    CHECK(shard_tokens > 0 && shard_tokens <= std::numeric_limits<int32_t>::max(), shard_tokens);
}

TokenShardWriter::~TokenShardWriter() {
    if (closed_) return;
    for (const auto* paths : {&marks_paths_, &paths_}) {
        // Each has one of its names. The first shard goes last: unfinished_shard().
        for (auto path = paths->rbegin(); path != paths->rend(); ++path) {
            if (unlink(temporary_name(*path).c_str()) != 0) unlink(path->c_str());
        }
    }
}

void TokenShardWriter::add(int32_t token) {
    if (token < 0 || token >= format_.vocab_size) {
        fail("token {} cannot be stored in a {} token file: its vocabulary is {}", token, format_.name,
             format_.vocab_size);
    }
    const auto bytes = std::bit_cast<std::array<std::byte, sizeof token>>(token);
    items_.insert(items_.end(), bytes.begin(), bytes.begin() + format_.item_bytes);
    ++tokens_;
}

void TokenShardWriter::append(std::span<const int32_t> tokens) {
    const size_t full = static_cast<size_t>(shard_tokens_) * static_cast<size_t>(format_.item_bytes);
    for (const int32_t token : tokens) {
        add(token);
        if (items_.size() == full) write_shard();
    }
}

void TokenShardWriter::append_marked(std::span<const int32_t> tokens, std::span<const uint8_t> marks) {
    CHECK(tokens.size() == marks.size() && !tokens.empty(), tokens.size(), marks.size());
    CHECK(marks_.size() * static_cast<size_t>(format_.item_bytes) == items_.size(), marks_.size(), items_.size());
    const size_t together = marks_.size() + tokens.size();
    if (!marks_.empty() && together > static_cast<size_t>(shard_tokens_)) write_shard();
    for (const int32_t token : tokens) add(token);
    marks_.insert(marks_.end(), marks.begin(), marks.end());
}

void TokenShardWriter::close_all(std::initializer_list<TokenShardWriter*> writers) {
    std::vector<std::string> paths;
    for (TokenShardWriter* writer : writers) {
        if (!writer->items_.empty()) writer->write_shard();
        paths.insert(paths.end(), writer->paths_.begin(), writer->paths_.end());
    }
    // Marks first: tokens without theirs would all be scored.
    for (const TokenShardWriter* writer : writers) {
        paths.insert(paths.end(), writer->marks_paths_.begin(), writer->marks_paths_.end());
    }
    for (auto path = paths.rbegin(); path != paths.rend(); ++path) {
        rename_into_place(temporary_name(*path), *path);
    }
    for (TokenShardWriter* writer : writers) writer->closed_ = true;
}

void TokenShardWriter::write_shard() {
    const std::string path = fmt::format("{}_{:06}.bin", prefix_, paths_.size());
    std::array<int32_t, kTokenFileHeaderBytes / sizeof(int32_t)> header = {
        format_.magic, format_.version, static_cast<int32_t>(items_.size() / static_cast<size_t>(format_.item_bytes))};
    FileWriter writer(temporary_name(path));
    writer.write(header.data(), kTokenFileHeaderBytes);
    writer.write(items_.data(), static_cast<int64_t>(items_.size()));
    const std::string checksum = writer.checksum();
    writer.close();
    items_.clear();
    paths_.push_back(path);
    if (marks_.empty()) return;
    const std::string marks_path = marks_beside(path);
    write_marks(temporary_name(marks_path), marks_, checksum);
    marks_.clear();
    marks_paths_.push_back(marks_path);
}

}  // namespace llmc
