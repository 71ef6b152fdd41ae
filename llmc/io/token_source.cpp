#include "llmc/io/token_source.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/io/chat/row_source.h"
#include "llmc/io/encode_corpus.h"
#include "llmc/io/encoded_text.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/io/special_names.h"
#include "llmc/io/text_file.h"
#include "llmc/io/token_file.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace llmc {
namespace {

/// Whether bytes can be read where they lie, rather than encoded: there is no token in them but bytes.
bool is_plain(const DataFile& file, const Tokenizer& tokenizer, const DataReading& reading, SpecialNames& names) {
    if (file.kind != DataKind::Text || tokenizer.name() != ByteTokenizer().name()) return false;
    if (!reading.special_tokens) {
        names.count_on_threads(file.file.text(), threads_or_all(0));
        return true;
    }
    SpecialNames of_file(tokenizer);
    of_file.count_on_threads(file.file.text(), threads_or_all(0));
    return of_file.total() == 0;
}

std::unique_ptr<TokenSource> open_file(DataFile file, const Tokenizer* tokenizer, const DataReading& reading,
                                       const std::string& option, std::optional<SpecialNames>& names) {
    const bool is_rows = file.kind == DataKind::Rows;
    if (!is_text(file.kind) && !is_rows) return std::make_unique<TokenFile>(std::move(file), option, tokenizer);
    static const ByteTokenizer bytes;
    if (tokenizer == nullptr) tokenizer = &bytes;
    if (tokenizer->name() == UnknownTokenizer().name()) {
        fail(
            "{}: {}, and without a tokenizer (--tokenizer=none, or a model whose own is not known) only token files "
            "can "
            "be read; name the model's with --tokenizer=PATH, or a new model's, such as --tokenizer=bytes",
            option, file.describe());
    }
    if (tokenizer->vocab_size() == 0) {
        try {
            tokenizer->make_encoder(SpecialTokens::AsText);
        } catch (const Error& why) {
            fail("{}: {}, but {}, or give token files made for the model", option, file.describe(), why.what());
        }
    }
    if (is_rows) return std::make_unique<RowSource>(std::move(file), *tokenizer, reading, option);
    if (!names) names.emplace(*tokenizer);
    if (is_plain(file, *tokenizer, reading, *names)) return std::make_unique<TextFile>(std::move(file));
    return std::make_unique<EncodedText>(std::move(file), *tokenizer, reading, option, &*names);
}

/// Whether two files of one kind have the same vocabulary, ids of the same size, and both marks or none.
bool are_alike(const TokenSource& a, const TokenSource& b) {
    const auto item_bytes = [](const TokenSource& source) {
        const std::vector<const TokenFile*> files = source.token_files();
        return files.empty() ? 0 : files.front()->item_bytes();
    };
    return a.vocab_size() == b.vocab_size() && item_bytes(a) == item_bytes(b) && a.is_marked() == b.is_marked();
}

}  // namespace

void TokenSource::read_marks(int64_t position, std::span<uint8_t> out) const {
    std::vector<int32_t> ids(out.size());
    read(position, ids);
    for (size_t i = 0; i < ids.size(); ++i) {
        out[i] = static_cast<uint8_t>(ids[i] == end_of_text() ? kScored | kDocumentStart : kScored);
    }
}

JoinedSource::JoinedSource(std::vector<std::unique_ptr<TokenSource>> parts) : parts_(std::move(parts)), starts_{0} {
    CHECK(!parts_.empty());
    for (const auto& part : parts_) starts_.push_back(starts_.back() + part->size());
}

size_t JoinedSource::part_of(int64_t position) const {
    CHECK(position >= 0 && position < size(), position, size());
    return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), position) - starts_.begin()) - 1;
}

/// Calls read(part, position in it, its share of `out`) for every part that has some of what is to be read.
template <typename T, typename Read>
void JoinedSource::read_parts(int64_t position, std::span<T> out, const Read& read) const {
    if (out.empty()) return;
    for (size_t part = part_of(position); !out.empty(); ++part) {
        CHECK(part < parts_.size(), position, out.size(), size());
        const int64_t count = std::min(starts_[part + 1] - position, static_cast<int64_t>(out.size()));
        read(*parts_[part], position - starts_[part], out.first(static_cast<size_t>(count)));
        out = out.subspan(static_cast<size_t>(count));
        position += count;
    }
}

void JoinedSource::read(int64_t position, std::span<int32_t> out) const {
    read_parts(position, out, [](const TokenSource& part, int64_t first, auto ids) { part.read(first, ids); });
}

void JoinedSource::read_marks(int64_t position, std::span<uint8_t> out) const {
    read_parts(position, out,
               [](const TokenSource& part, int64_t first, auto marks) { part.read_marks(first, marks); });
}

bool JoinedSource::is_marked() const { return parts_[0]->is_marked(); }

std::string JoinedSource::where(int64_t position) const {
    const size_t part = part_of(position);
    return parts_[part]->where(position - starts_[part]);
}

std::string JoinedSource::describe() const {
    if (parts_.size() == 1) return parts_[0]->describe();
    return fmt::format("{} files; the first: {}", parts_.size(), parts_[0]->describe());
}

