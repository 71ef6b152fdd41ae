#include "tests/fuzz/tokenizer_targets.h"

#include "llmc/io/bpe_learn.h"
#include "llmc/io/llmc_tokenizer.h"
#include "llmc/io/special_names.h"
#include "tests/io/tokenizer_testing.h"

namespace llmc {
namespace {

using nlohmann::json;

/// A vocabulary of all bytes and a dozen merges.
LearnedBpe small_bpe() {
    WordCounts counts;
    counts.add_text("the man and the woman and the other man said the other thing, the thing");
    return learn_bpe(counts, 270);
}

/// Byte-level BPE with other stages in front and behind, as families of models have them.
std::vector<std::string> with_stages(const std::string& plain) {
    const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const json split = {{"type", "Split"},
                        {"pattern", {{"Regex", "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+"}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\xe2\x96\x81"}};
    const json prepend = {{"type", "Prepend"}, {"prepend", "\xe2\x96\x81"}};
    const json normalizers[] = {
        nullptr, {{"type", "NFC"}}, {{"type", "Sequence"}, {"normalizers", {prepend, replace}}}};
    const json pre_tokenizers[] = {
        {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}},
        {{"type", "Metaspace"}, {"replacement", "\xe2\x96\x81"}, {"prepend_scheme", "first"}, {"split", true}},
        {{"type", "Sequence"},
         {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, {{"type", "Punctuation"}}, bytes}}}};
    const json processor = {{"type", "TemplateProcessing"},
                            {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}}},
                            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {300}}, {"tokens", {"<s>"}}}}}}};
    std::vector<std::string> seeds = {plain};
    for (size_t i = 0; i < 3; ++i) {
        json root = json::parse(plain);
        root["normalizer"] = normalizers[i];
        root["pre_tokenizer"] = pre_tokenizers[i];
        root["post_processor"] = processor;
        root["added_tokens"].push_back({{"id", 300},
                                        {"content", "<s>"},
                                        {"special", true},
                                        {"lstrip", i == 1},
                                        {"rstrip", i == 2},
                                        {"single_word", false},
                                        {"normalized", i == 0}});
        if (i == 2) root["model"]["byte_fallback"] = true;
        seeds.push_back(root.dump());
    }
    return seeds;
}

void use(const std::string& path, const TokenizerChoices& choices = {}) {
    const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(path, choices);
    const std::string text = "The man said: <|endoftext|><s> caf\xc3\xa9 \xf0\x9f\x98\x80 \xff\xfe 12345\r\n\t  it's";
    for (const SpecialTokens special : {SpecialTokens::AsText, SpecialTokens::AsIds}) {
        try {
            const std::unique_ptr<Encoder> encoder = tokenizer->make_encoder(special);
            std::vector<int32_t> tokens;
            encoder->encode(text, /*continues=*/false, &tokens);
            encoder->safe_cut(text, 7);
            tokenizer->decode(tokens);
        } catch (const Error&) {
        }
    }
    for (int32_t token = -1; token < std::min(tokenizer->vocab_size() + 1, 400); ++token) {
        try {
            tokenizer->token_bytes(token);
            tokenizer->decode_next(token);
        } catch (const Error&) {
        }
    }
    if (tokenizer->vocab_size() < 10'000) SpecialNames(*tokenizer).count(text);
}

}  // namespace

std::vector<FuzzTarget> tokenizer_targets(const std::string& folder) {
    const std::string place = folder + "/bpe";
    std::filesystem::create_directory(place);
    write_bpe(small_bpe(), place);
    write_llmc_tokenizer(*make_tokenizer(place), place + "/llmc.bin");
    const std::string vocab = slurp(place + "/vocab.json"), merges = slurp(place + "/merges.txt");
    const auto in_file = [](const char* name) {
        return [name](const std::string& content, const std::string& here) {
            std::ofstream(here + "/" + name, std::ios::binary) << content;
            use(here + "/" + name);
        };
    };
    return {
        {"tokenizer.json", with_stages(slurp(place + "/tokenizer.json")), in_file("tokenizer.json")},
        {"vocab.json",
         {vocab},
         [merges](const std::string& content, const std::string& here) {
             std::ofstream(here + "/merges.txt", std::ios::binary) << merges;
             std::ofstream(here + "/vocab.json", std::ios::binary) << content;
             use(here + "/vocab.json");
         }},
        {"merges.txt",
         {merges},
         [vocab](const std::string& content, const std::string& here) {
             std::ofstream(here + "/vocab.json", std::ios::binary) << vocab;
             std::ofstream(here + "/merges.txt", std::ios::binary) << content;
             use(here + "/merges.txt");
         }},
        {"ranks",
         {slurp(std::string(kGoldenFolder) + "ranks.tiktoken")},
         [](const std::string& content, const std::string& here) {  // Of no family: its size says no pattern.
             std::ofstream(here + "/ranks.tiktoken", std::ios::binary) << content;
             use(here + "/ranks.tiktoken", {.document_token = "", .pattern = "\\s+|\\S+"});
         }},
        {"SentencePiece", {slurp(std::string(kGoldenFolder) + "sentencepiece.model")}, in_file("tokenizer.model")},
        {"llm.c's tokenizer file", {slurp(place + "/llmc.bin")}, in_file("gpt2_tokenizer.bin")},
    };
}

}  // namespace llmc
