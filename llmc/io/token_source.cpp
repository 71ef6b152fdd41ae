#include "llmc/io/token_source.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/io/encoded_text.h"
#include "llmc/io/text_file.h"
#include "llmc/io/token_file.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

std::unique_ptr<TokenSource> open_file(MappedFile file, const Tokenizer* tokenizer, const std::string& option) {
    if (is_token_file(file.bytes())) return std::make_unique<TokenFile>(std::move(file), option, tokenizer);
    if (tokenizer == nullptr || tokenizer->name() == ByteTokenizer().name()) {
        return std::make_unique<TextFile>(std::move(file), option);
    }
    if (tokenizer->vocab_size() == 0) {
        fail("{}: '{}' is text, but the model's tokenizer is not known; give token files that were made for the model",
             option, file.path());
    }
    return std::make_unique<EncodedText>(std::move(file), *tokenizer, option);
}

}  // namespace

JoinedSource::JoinedSource(std::vector<std::unique_ptr<TokenSource>> parts) : parts_(std::move(parts)), starts_{0} {
    CHECK(!parts_.empty());
    for (const auto& part : parts_) starts_.push_back(starts_.back() + part->size());
}

size_t JoinedSource::part_of(int64_t position) const {
    CHECK(position >= 0 && position < size(), position, size());
    return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), position) - starts_.begin()) - 1;
}

void JoinedSource::read(int64_t position, std::span<int32_t> out) const {
    if (out.empty()) return;
    for (size_t part = part_of(position); !out.empty(); ++part) {
        CHECK(part < parts_.size(), position, out.size(), size());
        const int64_t count = std::min(starts_[part + 1] - position, static_cast<int64_t>(out.size()));
        parts_[part]->read(position - starts_[part], out.first(static_cast<size_t>(count)));
        out = out.subspan(static_cast<size_t>(count));
        position += count;
    }
}

std::string JoinedSource::where(int64_t position) const {
    const size_t part = part_of(position);
    return parts_[part]->where(position - starts_[part]);
}

std::string JoinedSource::describe() const {
    if (parts_.size() == 1) return parts_[0]->describe();
    return fmt::format("{} files, the first is {}", parts_.size(), parts_[0]->describe());
}

std::unique_ptr<TokenSource> open_token_source(const std::string& pattern, const std::string& option,
                                               const Tokenizer* tokenizer) {
    const std::vector<std::string> paths = glob_paths(pattern);
    if (paths.empty()) fail("{}: no file matches '{}'; check the pattern and the current folder", option, pattern);
    std::unique_ptr<Tokenizer> beside;
    if (tokenizer == nullptr && !tokenizer_beside(paths[0]).empty()) {
        beside = make_tokenizer(tokenizer_beside(paths[0]));
        tokenizer = beside.get();
    }
    std::vector<std::unique_ptr<TokenSource>> parts;
    for (const std::string& path : paths) {
        MappedFile file = map_data(path, option);
        if (file.size() == 0) {
            if (paths.size() == 1) fail("{}: '{}' is empty; name a file with text or tokens in it", option, path);
            spdlog::warn("{}: '{}' is empty and was skipped", option, path);
            continue;
        }
        parts.push_back(open_file(std::move(file), tokenizer, option));
        if (parts.back()->vocab_size() != parts.front()->vocab_size()) {
            fail("{}: '{}' mixes kinds of data: {}, but {}; name files of one kind", option, pattern,
                 parts.front()->describe(), parts.back()->describe());
        }
    }
    if (parts.empty()) fail("{}: all {} files that match '{}' are empty", option, paths.size(), pattern);
    return std::make_unique<JoinedSource>(std::move(parts));
}

TokenRange::TokenRange(const TokenSource& source, int64_t first, int64_t size)
    : source_(&source), first_(first), size_(size) {
    CHECK(first >= 0 && size >= 0 && first + size <= source.size(), first, size, source.size());
}

void TokenRange::read(int64_t position, std::span<int32_t> out) const {
    CHECK(position >= 0 && position + static_cast<int64_t>(out.size()) <= size_, position, out.size(), size_);
    source_->read(first_ + position, out);
}

TokenSplit split_off_validation(const TokenSource& source, int64_t T) {
    const int64_t size = source.size();
    if (size < 2 * (T + 1)) {
        fail(
            "--data: {} holds {} tokens; training and validation with --seq-len={} need at least {} ({} each); "
            "give more data, a shorter --seq-len, or --val-data",
            source.describe(), format_count(size), T, format_count(2 * (T + 1)), format_count(T + 1));
    }
    const int64_t held_out = std::max(size / 20, T + 1);
    return {TokenRange(source, 0, size - held_out), TokenRange(source, size - held_out, held_out)};
}

void require_one_sequence(const TokenRange& range, int64_t T, const std::string& option) {
    if (range.size() > T) return;
    fail("{}: {} tokens are too few: --seq-len={} needs at least {}; give more data or a shorter --seq-len", option,
         format_count(range.size()), T, format_count(T + 1));
}

}  // namespace llmc
