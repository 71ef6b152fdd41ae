// What separates documents: every rule, and the order of them.
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/pipeline/document_token.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace llmc {
namespace {

using Json = nlohmann::json;

/// Names 0 to 6 in the vocabulary.
TokenNames small_names() {
    TokenNames names;
    int64_t id = 0;
    for (const char* name : {"<s>", "</s>", "<|endoftext|>", "<|im_end|>", "<bos>", "x", "<fin>"})
        names.add(name, id++, "t");
    return names;
}

DocumentToken found(const CompanionFiles& files, const Json& post_processor = nullptr,
                    const std::vector<AddedToken>& added = {}) {
    const TokenNames names = small_names();
    return find_document_token(post_processor, files, {names, added});
}

Json template_of(const std::string& name, int id) {
    return {
        {"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens", {{name, {{"id", name}, {"ids", {id}}, {"tokens", {name}}}}}}};
}

TEST(DocumentToken, TheTemplateFirst) {
    CompanionFiles files;
    files.tokenizer_config = {{"eos_token", "</s>"}};
    EXPECT_EQ(found(files, template_of("<s>", 0)).id, 0);
    EXPECT_EQ(
        found(files, {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, template_of("<bos>", 4)}}}).id, 4);
    EXPECT_EQ(found(files, {{"type", "RobertaProcessing"}, {"cls", {"<s>", 0}}, {"sep", {"</s>", 1}}}).id, 0);
    // A template that only ends a text names nothing in front.
    Json ends = template_of("<s>", 0);
    std::swap(ends["single"][0], ends["single"][1]);
    EXPECT_EQ(found(files, ends).id, 1);
    EXPECT_EQ(found(files, template_of("<s>", 0)).named_by, "the template of tokenizer.json");
}

TEST(DocumentToken, Configurations) {
    CompanionFiles files;
    files.tokenizer_config = {{"bos_token", {{"content", "<bos>"}}}, {"eos_token", "</s>"}};
    EXPECT_EQ(found(files).id, 1);
    EXPECT_EQ(found(files).named_by, "eos_token of tokenizer_config.json");
    files.tokenizer_config["add_bos_token"] = true;
    EXPECT_EQ(found(files).id, 4);
    files.tokenizer_config = {{"bos_token", "<bos>"}, {"eos_token", nullptr}};
    EXPECT_EQ(found(files).id, 4);
    files.special_tokens_map = {{"eos_token", {{"content", "<fin>"}, {"lstrip", false}}}};
    EXPECT_EQ(found(files).id, 6);
    EXPECT_EQ(found(files).named_by, "eos_token of special_tokens_map.json");
}

TEST(DocumentToken, WhatEndsATurnEndsNoDocument) {
    CompanionFiles files;
    files.tokenizer_config = {{"eos_token", "<|im_end|>"}};
    EXPECT_EQ(found(files).id, 2);
    files.tokenizer_config = {{"eos_token", "<|im_end|>"}, {"bos_token", "<bos>"}};
    EXPECT_EQ(found(files).id, 2);
}

TEST(DocumentToken, TheModelsConfiguration) {
    CompanionFiles files;
    files.generation_config = {{"eos_token_id", {6, 1}}};
    EXPECT_EQ(found(files).id, 6);
    files.config = {{"eos_token_id", 5}};
    EXPECT_EQ(found(files).id, 5);
    EXPECT_EQ(found(files).named_by, "eos_token_id of config.json");
    files.tokenizer_config = {{"eos_token", "not there"}};
    EXPECT_EQ(found(files).id, 5);
}

TEST(DocumentToken, UsualNamesAndNone) {
    AddedToken end;
    end.id = 9;
    end.text = "</s>";
    EXPECT_EQ(found({}, nullptr, {end}).id, 9);
    EXPECT_EQ(found({}).id, -1);
}

TEST(DocumentToken, TheUsersChoice) {
    const TokenNames names = small_names();
    EXPECT_EQ(chosen_document_token("x", {names, {}}).id, 5);
    EXPECT_EQ(chosen_document_token("6", {names, {}}).name, "<fin>");
    EXPECT_TRUE(has(error_of([&] { chosen_document_token("<no>", {names, {}}); }), {"--document-token=<no>"}));
    EXPECT_TRUE(has(error_of([&] { chosen_document_token("70", {names, {}}); }), {"--document-token=70"}));
}

TEST(DocumentToken, TokensOfOtherFiles) {
    CompanionFiles files;
    files.tokenizer_config = {
        {"added_tokens_decoder", {{"12", {{"content", "<new>"}, {"special", true}, {"lstrip", true}}}}},
        {"eos_token", "<new>"}};
    files.added_tokens = {{"<other>", 13}, {"x", 14}};
    std::vector<AddedToken> added;
    add_companion_tokens(files, small_names(), &added, "'t'");
    ASSERT_EQ(added.size(), 3u);
    EXPECT_EQ(added[0].id, 12);
    EXPECT_TRUE(added[0].lstrip && added[0].special);
    EXPECT_EQ(added[1].id, 13);
    EXPECT_EQ(added[2].id, 5);  // The vocabulary's own.
    EXPECT_EQ(found(files, nullptr, added).id, 12);
    files.added_tokens = {{"<far>", int64_t{1} << 31}};
    EXPECT_TRUE(
        has(error_of([&] { add_companion_tokens(files, small_names(), &added, "'t'"); }), {"'<far>'", "2147483648"}));
}

}  // namespace
}  // namespace llmc
