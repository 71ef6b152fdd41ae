#include "llmc/io/pipeline/token_model.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace llmc {

size_t TokenNames::Hash::operator()(std::string_view text) const { return XXH3_64bits(text.data(), text.size()); }

void TokenNames::add(const std::string& name, int64_t id, const std::string& source) {
    if (id < 0 || id >= kMostTokens) {
        fail("{}: token '{}' has the impossible id {}; ids are 0 to {}", source, name, id, kMostTokens - 1);
    }
    const auto index = static_cast<size_t>(id);
    if (index >= names_.size()) {
        names_.resize(index + 1);
        is_used_.resize(index + 1);
    }
    if (is_used_[index]) fail("{}: tokens '{}' and '{}' share the id {}", source, names_[index], name, id);
    if (!ids_.emplace(name, static_cast<int32_t>(id)).second) fail("{}: token '{}' is there twice", source, name);
    names_[index] = name;
    is_used_[index] = true;
}

int32_t TokenNames::id(std::string_view name) const {
    const auto known = ids_.find(name);
    return known == ids_.end() ? -1 : known->second;
}

void LostText::lose(std::string_view text) {
    if (has_warned_.exchange(true)) return;
    std::string bytes;
    for (const char c : text) bytes += fmt::format(" {:02x}", static_cast<unsigned char>(c));
    spdlog::warn(
        "tokenizer '{}' has no token for the byte{}{}, and none for unknown text; wherever it lacks one, text is left "
        "out",
        tokenizer_, text.size() > 1 ? "s" : "", bytes);
}

std::string byte_name(unsigned char byte) { return fmt::format("<0x{:02X}>", byte); }

}  // namespace llmc
