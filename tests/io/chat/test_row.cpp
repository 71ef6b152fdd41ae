// Rows in every form, and what is wrong with those that are none.
#include "llmc/io/chat/row.h"
#include "llmc/io/chat/row_file.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <string>
#include <utility>
#include <vector>

namespace llmc {
namespace {

std::string fault_of(const std::string& json) {
    std::string fault;
    read_row(json, &fault);
    return fault;
}

/// "user: a | assistant: b".
std::string turns_of(const std::string& json) {
    std::string fault, all;
    const ChatRow row = read_row(json, &fault);
    EXPECT_EQ(fault, "") << json;
    for (const ChatMessage& message : row.messages) {
        all += (all.empty() ? "" : " | ") + message.role + ": " + message.content;
    }
    return all;
}

TEST(Row, FormsThatPeopleHave) {
    EXPECT_EQ(turns_of(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"id":3})"),
              "user: a | assistant: b");
    EXPECT_EQ(turns_of(R"({"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},
                          {"from":"gpt","value":"b","weight":1}]})"),
              "system: s | user: a | assistant: b");
    EXPECT_EQ(turns_of(R"({"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}],"system":"s"})"),
              "system: s | user: a | assistant: b");
    EXPECT_EQ(turns_of(R"({"conversations":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})"),
              "user: a | assistant: b");
    EXPECT_EQ(turns_of(R"({"instruction":"a","input":"i","output":"b","text":"all"})"), "user: a\ni | assistant: b");
    EXPECT_EQ(turns_of(R"({"instruction":"a","input":null,"output":"b"})"), "user: a | assistant: b");
    EXPECT_EQ(turns_of(R"({"instruction":"a","output":""})"), "user: a | assistant: ");
    EXPECT_EQ(turns_of(R"({"prompt":"p","prompt_id":"1","messages":[{"role":"assistant","content":"b"}]})"),
              "assistant: b");
    std::string fault;
    const ChatRow lists = read_row(R"({"prompt":[{"role":"user","content":"a"}],
                                      "completion":[{"role":"assistant","content":"b"}]})",
                                   &fault);
    EXPECT_EQ(lists.first_completion, 1u);
    const ChatRow texts = read_row(R"({"prompt":"a","completion":" b"})", &fault);
    EXPECT_EQ(texts.first + "|" + texts.second, "a| b");
    EXPECT_EQ(read_row(R"({"text":"plain"})", &fault).first, "plain");
    EXPECT_EQ(fault, "");
}

TEST(Row, SaysWhatIsWrongAndWhere) {
    const std::pair<const char*, const char*> cases[] = {
        {"{", "is not valid JSON"},
        {"[1]", "is a list, not an object"},
        {"{}", "has none of 'messages'"},
        {R"({"question":"a"})", "but 'question'"},
        {R"({"messages":"a"})", "has 'messages', which is a text, not a list of messages"},
        {R"({"messages":[]})", "has 'messages', which is empty"},
        {R"({"messages":[3]})", "has 'messages[0]', which is a number, not an object"},
        {R"({"messages":[{"role":"user"}]})", "has no 'messages[0].content'"},
        {R"({"messages":[{"content":"a"}]})", "has no 'messages[0].role'"},
        {R"({"messages":[{"role":"user","content":["a"]}]})", "has 'messages[0].content', which is a list; only texts"},
        {R"({"messages":[{"role":"user","content":null}]})", "has 'messages[0].content', which is null, not a text"},
        {R"({"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]})",
         "has 'messages[1].role' 'tool', which is none of system, user and assistant"},
        {R"({"messages":[{"role":"assistant","content":"","tool_calls":[{"id":1}]}]})",
         "has 'messages[0].tool_calls': calls of tools are not supported"},
        {R"({"messages":[{"role":"assistant","content":"a"}],"tools":[{}]})", "has 'tools': calls of tools"},
        {R"({"messages":[{"role":"user","content":"a"}]})", "has 'messages' without a turn of the assistant"},
        {R"({"conversations":[{"from":"narrator","value":"a"}]})", "has 'conversations[0].from' 'narrator'"},
        {R"({"instruction":"a"})", "has no 'output'"},
        {R"({"instruction":"a","output":["b"]})", "has 'output', which is a list"},
        {R"({"instruction":"a","output":"b","history":[["c","d"]]})", "has 'history', which is not supported"},
        {R"({"prompt":"a","completion":[]})", "has a 'prompt' that is a text and a 'completion' that is a list"},
        {R"({"prompt":[{"role":"assistant","content":"a"}],"completion":[{"role":"user","content":"b"}]})",
         "has 'completion' without a turn of the assistant"},
        {R"({"text":1})", "has 'text', which is a number, not a text"},
    };
    for (const auto& [json, wanted] : cases) {
        EXPECT_NE(fault_of(json).find(wanted), std::string::npos) << json << " -> " << fault_of(json);
    }
    // Null and empty are as good as not there.
    EXPECT_EQ(fault_of(R"({"messages":[{"role":"assistant","content":"a","tool_calls":null}],"tools":[]})"), "");
}

