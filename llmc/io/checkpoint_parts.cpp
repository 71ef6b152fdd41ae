#include "llmc/io/checkpoint_parts.h"

#include "llmc/base/error.h"

#include <algorithm>
#include <charconv>

namespace llmc {
namespace {

constexpr int64_t kItem = size_of(DType::F32);

/// Reads "NAME[first:end]"; false if the name has no such ending.
bool parse_part_name(const std::string& full, std::string* name, int64_t* first, int64_t* end) {
    const size_t open = full.rfind('['), colon = full.rfind(':');
    if (open == std::string::npos || colon == std::string::npos || colon < open || !full.ends_with(']')) return false;
    const auto number = [&](size_t from, size_t to, int64_t* value) {
        const char* last = full.data() + to;
        const auto [rest, error] = std::from_chars(full.data() + from, last, *value);
        return error == std::errc() && rest == last;
    };
    *name = full.substr(0, open);
    return number(open + 1, colon, first) && number(colon + 1, full.size() - 1, end);
}

}  // namespace

std::string rank_file(const std::string& stem, int rank, int ranks) {
    if (ranks == 1) return stem + ".safetensors";
    return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, rank + 1, ranks);
}

std::string part_name(const std::string& name, int64_t first, int64_t end, int64_t count) {
    return first == 0 && end == count ? name : fmt::format("{}[{}:{}]", name, first, end);
}

CheckpointParts::CheckpointParts(const Checkpoint& checkpoint, const std::string& stem) : checkpoint_(checkpoint) {
    for (const auto& [file_name, file] : checkpoint.files) {
        if (file_name != stem + ".safetensors" && !file_name.starts_with(stem + "-")) continue;
        ++files_;
        add(file);
    }
    for (auto& [name, parts] : parts_) {
        std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.first < b.first; });
    }
}

void CheckpointParts::add(const SafetensorsFile& file) {
    for (const SafetensorsView& view : file.tensors()) {
        Part part = {0, static_cast<int64_t>(view.bytes.size()) / kItem, &view, &file, true};
        std::string name = view.name;
        if (parse_part_name(view.name, &name, &part.first, &part.end)) {
            part.is_whole = false;
            const int64_t shape[] = {part.end - part.first};
            if (part.first < 0) fail("'{}': '{}' is no part of a tensor", file.path(), view.name);
            file.expect(view.name, DType::F32, shape);
        }
        parts_[name].push_back(part);
    }
}

void CheckpointParts::read(const std::string& name, std::span<const int64_t> shape, int64_t first, int64_t end,
                           const std::function<void(int64_t, std::span<const std::byte>)>& take) const {
    const auto found = parts_.find(name);
    if (found == parts_.end()) fail("the checkpoint '{}' has no tensor '{}'", checkpoint_.path, name);
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    if (const Part& last = found->second.back(); !last.is_whole && last.end > count) {
        fail("the checkpoint '{}' has a part of the tensor '{}' beyond its {} elements", checkpoint_.path, name, count);
    }
    for (const Part& part : found->second) {
        if (part.is_whole) part.file->expect(name, DType::F32, shape);
        const int64_t from = std::max(first, part.first), to = std::min(end, part.end);
        if (from >= to) continue;
        if (from != first) break;  // A gap: what lies before this part is missing.
        const auto begin = static_cast<size_t>((from - part.first) * kItem);
        take(from, part.view->bytes.subspan(begin, static_cast<size_t>((to - from) * kItem)));
        first = to;
    }
    if (first < end) {
        fail("the checkpoint '{}' lacks elements {} to {} of the tensor '{}'", checkpoint_.path, first, end, name);
    }
}

}  // namespace llmc