std::vector<const TokenFile*> JoinedSource::token_files() const {
    std::vector<const TokenFile*> files;
    for (const auto& part : parts_) {
        const std::vector<const TokenFile*> more = part->token_files();
        files.insert(files.end(), more.begin(), more.end());
    }
    return files;
}

std::unique_ptr<TokenSource> open_token_source(const std::string& pattern, const std::string& option,
                                               const Tokenizer* tokenizer, const DataReading& reading, FolderUse use) {
    const std::vector<std::string> paths = data_paths(pattern, option, use);
    std::unique_ptr<Tokenizer> beside;
    if (tokenizer == nullptr && !tokenizer_beside(paths[0]).empty()) {
        beside = make_models_tokenizer(tokenizer_beside(paths[0]));
        tokenizer = beside.get();
    }
    std::vector<std::unique_ptr<TokenSource>> parts;
    std::optional<SpecialNames> names;
    DataKind kind = DataKind::Text;
    for (const std::string& path : paths) {
        DataFile file = open_data_file(path, option, reading);
        if (file.file.size() == 0) {
            if (paths.size() == 1) fail("{}: '{}' is empty; name a file with text or tokens in it", option, path);
            spdlog::warn("{}: '{}' is empty and was skipped", option, path);
            continue;
        }
        const auto refuse_mix = [&](const std::string& other) {
            fail("{}: '{}' mixes kinds of data: {}, but {}; name files of one kind", option, pattern,
                 parts.front()->describe(), other);
        };
        if (parts.empty()) kind = file.kind;
        if (file.kind != kind) refuse_mix(file.describe());
        auto part = open_file(std::move(file), tokenizer, reading, option, names);
        if (part->size() == 0) {
            if (paths.size() == 1) fail("{}: '{}' has no text in it; name a file that has", option, path);
            spdlog::warn("{}: '{}' has no text in it and was skipped", option, path);
            continue;
        }
        parts.push_back(std::move(part));
        if (!are_alike(*parts.front(), *parts.back())) refuse_mix(parts.back()->describe());
    }
    if (parts.empty()) fail("{}: all {} files that match '{}' are empty", option, paths.size(), pattern);
    if (names) names->report(option);
    if (reading.special_tokens && !is_text(kind) && kind != DataKind::Rows) {
        spdlog::warn("{}: {}; --special-tokens has no effect on tokens", option, parts.front()->describe());
    }
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

void TokenRange::read_marks(int64_t position, std::span<uint8_t> out) const {
    CHECK(position >= 0 && position + static_cast<int64_t>(out.size()) <= size_, position, out.size(), size_);
    source_->read_marks(first_ + position, out);
}

namespace {

/// Where a document begins, the last one that does in [first, end); -1 if none does.
int64_t last_document_start(const TokenSource& source, int64_t first, int64_t end) {
    constexpr int64_t kAtOnce = 1 << 16;
    std::vector<uint8_t> marks;
    while (end > first) {
        const int64_t begin = std::max(first, end - kAtOnce);
        marks.resize(static_cast<size_t>(end - begin));
        source.read_marks(begin, marks);
        for (size_t i = marks.size(); i-- > 0;) {
            if ((marks[i] & kDocumentStart) != 0) return begin + static_cast<int64_t>(i);
        }
        end = begin;
    }
    return -1;
}

/// Rows are not cut in two: of those that the last 5 % of the tokens are in, the first goes to validation too, unless
/// it is the only one.
TokenSplit split_between_documents(const TokenSource& source) {
    const int64_t size = source.size(), wanted = size - std::max<int64_t>(1, size / 20);
    int64_t cut = last_document_start(source, 1, wanted + 1);
    if (cut < 0) cut = last_document_start(source, wanted + 1, size);
    if (cut < 0) {
        fail("--data: {}; one row is too little: training and validation need one each; give more data, or --val-data",
             source.describe());
    }
    return {TokenRange(source, 0, cut), TokenRange(source, cut, size - cut)};
}

}  // namespace

TokenSplit split_off_validation(const TokenSource& source, int64_t T) {
    if (source.is_marked()) return split_between_documents(source);
    const int64_t size = source.size();
    if (size < 2 * (T + 1)) {
        const int64_t shorter = size / 2 - 1;
        fail(
            "--data: {}; its {} tokens are too few: training and validation with --seq-len={} need at least {} ({} "
            "each); give more data{}{}",
            source.describe(), format_count(size), T, format_count(2 * (T + 1)), format_count(T + 1),
            shorter > 0 ? fmt::format(", --seq-len={} or less", shorter) : "", size > T ? ", or --val-data" : "");
    }
    const int64_t held_out = std::max(size / 20, T + 1);
    return {TokenRange(source, 0, size - held_out), TokenRange(source, size - held_out, held_out)};
}

void require_one_sequence(const TokenRange& range, int64_t T, const std::string& option) {
    if (range.size() > T) return;
    const int64_t shorter = range.size() - 1;
    fail("{}: {} tokens are too few: --seq-len={} needs at least {}; give more data{}", option,
         format_count(range.size()), T, format_count(T + 1),
         shorter > 0 ? fmt::format(", or --seq-len={} or less", shorter) : "");
}

}  // namespace llmc
