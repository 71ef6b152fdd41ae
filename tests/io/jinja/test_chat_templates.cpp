// Templates against Jinja as transformers runs it: dev/oracle/chat_templates.py wrote what it makes of them.
#include "llmc/base/error.h"
#include "llmc/io/jinja/template.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <sstream>

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;

JinjaValue value_of(const Json& json) {
    if (json.is_null()) return {};
    if (json.is_boolean()) return JinjaValue::of(json.get<bool>());
    if (json.is_number_integer()) return JinjaValue::of(json.get<int64_t>());
    if (json.is_number()) return JinjaValue::of(json.get<double>());
    if (json.is_string()) return JinjaValue::of(json.get<std::string>());
    if (json.is_array()) {
        std::vector<JinjaValue> items;
        for (const Json& item : json) items.push_back(value_of(item));
        return JinjaValue::of(std::move(items));
    }
    JinjaMap map;
    for (const auto& [key, item] : json.items()) map.set(key, value_of(item));
    return JinjaValue::of(std::move(map));
}

/// The byte at which a character begins.
size_t byte_of(const std::string& text, size_t character) {
    size_t i = 0;
    for (; i < text.size(); ++i) {
        if ((text[i] & 0xC0) != 0x80 && character-- == 0) break;
    }
    return i;
}

TEST(ChatTemplates, EqualJinja) {
    const char* other = std::getenv("LLMC_CHAT_TEMPLATES");
    std::istringstream lines(slurp(other != nullptr ? other : "tests/golden/chat/templates.jsonl"));
    int rendered = 0, refused = 0;
    for (std::string line; std::getline(lines, line);) {
        const Json row = Json::parse(line);
        const std::string source = row["template"];
        const bool is_refused = row.contains("error");
        const JinjaValue context = value_of(row["context"]);
        try {
            const JinjaRendered got = JinjaTemplate(source, "'test'").render(*context.map());
            ASSERT_FALSE(is_refused) << source << "\n" << row["error"] << "\n" << got.text.bytes;
            ASSERT_EQ(got.text.bytes, row["text"].get<std::string>()) << source;
            std::vector<std::pair<size_t, size_t>> spans;
            for (const Json& span : row["generations"]) {
                spans.emplace_back(byte_of(got.text.bytes, span[0]), byte_of(got.text.bytes, span[1]));
            }
            ASSERT_EQ(got.generations, spans) << source;
            ++rendered;
        } catch (const Error& error) {
            ASSERT_TRUE(is_refused) << source << "\n" << error.what();
            ASSERT_TRUE(std::string(error.what()).starts_with("chat template 'test' line ")) << error.what();
            ++refused;
        }
    }
    EXPECT_GT(rendered, 100);
    EXPECT_GT(refused, 5);
}

}  // namespace
}  // namespace llmc
