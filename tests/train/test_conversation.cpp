// Turns of a conversation: what a model is to answer, where an answer ends, and what is forgotten.
#include "llmc/train/conversation.h"

#include "tests/io/temp_dir.h"
#include "tests/io/warnings.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace llmc {
namespace {

const ByteTokenizer kBytes;

Conversation talk(const std::string& family, const std::string& system = "") {
    return Conversation(*find_chat_template(family, ""), kBytes, system);
}

std::string text_of(const std::vector<int32_t>& tokens) {
    std::string text;
    for (const int32_t token : tokens) text += kBytes.token_bytes(token);
    return text;
}

TEST(Conversation, RendersTurnsForAnAnswer) {
    Conversation chat = talk("chatml", "s");
    EXPECT_EQ(text_of(chat.ask("a", 1000)),
              "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
    chat.answer("b");
    EXPECT_TRUE(text_of(chat.ask("c", 1000))
                    .ends_with("<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
                               "<|im_start|>assistant\n"));
}

TEST(Conversation, KnowsHowAnswersEnd) {
    EXPECT_EQ(talk("chatml").turn_end(), "<|im_end|>");
    EXPECT_EQ(talk("qwen").turn_end(), "<|im_end|>");
    EXPECT_EQ(talk("llama2").turn_end(), "</s>");
    EXPECT_EQ(talk("llama3").turn_end(), "<|eot_id|>");
    EXPECT_EQ(talk("mistral", "s").turn_end(), "</s>");
    EXPECT_EQ(talk("zephyr").turn_end(), "</s>");
    const TempDir dir;
    EXPECT_EQ(talk(dir.write("t.jinja", "{% for m in messages %}{{ m.content }}\n{% endfor %}")).turn_end(), "");
}

TEST(Conversation, ForgetsTheOldestTurnsButNotTheSystem) {
    Conversation chat = talk("zephyr", "s");
    chat.ask("first", 1000);
    chat.answer("one");
    chat.ask("second", 1000);
    chat.answer("two");
    const Warnings warnings;
    const std::string text = text_of(chat.ask("third", 100));
    EXPECT_LE(text.size(), 100u);
    EXPECT_EQ(text.find("first"), std::string::npos);
    EXPECT_TRUE(text.starts_with("<|system|>\ns</s>\n<|user|>\n")) << text;
    EXPECT_NE(warnings.text().find("the oldest turns are forgotten"), std::string::npos);
    EXPECT_NE(error_of([&] { chat.ask(std::string(200, 'x'), 100); }).find("leaves room for 100; ask with fewer words"),
              std::string::npos);
}

TEST(Conversation, TakesAnyBytes) {
    Conversation chat = talk("llama3");
    EXPECT_NE(text_of(chat.ask(" \xff\xc3\xa9 ", 1000)).find("\xef\xbf\xbd\xc3\xa9<|eot_id|>"), std::string::npos);
}

}  // namespace
}  // namespace llmc
