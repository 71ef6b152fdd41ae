#include "llmc/io/bpe_files.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/bpe_alphabet.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <functional>

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostTokens = int64_t{1} << 22;  ///< Beyond this a file is corrupt rather than large.

Json parse_json(const std::string& path) {
    const MappedFile file(path);
    try {
        return Json::parse(file.text());
    } catch (const Json::exception&) {
        fail("'{}' is not valid JSON; copy or download it again", path);
    }
}

/// Runs `read`; what the JSON library dislikes about missing or mistyped fields becomes an Error.
template <typename Read>
auto reading(const std::string& path, Read read) {
    try {
        return read();
    } catch (const Json::exception& error) {
        const std::string what = error.what();
        fail("'{}' does not have the fields of its kind: {}", path, what.substr(what.find("] ") + 2));
    }
}

/// Reads tokens by id while it checks them.
class VocabularyBuilder {
  public:
    explicit VocabularyBuilder(const std::string& source) { vocabulary_.source = source; }

    /// Adds a token under the name by which merges know it.
    void add(const std::string& name, std::string bytes, int64_t id) {
        put(name, std::move(bytes), id);
        if (!ids_.emplace(name, static_cast<int32_t>(id)).second) {
            fail("'{}': token '{}' is there twice", vocabulary_.source, name);
        }
    }
    /// Adds a token that merges do not know; it may repeat one that is there.
    void add_special(const AddedToken& token) {
        const auto known = ids_.find(token.text);
        if (known == ids_.end() || known->second != token.id) put(token.text, token.text, token.id);
        vocabulary_.tokens[static_cast<size_t>(token.id)] = token.text;
        vocabulary_.added.push_back(token);
    }
    void add_merge(const std::string& where, const std::string& left, const std::string& right) {
        const int32_t a = id_of(where, left), b = id_of(where, right), merged = id_of(where, left + right);
        vocabulary_.merges.set(a, b, {static_cast<int32_t>(next_rank_++), merged});
    }
    /// Checks that every byte has a token, with names as GPT-2 writes them or as they are.
    BpeVocabulary finish() {
        for (const std::string& byte : bytes_in_gpt2_order()) {
            const auto token = ids_.find(to_alphabet(byte));
            if (token == ids_.end()) {
                fail("'{}' has no token for the byte 0x{:02x}; this program reads byte-level vocabularies only",
                     vocabulary_.source, static_cast<unsigned char>(byte[0]));
            }
            vocabulary_.bytes[static_cast<unsigned char>(byte[0])] = token->second;
        }
        return std::move(vocabulary_);
    }
    BpeVocabulary& vocabulary() { return vocabulary_; }

  private:
    void put(const std::string& name, std::string bytes, int64_t id) {
        if (id < 0 || id >= kMostTokens)
            fail("'{}': token '{}' has the impossible id {}", vocabulary_.source, name, id);
        const auto index = static_cast<size_t>(id);
        if (index >= vocabulary_.tokens.size()) vocabulary_.tokens.resize(index + 1);
        if (!vocabulary_.tokens[index].empty()) {
            fail("'{}': tokens '{}' and '{}' share the id {}", vocabulary_.source,
                 to_alphabet(vocabulary_.tokens[index]), name, id);
        }
        vocabulary_.tokens[index] = std::move(bytes);
    }
    int32_t id_of(const std::string& where, const std::string& name) const {
        const auto token = ids_.find(name);
        if (token == ids_.end()) {
            fail("{}: the merge names the token '{}', which the vocabulary '{}' does not have", where, name,
                 vocabulary_.source);
        }
        return token->second;
    }

    BpeVocabulary vocabulary_;
    std::unordered_map<std::string, int32_t> ids_;
    int64_t next_rank_ = 0;
};

void add_vocabulary(VocabularyBuilder& builder, const Json& vocab) {
    for (const auto& [name, id] : vocab.items()) {
        std::string bytes;
        if (!from_alphabet(name, &bytes)) bytes = name;
        if (name.empty()) fail("'{}' has a token without text", builder.vocabulary().source);
        builder.add(name, std::move(bytes), id.get<int64_t>());
    }
}

/// "left right", as merges are written in text.
void add_merge_line(VocabularyBuilder& builder, const std::string& where, std::string_view line) {
    const size_t blank = line.find(' ');
    if (blank == 0 || blank >= line.size() - 1 || line.find(' ', blank + 1) != std::string_view::npos) {
        fail("{}: '{}' is no merge, which is two tokens and a blank between them", where, line);
    }
    builder.add_merge(where, std::string(line.substr(0, blank)), std::string(line.substr(blank + 1)));
}

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

/// The token that stands in front of documents, by the names that models use.
int32_t find_end_of_text(const std::vector<AddedToken>& added) {
    for (const char* name : {kEndOfTextName, "<|begin_of_text|>", "<s>", "<|end_of_text|>", "</s>"}) {
        for (const AddedToken& token : added) {
            if (token.text == name) return token.id;
        }
    }
    return -1;
}

}  // namespace

