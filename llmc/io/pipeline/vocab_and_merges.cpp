#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/pipeline/json_fields.h"
#include "llmc/io/pipeline/pipeline_files.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// Calls visit(line, number from 1) without the ends of lines.
void for_each_line(std::string_view text, const std::function<void(std::string_view, int64_t)>& visit) {
    for (int64_t number = 1; !text.empty(); ++number) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        if (line.ends_with('\r')) line.remove_suffix(1);
        visit(line, number);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

/// "left right", which the vocabulary has, as it has both together.
std::pair<std::string, std::string> read_merge(const TokenNames& names, const std::string& source,
                                               const std::string& where, std::string_view line) {
    const size_t blank = line.find(' ');
    if (blank == 0 || blank >= line.size() - 1 || line.find(' ', blank + 1) != std::string_view::npos) {
        fail("{}: '{}' is no merge, which is two tokens and a blank between them", where, line);
    }
    std::pair<std::string, std::string> merge = {std::string(line.substr(0, blank)),
                                                 std::string(line.substr(blank + 1))};
    for (const std::string& name : {merge.first, merge.second, merge.first + merge.second}) {
        if (names.id(name) >= 0) continue;
        fail("{}: the merge names the token '{}', which the vocabulary {} does not have", where, name, source);
    }
    return merge;
}

void require_bytes(const TokenNames& names, const std::string& path) {
    for (const std::string& byte : bytes_in_gpt2_order()) {
        const auto value = static_cast<unsigned char>(byte[0]);
        const bool never_in_utf8 = value == 0xC0 || value == 0xC1 || value >= 0xF5;
        if (never_in_utf8 || names.id(to_alphabet(byte)) >= 0) continue;
        fail("'{}' has no token for the byte 0x{:02x}; vocab.json and merges.txt are read as GPT-2's, over bytes", path,
             value);
    }
}

}  // namespace

Pipeline read_vocab_and_merges(const std::string& vocab_path, const std::string& merges_path, const std::string& folder,
                               const TokenizerChoices& choices) {
    Pipeline pipeline;
    pipeline.source = "'" + vocab_path + "'";
    const nlohmann::json vocab = parse_tokenizer_json(vocab_path);
    TokenNames names;
    reading(pipeline.source, vocab, [&] {
        for (const auto& [name, id] : vocab.items()) {
            names.add(name, as_whole_number(id, "a whole number, the id of a token"), pipeline.source);
        }
    });
    require_bytes(names, vocab_path);
    std::vector<std::pair<std::string, std::string>> merges;
    const MappedFile file(merges_path);
    for_each_line(file.text(), [&](std::string_view line, int64_t number) {
        if (line.empty() || (number == 1 && line.starts_with("#version"))) return;
        merges.push_back(read_merge(names, pipeline.source, fmt::format("'{}' line {}", merges_path, number), line));
    });
    BpeSettings settings;
    settings.source = pipeline.source;
    settings.over_bytes = true;
    pipeline.model = std::make_unique<BpeModel>(std::move(settings), std::move(names), merges);
    pipeline.pre_tokenizers.push_back(make_byte_level({false, true, false}));
    const nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    pipeline.stages = nlohmann::json({{"pre_tokenizer", bytes}}).dump();
    std::vector<std::unique_ptr<DecoderStage>> decoders;
    decoders.push_back(make_byte_level_decoder());
    pipeline.decoder = Decoder(std::move(decoders));

    const TokenNames& known_names = pipeline.model->names();
    if (const int32_t id = known_names.id(kEndOfTextName); id >= 0) {
        pipeline.added.push_back({id, kEndOfTextName, /*special=*/true});
    }
    const CompanionFiles files = read_companion_files(folder);
    add_companion_tokens(files, known_names, &pipeline.added, pipeline.source);
    const KnownTokens known = {known_names, pipeline.added};
    pipeline.document_token = choices.document_token.empty() ? find_document_token(nullptr, files, known)
                                                             : chosen_document_token(choices.document_token, known);
    return pipeline;
}

}  // namespace llmc
