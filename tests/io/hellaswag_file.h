// HellaSwag files as llm.c writes them, for tests.
#pragma once

#include "llmc/io/hellaswag.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace llmc {

inline std::string hellaswag_bytes(const std::vector<HellaswagExample>& examples) {
    std::vector<uint16_t> items;
    size_t longest = 0;
    const auto add = [&](const std::vector<int32_t>& tokens) {
        items.push_back(static_cast<uint16_t>(tokens.size()));
        for (const int32_t token : tokens) items.push_back(static_cast<uint16_t>(token));
    };
    for (size_t i = 0; i < examples.size(); ++i) {
        const size_t begin = items.size();
        const auto label = static_cast<uint16_t>(examples[i].label);
        const auto endings = static_cast<uint16_t>(examples[i].endings.size());
        items.insert(items.end(), {65535, 0, static_cast<uint16_t>(i), label, endings});
        add(examples[i].context);
        for (const auto& ending : examples[i].endings) add(ending);
        const size_t bytes = 2 * (items.size() - begin);
        items[begin + 1] = static_cast<uint16_t>(bytes);
        longest = std::max(longest, bytes);
    }
    std::string bytes(1024 + 2 * items.size(), '\0');
    const int32_t header[] = {20240522, 1, static_cast<int32_t>(examples.size()), static_cast<int32_t>(longest)};
    std::memcpy(bytes.data(), header, sizeof header);
    if (!items.empty()) std::memcpy(bytes.data() + 1024, items.data(), 2 * items.size());
    return bytes;
}

}  // namespace llmc