TEST(Row, KnowsWhetherThereIsSomethingToLearn) {
    const auto has_answer = [](const std::string& json) {
        std::string fault;
        return read_row(json, &fault).has_answer();
    };
    EXPECT_TRUE(has_answer(R"({"instruction":"a","output":"b"})"));
    EXPECT_FALSE(has_answer(R"({"instruction":"a","output":" \n"})"));
    EXPECT_FALSE(has_answer(R"({"prompt":"a","completion":""})"));
    EXPECT_FALSE(has_answer(R"({"text":"\t"})"));
}

/// The rows of a file as "line: json", then what is wrong with its end.
std::vector<std::string> rows_of(const std::string& text) {
    RowFile file(text);
    RowFile::Item item;
    std::string fault;
    std::vector<std::string> rows;
    int64_t bytes = 0;
    while (file.next(&item, &fault)) {
        rows.push_back(fmt::format("{}: {}", item.line, item.json));
        EXPECT_GT(item.end_bytes, bytes);
        bytes = item.end_bytes;
    }
    if (!fault.empty()) rows.push_back(fmt::format("{} {}", item.line, fault.substr(0, 20)));
    return rows;
}

TEST(RowFile, LinesAndArraysOfAnyLayout) {
    using Rows = std::vector<std::string>;
    EXPECT_EQ(rows_of("{\"a\":1}\n\n  \n{}\r\n{\"b\":[2]}"), (Rows{"1: {\"a\":1}", "4: {}\r", "5: {\"b\":[2]}"}));
    EXPECT_EQ(rows_of("\xef\xbb\xbf{}\n"), (Rows{"1: {}"}));
    EXPECT_EQ(rows_of("\n[ {\"a\":\"]},\\\"\"},\n\n{\"b\":\n[1,2]} , 3]\n"),
              (Rows{"2: {\"a\":\"]},\\\"\"}", "4: {\"b\":\n[1,2]}", "5: 3"}));
    EXPECT_EQ(rows_of("[]"), Rows());
    EXPECT_EQ(rows_of("[\n{},\n"), (Rows{"2: {}", "3 is where the array e"}));
    EXPECT_EQ(rows_of("[{}\n"), (Rows{"1: {}", "2 is where the array e"}));
    EXPECT_EQ(rows_of("[{}, {\"a\":\n"), (Rows{"1: {}", "1 begins a row that do"}));
    EXPECT_EQ(rows_of("[{}] {}"), (Rows{"1: {}", "1 goes on behind the e"}));
    EXPECT_EQ(rows_of("[{} {}]"), (Rows{"1: {}", "1 has no ',' behind a "}));
    EXPECT_EQ(rows_of(""), Rows());
}

TEST(RowFile, IsKnownByItsFirstRow) {
    EXPECT_TRUE(looks_like_rows(R"({"messages":[]})", false));
    EXPECT_TRUE(looks_like_rows(R"([{"instruction":"a","output":"b"}])", false));
    EXPECT_TRUE(looks_like_rows("damaged {\n{\"prompt\":\"a\",\"completion\":\"b\"}\n", false));
    EXPECT_FALSE(looks_like_rows(R"({"text":"a"})", false));
    EXPECT_TRUE(looks_like_rows(R"({"text":"a"})", true));
    EXPECT_FALSE(looks_like_rows(R"({"messages":"a text of that name"})", false));
    EXPECT_FALSE(looks_like_rows("Dear user, [messages]\n", true));
    EXPECT_FALSE(looks_like_rows("[1, 2]", true));
    EXPECT_FALSE(looks_like_rows("", true));
}

}  // namespace
}  // namespace llmc
