// Fields of another type, wherever they stand in a tokenizer's files: the error names the file, the field's path, what
// was found and what is wanted, and nothing of the JSON library.
#include "llmc/io/pipeline/json_fields.h"

#include "llmc/io/tokenizer_choices.h"
#include "tests/io/tokenizer_testing.h"
#include "tests/io/warnings.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

namespace llmc {
namespace {

using Json = nlohmann::json;

/// Why the tokenizer in `folder` cannot be read; "" if it can.
std::string obstacle(const std::string& folder) {
    try {
        make_tokenizer(folder);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

/// Calls visit(path) for every value in `value`: of lists and of objects with many members only some.
void for_each_path(const Json& value, const Json::json_pointer& path,
                   const std::function<void(const Json::json_pointer&)>& visit) {
    constexpr size_t kMost = 8;
    visit(path);
    size_t index = 0;
    for (auto part = value.begin(); value.is_structured() && part != value.end(); ++part, ++index) {
        if (index > 1 && value.size() > kMost && index + 1 < value.size()) continue;
        for_each_path(*part, value.is_array() ? path / index : path / part.key(), visit);
    }
}

/// How a message writes it: "model.merges[3]".
std::string dotted(const Json& content, const Json::json_pointer& path) {
    return path_within(content, content.at(path));
}

/// Puts values of every type in the place of every value of the file, one at a time. What is refused is refused in our
/// words. Returns how many were refused for their type. Paths that begin with `skipped` are left as they are.
int refused_types(const TempDir& dir, const std::string& name, const Json& good, const char* skipped = "/-") {
    const Warnings not_shown;
    int refused = 0;
    for_each_path(good, Json::json_pointer(), [&](const Json::json_pointer& path) {
        if (path.to_string().starts_with(skipped)) return;
        for (const Json& other : {Json("x"), Json(1.5), Json(true), Json({1, "y"}), Json({{"a", 1}})}) {
            if (good.at(path).type() == other.type()) continue;
            Json content = good;
            content[path] = other;
            dir.write(name, content.dump());
            const std::string why = obstacle(dir.path());
            if (why.empty()) continue;
            EXPECT_TRUE(has(why, {name})) << path.to_string() << " = " << other.dump();
            EXPECT_EQ(why.find("exception"), std::string::npos) << why;
            EXPECT_EQ(why.find("type must be"), std::string::npos) << why;
            EXPECT_EQ(why.find("fields of its kind"), std::string::npos) << why;
            if (why.find(", not ") == std::string::npos) continue;  // Of the right type, but of a wrong value.
            EXPECT_TRUE(has(why, {" is "})) << why;
            if (!path.empty()) {
                EXPECT_TRUE(has(why, {dotted(content, path)})) << path.to_string() << " = " << other.dump();
            }
            ++refused;
        }
    });
    dir.write(name, good.dump());
    return refused;
}

TEST(JsonFields, AnyTypeInTokenizerJson) {
    const Json golden = Json::parse(slurp(std::string(kGoldenFolder) + "kinds.json"));
    std::set<std::string> seen;
    int refused = 0;
    for (const auto& [name, kind] : golden.at("kinds").items()) {
        Json json = kind.at("tokenizer");
        Json base = golden.at("bases").at(kind.at("base").get<size_t>());
        for (const auto& [key, value] : base.items()) json["model"][key] = value;
        // One of each stage is enough, and each vocabulary once.
        Json stages = {json["normalizer"], json["pre_tokenizer"], json["decoder"], json["post_processor"]};
        std::string types;
        for_each_path(stages, Json::json_pointer(), [&](const Json::json_pointer& path) {
            if (path.empty() || path.back() != "type") return;
            const std::string type = path.to_string().substr(0, 2) + stages.at(path).get<std::string>();
            if (seen.insert(type).second) types += type;
        });
        if (types.empty()) continue;
        const TempDir dir;
        const bool is_new = seen.insert("model " + json["model"].value("type", "")).second;
        refused += refused_types(dir, "tokenizer.json", json, is_new ? "/-" : "/model/");
    }
    EXPECT_GT(refused, 300);
}

TEST(JsonFields, AnyTypeInTheFilesBesideIt) {
    const TempDir dir;
    dir.write("tokenizer.json", slurp(std::string(kGoldenFolder) + "tokenizer.json"));
    const Json token = {{"content", "<|endoftext|>"}, {"lstrip", false}, {"normalized", false}};
    for (const auto& [name, content] : std::initializer_list<std::pair<const char*, Json>>{
             {"tokenizer_config.json",
              {{"bos_token", "<|endoftext|>"},
               {"eos_token", token},
               {"add_bos_token", false},
               {"added_tokens_decoder", {{"5000", token}}}}},
             {"special_tokens_map.json", {{"eos_token", token}, {"pad_token", "<|endoftext|>"}}},
             {"added_tokens.json", {{"<|new|>", 5001}}},
             {"config.json", {{"eos_token_id", 3}}},
             {"generation_config.json", {{"eos_token_id", {3, 4}}}},
             {kChoicesFile, {{"document_token", "<|endoftext|>"}}}}) {
        dir.write(name, content.dump());
        EXPECT_EQ(obstacle(dir.path()), "") << name;
        EXPECT_GT(refused_types(dir, name, content), 4) << name;
        dir.write(name, "");
        EXPECT_TRUE(has(obstacle(dir.path()), {name, "is empty"}));
        dir.write(name, "{\n  \"a\": tru\n}");
        EXPECT_TRUE(has(obstacle(dir.path()), {name, "not valid JSON (line 2, column 11)"}));
        std::filesystem::remove(dir / name);
    }
}

TEST(JsonFields, AnyTypeInVocabJson) {
    const TempDir dir;
    const Json tokenizer = Json::parse(slurp(std::string(kGoldenFolder) + "tokenizer.json"));
    Json vocab = Json::object();
    for (const auto& [name, id] : tokenizer["model"]["vocab"].items()) {
        if (id < 500) vocab[name] = id;
    }
    dir.write("merges.txt", "");
    dir.write("vocab.json", vocab.dump());
    ASSERT_EQ(obstacle(dir.path()), "");
    EXPECT_GT(refused_types(dir, "vocab.json", vocab), 15);
}

TEST(JsonFields, PathsAreThoseOfTheFile) {
    const Json content = {{"model", {{"merges", {"a b", 1}}, {"vocab", {{"a b", 3}, {"\xc4\xa0x", 4}}}}}};
    EXPECT_EQ(path_within(content, content), "");
    EXPECT_EQ(path_within(content, content["model"]["merges"][1]), "model.merges[1]");
    EXPECT_EQ(path_within(content, content["model"]["vocab"]["a b"]), "model.vocab[\"a b\"]");
    Json deep = 1;
    for (int i = 0; i < 100; ++i) deep = {{"normalizers", {deep}}};
    const Json* inner = &deep;
    while (inner->is_structured()) inner = inner->is_array() ? &(*inner)[0] : &(*inner)["normalizers"];
    const std::string path = path_within(deep, *inner);
    EXPECT_TRUE(path.starts_with("normalizers[0].normalizers[0]") && path.ends_with("[0]")) << path;
    EXPECT_LT(path.size(), 130u);
}

TEST(JsonFields, TheReportedOnes) {
    const TempDir dir;
    const Json good = Json::parse(slurp(std::string(kGoldenFolder) + "tokenizer.json"));
    const auto refusal = [&](const char* pointer, const Json& value) {
        Json json = good;
        json[Json::json_pointer(pointer)] = value;
        return obstacle(dir.write("tokenizer.json", json.dump()));
    };
    EXPECT_TRUE(has(refusal("/model", "BPE"), {"tokenizer.json': model is \"BPE\", not an object"}));
    EXPECT_TRUE(has(refusal("/added_tokens", "x"), {"tokenizer.json': added_tokens is \"x\", not a list"}));
    EXPECT_TRUE(has(refusal("/model/merges/3", 1), {"tokenizer.json': model.merges[3] is 1, not a merge"}));
    EXPECT_TRUE(has(refusal("/model/merges/3", "a"), {"model.merges[3] is \"a\", not a merge, which is two tokens"}));
    EXPECT_TRUE(has(refusal("/added_tokens/0/id", 1.5), {"added_tokens[0].id is 1.5, not a whole number"}));
    Json deep = {{"type", "NFC"}};
    for (int i = 0; i < 60; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
    EXPECT_TRUE(has(refusal("/normalizer", deep),
                    {"tokenizer.json': normalizer.normalizers[0]", "stands within more than 50 sequences"}));
    Json marked = good;
    marked["post_processor"] = "here";
    std::string text = marked.dump(), open, close;
    for (int i = 0; i < 100'000; ++i) open += R"({"type":"Sequence","processors":[)", close += "]}";
    text.replace(text.find("\"here\""), 6, open + close);
    EXPECT_TRUE(has(obstacle(dir.write("tokenizer.json", text)), {"tokenizer.json' has", "more than 200 others"}));
}

}  // namespace
}  // namespace llmc
