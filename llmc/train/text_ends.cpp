#include "llmc/train/text_ends.h"

#include "llmc/base/file.h"
#include "llmc/io/hf_config.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

/// A number, or a list of them; anything else is none.
std::vector<int64_t> numbers_in(const nlohmann::json& value) {
    std::vector<int64_t> numbers;
    if (value.is_number_integer()) numbers.push_back(value.get<int64_t>());
    if (!value.is_array()) return numbers;
    for (const auto& item : value) {
        if (item.is_number_integer()) numbers.push_back(item.get<int64_t>());
    }
    return numbers;
}

}  // namespace

EndTokens end_tokens(const Tokenizer& tokenizer, const std::string& folder, int64_t V) {
    EndTokens tokens;
    tokens.document = tokenizer.end_of_text();
    if (tokens.document >= 0) tokens.ends.push_back(tokens.document);
    for (const char* name : {"/generation_config.json", "/config.json"}) {
        const std::string path = folder + name;
        if (folder.empty() || !path_exists(path)) continue;
        const nlohmann::json ids = nlohmann::json::parse(hf_token_ids(read_text(path), path));
        for (const int64_t id : numbers_in(ids.value("eos_token_id", nlohmann::json()))) {
            if (id >= 0 && id < V) tokens.ends.push_back(static_cast<int32_t>(id));
        }
        const std::vector<int64_t> begins = numbers_in(ids.value("bos_token_id", nlohmann::json()));
        if (tokens.document < 0 && !begins.empty() && begins[0] >= 0 && begins[0] < V) {
            tokens.document = static_cast<int32_t>(begins[0]);
        }
    }
    std::sort(tokens.ends.begin(), tokens.ends.end());
    tokens.ends.erase(std::unique(tokens.ends.begin(), tokens.ends.end()), tokens.ends.end());
    return tokens;
}

StopText::StopText(std::string stop, Print print) : stop_(std::move(stop)), print_(std::move(print)) {}

bool StopText::add(std::string_view text) {
    if (stop_.empty()) {
        print_(text);
        return false;
    }
    held_ += text;
    const size_t place = held_.find(stop_);
    has_come_ = place != std::string::npos;
    size_t size = place;
    if (!has_come_) {  // All but the longest end that the stop could begin with.
        size = held_.size() - std::min(held_.size(), stop_.size() - 1);
        while (!stop_.starts_with(std::string_view(held_).substr(size))) ++size;
    }
    print_(std::string_view(held_).substr(0, size));
    held_.erase(0, size);
    return has_come_;
}

void StopText::finish() {
    if (!has_come_) print_(held_);
    held_.clear();
}

}  // namespace llmc
