#include "llmc/io/tokenizer_files.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/units.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/llmc_tokenizer.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "llmc/io/tokenizer_choices.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// The two names a vocabulary and its merges go by.
constexpr std::pair<const char*, const char*> kPairs[] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};

constexpr const char* kLlmcName = "/gpt2_tokenizer.bin";

/// "x/gpt2_vocab.bpe" for "x/gpt2_encoder.json": the other file of a pair, "" if `path` does not end with `from`.
std::string sibling(const std::string& path, std::string_view from, const char* to) {
    return path.ends_with(from) ? path.substr(0, path.size() - from.size()) + to : "";
}

/// A file that is much too large is none of a tokenizer's, and is not looked through.
void require_likely_size(const std::string& path) {
    constexpr int64_t kMost = int64_t{1} << 29;
    const MappedFile file(path);
    if (file.size() <= kMost) return;
    fail("'{}' has {}, and a tokenizer's file has at most {}; name another file", path, format_bytes(file.size()),
         format_bytes(kMost));
}

TokenizerFiles find_pair(const std::string& vocab, const std::string& merges) {
    for (const auto& [path, other] : {std::pair(vocab, merges), std::pair(merges, vocab)}) {
        if (!path_exists(path)) fail("'{}' is not there; it belongs to '{}'", path, other);
        require_likely_size(path);
    }
    return {TokenizerKind::VocabAndMerges, vocab, merges, ""};
}

/// The folder of a file that has one of the names that go with others; "" for other names.
std::string folder_of(const std::string& path) {
    const std::filesystem::path whole(path);
    const std::string name = whole.filename().string();
    if (name != "tokenizer.json" && name != "vocab.json" && name != "merges.txt") return "";
    const std::string folder = whole.parent_path().string();
    return folder.empty() ? "." : folder;
}

bool looks_like_ranks(std::string_view text) {
    const std::string_view line = text.substr(0, std::min(text.find('\n'), text.size()));
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos || blank == 0 || blank + 1 >= line.size()) return false;
    const auto is_base64 = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '/' || c == '=';
    };
    const auto is_rank = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) || c == '\r'; };
    return std::all_of(line.begin(), line.begin() + static_cast<std::ptrdiff_t>(blank), is_base64) &&
           std::all_of(line.begin() + static_cast<std::ptrdiff_t>(blank) + 1, line.end(), is_rank);
}

/// A SentencePiece model begins with its first piece: field 1, of some length, whose field 1 is the text.
bool looks_like_sentencepiece(std::string_view text) {
    return text.size() > 4 && text[0] == '\x0a' && text[2] == '\x0a';
}

TokenizerFiles look_at_file(const std::string& path) {
    require_likely_size(path);
    for (const auto& [vocab, merges] : kPairs) {
        if (path.ends_with(vocab)) return find_pair(path, sibling(path, vocab, merges));
        if (path.ends_with(merges)) return find_pair(sibling(path, merges, vocab), path);
    }
    const MappedFile file(path);
    if (is_llmc_tokenizer(file.bytes())) return {TokenizerKind::Llmc, path, "", ""};
    const std::string_view text = file.text();
    const size_t begin = text.find_first_not_of(" \t\r\n");
    if (begin != std::string_view::npos && text[begin] == '{') return {TokenizerKind::TokenizerJson, path, "", ""};
    if (looks_like_ranks(text)) return {TokenizerKind::Ranks, path, "", ""};
    if (looks_like_sentencepiece(text)) return {TokenizerKind::SentencePiece, path, "", ""};
    fail(
        "'{}' is no tokenizer: none of tokenizer.json, vocab.json, merges.txt, a SentencePiece model, a rank file, or "
        "llm.c's tokenizer file",
        path);
}

TokenizerFiles look_in_folder(const std::string& folder) {
    const std::string json = folder + "/tokenizer.json", model = folder + "/tokenizer.model";
    if (path_exists(json)) require_likely_size(json);
    if (path_exists(json) && (!path_exists(model) || tokenizer_json_obstacle(json).empty())) {
        return {TokenizerKind::TokenizerJson, json, "", ""};
    }
    if (path_exists(model)) return look_at_file(model);
    for (const auto& [vocab, merges] : kPairs) {
        if (path_exists(folder + "/" + vocab)) return find_pair(folder + "/" + vocab, folder + "/" + merges);
    }
    if (path_exists(folder + kLlmcName)) return look_at_file(folder + kLlmcName);
    fail(
        "the folder '{}' has no tokenizer.json, tokenizer.model, vocab.json with merges.txt, or encoder.json with "
        "vocab.bpe",
        folder);
}

std::string without_slash(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

}  // namespace

TokenizerFiles find_tokenizer_files(const std::string& reference) {
    if (reference == "bytes") return {TokenizerKind::Bytes, "", "", ""};
    if (reference == "none") return {TokenizerKind::None, "", "", ""};
    TokenizerFiles files;
    if (is_directory(reference)) {
        const std::string folder = without_slash(reference);
        files = look_in_folder(folder);
        files.folder = folder;
    } else if (path_exists(reference)) {
        files = look_at_file(reference);
        files.folder = folder_of(reference);
    } else {
        fail("'{}' is neither 'bytes' nor a file or folder that exists", reference);
    }
    return files;
}

std::string copy_tokenizer(const std::string& reference, const std::string& folder, const TokenizerChoices& choices) {
    const TokenizerFiles files = find_tokenizer_files(reference);
    std::vector<std::pair<std::string, std::string>> copies;  // Paths and usual names.
    switch (files.kind) {
        case TokenizerKind::Bytes:
        case TokenizerKind::None: return reference;
        case TokenizerKind::TokenizerJson: copies = {{files.path, "/tokenizer.json"}}; break;
        case TokenizerKind::VocabAndMerges:
            copies = {{files.path, "/vocab.json"}, {files.merges_path, "/merges.txt"}};
            break;
        case TokenizerKind::Ranks:
        case TokenizerKind::SentencePiece: copies = {{files.path, "/tokenizer.model"}}; break;
        case TokenizerKind::Llmc: copies = {{files.path, kLlmcName}}; break;
    }
    make_directories(folder, "the tokenizer's files");
    if (!files.folder.empty()) copy_tokenizer_files(files.folder, folder, /*all=*/is_directory(reference));
    keep_choices(with_kept_choices(choices, files.folder), folder);
    for (const auto& [path, name] : copies) {
        if (!path_exists(folder + name)) write_text_atomically(folder + name, MappedFile(path).text());
    }
    return folder;
}

}  // namespace llmc
