#include "llmc/base/shallow_json.h"

#include <gtest/gtest.h>

#include <string>

namespace llmc {
namespace {

std::string nested(int levels) {
    std::string text;
    for (int level = 0; level < levels; ++level) text += level % 2 == 0 ? "[" : R"({"a":)";
    text += "1";
    for (int level = levels - 1; level >= 0; --level) text += level % 2 == 0 ? "]" : "}";
    return text;
}

TEST(ShallowJson, IsTheWholeTextUpToSoManyLevels) {
    for (const std::string& text : {std::string(), std::string("1"), nested(1), nested(kMostJsonLevels)})
        EXPECT_EQ(shallow_json(text), text);
}

TEST(ShallowJson, EndsBeforeTheFirstLevelTooMany) {
    const std::string text = "[1, 2, " + nested(kMostJsonLevels) + "]";
    const std::string_view part = shallow_json(text);
    EXPECT_LT(part.size(), text.size());
    EXPECT_TRUE(text[part.size()] == '[' || text[part.size()] == '{') << text[part.size()];
    EXPECT_EQ(shallow_json(std::string(1'000'000, '[')).size(), size_t{kMostJsonLevels});
}

TEST(ShallowJson, BracketsInStringsAreText) {
    const std::string brackets(1000, '{');
    for (const std::string& text : {"[\"" + brackets + "\"]", "{\"\\\"" + brackets + "\\\\\": \"" + brackets + "\"}",
                                    "[\"" + brackets, std::string("[\"\\")})
        EXPECT_EQ(shallow_json(text), text);
}

TEST(ShallowJson, LevelsThatEndDoNotCount) {
    std::string text = "[0";
    for (int i = 0; i < 1000; ++i) text += ", " + nested(3);
    EXPECT_EQ(shallow_json(text + "]"), text + "]");
}

}  // namespace
}  // namespace llmc
