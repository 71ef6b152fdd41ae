#include "llmc/io/text_corpus.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/shallow_json.h"
#include "llmc/base/units.h"
#include "llmc/io/data_paths.h"

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

/// Names of the fields that are texts, for who named another.
std::string text_fields(const nlohmann::json& object) {
    constexpr size_t kMost = 5;
    std::vector<std::string> names;
    for (const auto& [name, value] : object.items()) {
        if (value.is_string() && names.size() < kMost) names.push_back("'" + name + "'");
    }
    return fmt::format("{}", fmt::join(names, ", "));
}

/// Python's json writes numbers that JSON does not have; as null, outside of strings, they do no harm.
std::string without_odd_numbers(std::string_view line) {
    std::string text(line);
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"') in_string = !in_string;
        if (in_string && text[i] == '\\') ++i;
        if (in_string) continue;
        for (const std::string_view number : {"NaN", "-Infinity", "Infinity"}) {
            if (std::string_view(text).substr(i).starts_with(number)) text.replace(i, number.size(), "null");
        }
    }
    return text;
}

/// Puts the text of a line's field into `document`; what is wrong with the line, or "".
std::string read_field(std::string_view line, const std::string& field, std::string* document) {
    nlohmann::json json = nlohmann::json::parse(shallow_json(line), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) {
        json = nlohmann::json::parse(shallow_json(without_odd_numbers(line)), nullptr, /*allow_exceptions=*/false);
    }
    if (json.is_discarded()) return "is not valid JSON";
    if (!json.is_object()) return "is not a JSON object";
    const auto found = json.find(field);
    if (found == json.end()) {
        const std::string others = text_fields(json);
        return fmt::format("has no field '{}'; it has {}", field,
                           others.empty() ? "no texts" : others + ", which --jsonl-field may name");
    }
    if (!found->is_string()) return fmt::format("has a field '{}' that is no text but {}", field, found->type_name());
    *document = found->get_ref<const std::string&>();
    return "";
}

}  // namespace

std::vector<DataFile> open_data_files(const std::vector<std::string>& patterns, const DataReading& reading,
                                      const std::string& option) {
    std::vector<DataFile> files;
    for (const std::string& pattern : patterns) {
        for (const std::string& path : data_paths(pattern, option)) {
            files.push_back(open_data_file(path, option, reading));
            if (files.back().file.size() > 0) continue;
            spdlog::warn("{}: '{}' is empty and was skipped", option, path);
            files.pop_back();
        }
    }
    return files;
}

TextCorpus::TextCorpus(const std::vector<std::string>& patterns, const DataReading& reading, std::string option)
    : TextCorpus(open_data_files(patterns, reading, option), reading, option) {}

TextCorpus::TextCorpus(std::vector<DataFile> files, const DataReading& reading, std::string option)
    : reading_(reading), option_(std::move(option)) {
    for (DataFile& file : files) {
        if (!is_text(file.kind)) fail("{}: {}, not text; train on it as it is: --data", option_, file.describe());
        add(std::move(file));
    }
    if (files_.empty()) fail("{}: there is no text in the files", option_);
}

TextCorpus::TextCorpus(DataFile file, const DataReading& reading, std::string option)
    : reading_(reading), option_(std::move(option)) {
    add(std::move(file));
}

void TextCorpus::add(DataFile file) {
    bytes_ += file.file.size();
    files_.push_back(std::move(file.file));
}

bool TextCorpus::next(const Cut& cut, CorpusChunk* chunk) {
    if (file_ == files_.size()) return false;
    const std::string_view rest = files_[file_].text().substr(position_);
    size_t size = rest.size();
    if (size > kChunkBytes) {
        size = reading_.jsonl_field.empty() ? cut(rest, kChunkBytes) : end_of_line(rest, kChunkBytes);
    }
    chunk->text = rest.substr(0, size);
    chunk->file = file_;
    chunk->starts_file = position_ == 0;
    chunk->first_line = line_;
    chunk->end_bytes = done_bytes_ += static_cast<int64_t>(size);
    position_ += size;
    if (!reading_.jsonl_field.empty()) line_ += std::count(chunk->text.begin(), chunk->text.end(), '\n');
    if (size == rest.size()) {
        ++file_;
        position_ = 0;
        line_ = 1;
    }
    return true;
}

void TextCorpus::read(const CorpusChunk& chunk, const std::function<void(std::string_view, bool)>& visit) const {
    if (reading_.jsonl_field.empty()) {
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
        std::string document;
        const std::string fault = read_field(line, reading_.jsonl_field, &document);
        if (fault.empty()) {
            visit(document, /*starts_document=*/true);
        } else {
            skip_or_refuse(chunk, number, fault);
        }
    }
}

void TextCorpus::skip_or_refuse(const CorpusChunk& chunk, int64_t line, const std::string& what) const {
    if (!reading_.skip_bad_lines) {
        fail("{}: '{}' line {} {}; mend the line, or pass over such lines with --skip-bad-lines", option_,
             path(chunk.file), line, what);
    }
    const std::lock_guard lock(skipped_.mutex);
    const bool is_first =
        skipped_.count++ == 0 || std::pair(chunk.file, line) < std::pair(skipped_.file, skipped_.line);
    if (!is_first) return;
    skipped_.file = chunk.file, skipped_.line = line, skipped_.what = what;
}

std::string TextCorpus::where(const CorpusChunk& chunk) const {
    const bool has_lines = !reading_.jsonl_field.empty();
    const auto byte = static_cast<int64_t>(chunk.text.data() - files_[chunk.file].text().data());
    return fmt::format("'{}' from {} {} on", path(chunk.file), has_lines ? "line" : "byte",
                       has_lines ? chunk.first_line : byte);
}

void TextCorpus::report_skipped_lines() const {
    const std::lock_guard lock(skipped_.mutex);
    if (skipped_.count == 0) return;
    spdlog::warn("{}: {} bad line{} skipped (--skip-bad-lines); the first, '{}' line {}, {}", option_,
                 format_count(skipped_.count), skipped_.count == 1 ? " was" : "s were", path(skipped_.file),
                 skipped_.line, skipped_.what);
}

}  // namespace llmc