BpeVocabulary read_vocab_and_merges(const std::string& vocab_path, const std::string& merges_path) {
    const Json vocab = parse_json(vocab_path);
    VocabularyBuilder builder(vocab_path);
    reading(vocab_path, [&] { add_vocabulary(builder, vocab); });
    const MappedFile merges(merges_path);
    for_each_line(merges.text(), [&](std::string_view line, int64_t number) {
        if (line.empty() || (number == 1 && line.starts_with("#version"))) return;
        add_merge_line(builder, fmt::format("'{}' line {}", merges_path, number), line);
    });
    if (const auto end = vocab.find(kEndOfTextName); end != vocab.end()) {
        builder.add_special({end->get<int32_t>(), kEndOfTextName, /*special=*/true});
    }
    BpeVocabulary vocabulary = builder.finish();
    vocabulary.pattern = kGpt2Pattern;
    vocabulary.end_of_text = find_end_of_text(vocabulary.added);
    return vocabulary;
}

namespace {

std::string type_of(const Json& part) { return part.is_object() ? part.value("type", "?") : "none"; }

/// The pattern by which a pre-tokeniser splits; "" with the reason in `why` if it is not one of ours.
std::string pattern_of(const Json& pre_tokenizer, std::string* why) {
    const auto is_plain_bytes = [&](const Json& part) {
        if (type_of(part) != "ByteLevel") {
            *why = "the pre-tokeniser " + type_of(part);
        } else if (part.value("add_prefix_space", true)) {
            *why = "a pre-tokeniser with add_prefix_space";
        }
        return why->empty();
    };
    if (type_of(pre_tokenizer) != "Sequence") {
        if (!is_plain_bytes(pre_tokenizer)) return "";
        if (pre_tokenizer.value("use_regex", true)) return kGpt2Pattern;
        *why = "a ByteLevel pre-tokeniser without a pattern";
        return "";
    }
    const Json& parts = pre_tokenizer.at("pretokenizers");
    if (parts.size() != 2 || type_of(parts[0]) != "Split" || parts[1].value("use_regex", true)) {
        *why = "a sequence of pre-tokenisers other than Split and ByteLevel";
        return "";
    }
    if (!is_plain_bytes(parts[1])) return "";
    const Json& split = parts[0];
    if (!split.at("pattern").contains("Regex") || split.at("behavior") != "Isolated" || split.value("invert", false)) {
        *why = "a Split pre-tokeniser that is not by Regex and Isolated";
        return "";
    }
    return split.at("pattern").at("Regex");
}

std::string find_obstacle(const Json& json) {
    const Json& model = json.at("model");
    const std::string type = model.value("type", "BPE");
    if (type != "BPE" || !model.contains("merges")) return "a model of type " + type;
    if (model.value("byte_fallback", false)) return "BPE over characters (byte_fallback)";
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        if (model.contains(affix) && model[affix].is_string() && !model[affix].get<std::string>().empty()) return affix;
    }
    const Json normalizer = json.value("normalizer", Json());
    const bool is_empty = type_of(normalizer) == "Sequence" && normalizer.at("normalizers").empty();
    if (!normalizer.is_null() && !is_empty) return "the normaliser " + type_of(normalizer);
    std::string why;
    pattern_of(json.value("pre_tokenizer", Json()), &why);
    return why;
}

void add_json_merges(VocabularyBuilder& builder, const std::string& path, const Json& merges) {
    size_t number = 0;
    for (const Json& merge : merges) {
        const std::string where = fmt::format("'{}' merge {}", path, ++number);
        if (merge.is_string()) {
            add_merge_line(builder, where, merge.get_ref<const std::string&>());
        } else {
            builder.add_merge(where, merge.at(0), merge.at(1));
        }
    }
}

void add_json_tokens(VocabularyBuilder& builder, const std::string& path, const Json& tokens) {
    for (const Json& token : tokens) {
        const AddedToken added = {token.at("id"), token.at("content"), token.value("special", false)};
        if (added.text.empty()) fail("'{}' has an added token without text", path);
        const bool plain =
            !token.value("single_word", false) && !token.value("lstrip", false) && !token.value("rstrip", false);
        if (!plain && !added.special) {
            fail("'{}': the added token '{}' wants single_word, lstrip or rstrip, which this program does not have",
                 path, added.text);
        }
        builder.add_special(added);
    }
}

}  // namespace

bool is_byte_level_bpe(const std::string& path, std::string* why) {
    const Json json = parse_json(path);
    *why = reading(path, [&] { return find_obstacle(json); });
    return why->empty();
}

BpeVocabulary read_tokenizer_json(const std::string& path) {
    const Json json = parse_json(path);
    return reading(path, [&] {
        if (const std::string obstacle = find_obstacle(json); !obstacle.empty()) {
            fail("'{}' has {}; this program reads byte-level BPE without a normaliser", path, obstacle);
        }
        VocabularyBuilder builder(path);
        const Json& model = json.at("model");
        add_vocabulary(builder, model.at("vocab"));
        add_json_merges(builder, path, model.at("merges"));
        add_json_tokens(builder, path, json.value("added_tokens", Json::array()));
        BpeVocabulary vocabulary = builder.finish();
        std::string why;
        vocabulary.pattern = pattern_of(json.at("pre_tokenizer"), &why);
        vocabulary.whole_words = model.value("ignore_merges", false);
        vocabulary.end_of_text = find_end_of_text(vocabulary.added);
        return vocabulary;
    });
}

}  // namespace llmc
