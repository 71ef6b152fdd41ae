#include "llmc/io/checkpoint_parts.h"

#include "llmc/base/error.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

namespace llmc {
namespace {

bool is_kept_in(std::optional<DType> dtype) {
    return dtype == DType::F32 || dtype == DType::BF16 || dtype == DType::U8;
}

/// Bytes of an element; a type that nothing is kept in counts as fp32 until someone asks for it.
int64_t item_of(const SafetensorsView& view) { return is_kept_in(view.dtype) ? size_of(*view.dtype) : 4; }

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

std::string scales_name(const std::string& name) { return name + ".absmax"; }

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
        Part part = {0, static_cast<int64_t>(view.bytes.size()) / item_of(view), &view, &file, true};
        std::string name = view.name;
        if (parse_part_name(view.name, &name, &part.first, &part.end)) {
            part.is_whole = false;
            const int64_t shape[] = {part.end - part.first};
            if (part.first < 0) fail("'{}': '{}' is no part of a tensor", file.path(), view.name);
            file.expect(view.name, is_kept_in(view.dtype) ? *view.dtype : DType::F32, shape);
        }
        parts_[name].push_back(part);
    }
}

const std::vector<CheckpointParts::Part>& CheckpointParts::parts_of(const std::string& name) const {
    const auto found = parts_.find(name);
    if (found == parts_.end()) fail("the checkpoint '{}' has no tensor '{}'", checkpoint_.path, name);
    return found->second;
}

DType CheckpointParts::dtype_of(const std::string& name) const {
    const SafetensorsView& first = *parts_of(name).front().view;
    if (is_kept_in(first.dtype)) return *first.dtype;
    fail("the checkpoint '{}' has the tensor '{}' in {}, which this program cannot convert (F32, BF16 or U8 blocks)",
         checkpoint_.path, name, first.dtype_name);
}

void CheckpointParts::read(const std::string& name, DType dtype, std::span<const int64_t> shape, int64_t first,
                           int64_t end, const std::function<void(int64_t, std::span<const std::byte>)>& take) const {
    const std::vector<Part>& parts = parts_of(name);
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    if (const Part& last = parts.back(); !last.is_whole && last.end > count) {
        fail("the checkpoint '{}' has a part of the tensor '{}' beyond its {} elements", checkpoint_.path, name, count);
    }
    for (const Part& part : parts) {
        const int64_t own_shape[] = {part.end - part.first};
        part.file->expect(part.view->name, dtype, part.is_whole ? shape : own_shape);
        const int64_t from = std::max(first, part.first), to = std::min(end, part.end);
        if (from >= to) continue;
        if (from != first) break;  // A gap: what lies before this part is missing.
        const auto begin = static_cast<size_t>((from - part.first) * size_of(dtype));
        take(from, part.view->bytes.subspan(begin, static_cast<size_t>((to - from) * size_of(dtype))));
        first = to;
    }
    if (first < end) {
        fail("the checkpoint '{}' lacks elements {} to {} of the tensor '{}'", checkpoint_.path, first, end, name);
    }
}

void CheckpointParts::read_values(const std::string& name, std::span<const int64_t> shape, int64_t first, int64_t end,
                                  float* out, const DynamicMap* map) const {
    const DType dtype = dtype_of(name);
    if (dtype == DType::U8) {
        if (map == nullptr) fail("the checkpoint '{}' has the tensor '{}' in 8-bit blocks", checkpoint_.path, name);
        return read_codes(name, shape, first, end, out, *map);
    }
    read(name, dtype, shape, first, end, [&](int64_t from, std::span<const std::byte> elements) {
        float* const to = out + (from - first);
        if (dtype == DType::F32) {
            std::memcpy(to, elements.data(), elements.size());
            return;
        }
        for (size_t i = 0; i < elements.size() / sizeof(bf16); ++i) {
            bf16 value;
            std::memcpy(&value, elements.data() + i * sizeof(bf16), sizeof value);
            to[i] = to_float(value);
        }
    });
}

/// Whole blocks, of which the first and the last may begin before and end behind what is wanted.
void CheckpointParts::read_codes(const std::string& name, std::span<const int64_t> shape, int64_t first, int64_t end,
                                 float* out, const DynamicMap& map) const {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    const int64_t begin = first / kStateBlock * kStateBlock, last = std::min(count, round_up(end, kStateBlock));
    const int64_t blocks[] = {ceil_div(count, kStateBlock)};
    std::vector<uint8_t> codes(static_cast<size_t>(last - begin));
    std::vector<float> scales(static_cast<size_t>(ceil_div(last - begin, kStateBlock)));
    read(name, DType::U8, shape, begin, last, [&](int64_t from, std::span<const std::byte> elements) {
        std::memcpy(&codes[static_cast<size_t>(from - begin)], elements.data(), elements.size());
    });
    const int64_t block = begin / kStateBlock, end_block = block + static_cast<int64_t>(scales.size());
    read(scales_name(name), DType::F32, blocks, block, end_block, [&](int64_t from, std::span<const std::byte> of) {
        std::memcpy(&scales[static_cast<size_t>(from - block)], of.data(), of.size());
    });
    for (int64_t i = first; i < end; ++i) {
        const auto at = static_cast<size_t>(i - begin);
        out[i - first] = map[codes[at]] * scales[at / kStateBlock];
    }
}

}  // namespace llmc
