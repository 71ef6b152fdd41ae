#include "llmc/io/pipeline/bpe_model.h"

#include "llmc/base/error.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/unicode.h"

#include <algorithm>

namespace llmc {
namespace {

constexpr int32_t kNone = -1, kMany = -2;

/// The one token of two sets of at most one; kMany if they differ.
int32_t united(int32_t a, int32_t b) { return a == kNone || a == b ? b : b == kNone ? a : kMany; }

}  // namespace

BpeModel::BpeModel(BpeSettings settings, TokenNames names,
                   const std::vector<std::pair<std::string, std::string>>& merges)
    : settings_(std::move(settings)), names_(std::move(names)) {
    merges_.reserve(merges.size());
    for (size_t rank = 0; rank < merges.size(); ++rank) {
        const auto& [left, right] = merges[rank];
        const std::string where = fmt::format("{} merge {}", settings_.source, rank + 1);
        const auto id_of = [&](const std::string& name) {
            const int32_t id = names_.id(name);
            if (id < 0) fail("{}: it names the token '{}', which the vocabulary does not have", where, name);
            return id;
        };
        if (right.size() < settings_.prefix.size()) {
            fail("{}: '{}' is shorter than continuing_subword_prefix '{}'", where, right, settings_.prefix);
        }
        const int32_t a = id_of(left), b = id_of(right), merged = id_of(left + right.substr(settings_.prefix.size()));
        merges_.set(a, b, {static_cast<int32_t>(rank), merged});
    }
    index();
}

BpeModel::BpeModel(BpeSettings settings, TokenNames names, BpeMerges merges)
    : settings_(std::move(settings)), names_(std::move(names)), merges_(std::move(merges)) {
    index();
}

void BpeModel::index() {
    if (!settings_.unk_token.empty()) unk_ = names_.id(settings_.unk_token);
    near_.assign(settings_.over_bytes ? 256 : 65536, -1);
    for (size_t byte = 0; byte < 256; ++byte) {
        bytes_[byte] = settings_.byte_fallback ? names_.id(byte_name(static_cast<unsigned char>(byte))) : -1;
    }
    for (int32_t id = 0; id < names_.limit(); ++id) {
        if (!names_.has(id) || names_.name(id).empty()) continue;
        const std::string& name = names_.name(id);
        std::string text = name;
        if (settings_.over_bytes && !from_alphabet(name, &text)) continue;  // No piece has such characters.
        if (settings_.ignore_merges) whole_.emplace(text, id);
        const bool is_one = text.size() == (settings_.over_bytes ? 1 : utf8_bytes(text[0]));
        if (!is_one) continue;
        const char32_t c = settings_.over_bytes ? static_cast<unsigned char>(text[0]) : character_at(text, 0);
        if (c < near_.size()) {
            near_[c] = id;
        } else {
            far_[c] = id;
        }
    }
    find_joins();
}

/// Which unmerged tokens stand at the ends of each token decides which of them a merge can bring together.
void BpeModel::find_joins() {
    if (!settings_.prefix.empty() || !settings_.suffix.empty()) return;
    const auto size = static_cast<size_t>(names_.limit());
    std::vector<int32_t> first(size, kNone);
    const auto add_leaf = [&](int32_t id) {
        if (id >= 0) first[static_cast<size_t>(id)] = id;
    };
    std::for_each(near_.begin(), near_.end(), add_leaf);
    std::for_each(bytes_.begin(), bytes_.end(), add_leaf);
    for (const auto& [c, id] : far_) add_leaf(id);
    add_leaf(unk_);
    std::vector<int32_t> last = first;
    const std::vector<BpeMerges::Entry> all = merges_.by_rank();
    for (bool changed = true; changed;) {
        changed = false;
        for (const BpeMerges::Entry& merge : all) {
            const auto a = static_cast<size_t>(merge.left), b = static_cast<size_t>(merge.right);
            const auto m = static_cast<size_t>(merge.token);
            if (first[a] == kNone || first[b] == kNone) continue;
            const int32_t f = united(first[m], first[a]), l = united(last[m], last[b]);
            changed = changed || f != first[m] || l != last[m];
            first[m] = f, last[m] = l;
        }
    }
    for (const BpeMerges::Entry& merge : all) {
        const int32_t l = last[static_cast<size_t>(merge.left)], f = first[static_cast<size_t>(merge.right)];
        if (l == kMany || f == kMany) return;
        if (l != kNone && f != kNone) joins_.set(l, f, {0, 0});
    }
    joins_known_ = true;
}

int32_t BpeModel::known(char32_t c) const {
    if (c < near_.size()) return near_[c];
    const auto found = far_.find(c);
    return found == far_.end() ? -1 : found->second;
}

BpeModel::Ends BpeModel::ends_of(char32_t c, std::string_view text) const {
    const int32_t id = known(c);
    if (id >= 0) return {id, id};
    if (!settings_.byte_fallback || settings_.over_bytes) return {};
    for (const char byte : text) {
        if (bytes_[static_cast<unsigned char>(byte)] < 0) return {};
    }
    return {bytes_[static_cast<unsigned char>(text.front())], bytes_[static_cast<unsigned char>(text.back())]};
}

bool BpeModel::never_joins(std::string_view before, std::string_view after) const {
    if (!joins_known_ || settings_.ignore_merges || before.empty() || after.empty()) return false;
    const std::string_view left = settings_.over_bytes ? before.substr(before.size() - 1)
                                                       : before.substr(character_before(before, before.size()));
    const std::string_view right = after.substr(0, settings_.over_bytes ? 1 : utf8_bytes(after[0]));
    const auto unit = [&](std::string_view text) {
        return settings_.over_bytes ? static_cast<unsigned char>(text[0]) : character_at(text, 0);
    };
    const int32_t l = ends_of(unit(left), left).last, r = ends_of(unit(right), right).first;
    return l >= 0 && r >= 0 && !joins(l, r);
}

}  // namespace llmc
