#include "llmc/train/offload.h"

#include "llmc/base/error.h"
#include "llmc/base/nearest_word.h"

#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <sstream>

namespace llmc {
namespace {

const char* const kAll = "all";
const char* const kNone = "none";
const char* const kAuto = "auto";

std::vector<Buffer> buffers_named(const std::string& name) {
    if (name == "moments") return {Buffer::MomentM, Buffer::MomentV};
    if (name == "masters") return {Buffer::Masters};
    if (name == "gradients") return {Buffer::Gradients};
    if (name == "parameters") return {Buffer::Parameters, Buffer::Frozen};
    return {Buffer::Boundaries};
}

std::vector<std::string> words_of_list(const std::string& list) {
    std::vector<std::string> words;
    std::istringstream stream(list);
    for (std::string word; std::getline(stream, word, ',');) {
        word.erase(0, word.find_first_not_of(" \t"));
        word.erase(word.find_last_not_of(" \t") + 1);
        words.push_back(word);
    }
    if (words.empty() || list.ends_with(',')) words.emplace_back();
    return words;
}

void require_known(const std::string& list, const std::string& word) {
    std::vector<std::string> names = offloadable();
    names.insert(names.end(), {kAll, kNone, kAuto});
    if (std::find(names.begin(), names.end(), word) != names.end()) return;
    const std::string meant = nearest_word(word, names);
    fail_usage("--offload={}: '{}' is nothing that can be in host memory{}; choose from {}", list, word,
               meant.empty() ? "" : fmt::format(" (did you mean {}?)", meant), fmt::join(names, ", "));
}

}  // namespace

const std::vector<std::string>& offloadable() {
    static const std::vector<std::string> names = {"moments", "masters", "gradients", "parameters", "boundaries"};
    return names;
}

Places with_offload(Places places, const std::string& list) {
    const std::vector<std::string> words = words_of_list(list);
    for (const std::string& word : words) require_known(list, word);
    for (const char* alone : {kAll, kNone, kAuto}) {
        const bool has_it = std::find(words.begin(), words.end(), alone) != words.end();
        if (has_it && words.size() > 1) {
            fail_usage("--offload={}: '{}' contradicts the rest of the list; give it alone, or leave it out", list,
                       alone);
        }
    }
    for (const std::string& name : offloadable()) {
        const bool named = words.front() == kAll || std::find(words.begin(), words.end(), name) != words.end();
        for (const Buffer buffer : buffers_named(name)) {
            places[buffer].memory = named && places[buffer].exists ? Memory::Host : Memory::Device;
        }
    }
    return places;
}

std::string offload_of(const Places& places) {
    std::string list;
    for (const std::string& name : offloadable()) {
        const Buffer first = buffers_named(name).front();
        if (places[first].exists && places.on_host(first)) list += (list.empty() ? "" : ",") + name;
    }
    return list.empty() ? kNone : list;
}

bool places_by_itself(const Options& options) { return options.offload == kAuto; }

void validate_offload(const Options& options) {
    const Places places = with_offload(Places(DType::BF16), options.offload);
    if (places_by_itself(options) && options.frontier) {
        fail_usage("--offload=auto: --frontier draws one placement; name it, as --what-fits does, or leave it out");
    }
    if (options.recompute != "offload" || !options.was_typed("offload") || places_by_itself(options)) return;
    if (places.on_host(Buffer::Boundaries)) return;
    fail_usage(
        "--offload={}: --recompute=offload keeps layer boundaries in host memory; add boundaries to the list, or take "
        "--recompute=layer",
        options.offload);
}

}  // namespace llmc
