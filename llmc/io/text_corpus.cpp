#include "llmc/io/text_corpus.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/io/text_file.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

constexpr size_t kChunkBytes = 256 * 1024;

size_t end_of_line(std::string_view text, size_t from) {
    const size_t newline = text.find('\n', from);
    return newline == std::string_view::npos ? text.size() : newline + 1;
}

}  // namespace

TextCorpus::TextCorpus(const std::vector<std::string>& patterns, std::string jsonl_field, std::string option)
    : jsonl_field_(std::move(jsonl_field)), option_(std::move(option)) {
    for (const std::string& pattern : patterns) {
        const std::vector<std::string> paths = glob_paths(pattern);
        if (paths.empty()) fail("{}: no file matches '{}'; check the pattern and the current folder", option_, pattern);
        for (const std::string& path : paths) {
            MappedFile file = map_data(path, option_);
            if (jsonl_field_.empty()) require_text(file, option_);
            if (file.size() == 0) {
                spdlog::warn("{}: '{}' is empty and was skipped", option_, path);
                continue;
            }
            if (jsonl_field_.empty() && path.ends_with(".jsonl")) {
                spdlog::warn("{}: '{}' is read as plain text; if it is JSON Lines, give --jsonl-field=text", option_,
                             path);
            }
            bytes_ += file.size();
            files_.push_back(std::move(file));
        }
    }
    if (files_.empty()) fail("{}: there is no text in the files", option_);
}

bool TextCorpus::next(const Cut& cut, CorpusChunk* chunk) {
    if (file_ == files_.size()) return false;
    const std::string_view rest = files_[file_].text().substr(position_);
    size_t size = rest.size();
    if (size > kChunkBytes) {
        size = jsonl_field_.empty() ? cut(rest, kChunkBytes) : end_of_line(rest, kChunkBytes);
    }
    chunk->text = rest.substr(0, size);
    chunk->file = file_;
    chunk->starts_file = position_ == 0;
    chunk->first_line = line_;
    chunk->end_bytes = done_bytes_ += static_cast<int64_t>(size);
    position_ += size;
    if (!jsonl_field_.empty()) line_ += std::count(chunk->text.begin(), chunk->text.end(), '\n');
    if (size == rest.size()) {
        ++file_;
        position_ = 0;
        line_ = 1;
    }
    return true;
}

void TextCorpus::read(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const {
    if (jsonl_field_.empty()) {
        visit(chunk.text, chunk.starts_file);
    } else {
        read_lines(chunk, visit);
    }
}

void TextCorpus::read_lines(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const {
    std::string_view text = chunk.text;
    for (int64_t number = chunk.first_line; !text.empty(); ++number) {
        const size_t end = end_of_line(text, 0);
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end);
        if (line.find_first_not_of(" \t\r\n") == std::string_view::npos) continue;
        const auto refuse = [&](const std::string& what) {
            fail("{}: '{}' line {} {}", option_, path(chunk.file), number, what);
        };
        const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (json.is_discarded()) refuse("is not valid JSON");
        if (!json.is_object()) refuse("is not a JSON object");
        const auto field = json.find(jsonl_field_);
        if (field == json.end()) refuse(fmt::format("has no field '{}' (--jsonl-field)", jsonl_field_));
        if (!field->is_string()) {
            refuse(fmt::format("has a field '{}' that is no text but {}", jsonl_field_, field->type_name()));
        }
        visit(field->get_ref<const std::string&>(), /*starts_document=*/true);
    }
}

}  // namespace llmc
