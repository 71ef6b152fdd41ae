#include "llmc/train/chat_command.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/shown_text.h"
#include "llmc/io/chat/row_encoder.h"
#include "llmc/io/special_names.h"
#include "llmc/train/conversation.h"
#include "llmc/train/generating_model.h"
#include "llmc/train/run_folder.h"
#include "llmc/train/text_ends.h"

#include <algorithm>
#include <iostream>
#include <optional>
#include <unistd.h>

namespace llmc {
namespace {

/// --chat-template, else the tokenizer's own, else what the run was trained with.
ChatTemplate template_for(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer) {
    std::string folder = folder_of_tokenizer(tokenizer.name());
    if (folder.empty() && options.tokenizer.empty()) folder = weights.tokenizer_folder();
    std::optional<ChatTemplate> found = find_chat_template(options.chat_template, folder);
    if (!found && !options.run.empty()) {
        const std::string run = find_run_folder(options.run, "--run");
        found = find_chat_template(options_of_run(run, "--run=" + options.run).chat_template, folder);
    }
    if (found) return *std::move(found);
    fail_usage("--chat: the model's tokenizer '{}' has no chat template; name one with --chat-template: {}, or a file",
               tokenizer.name(), chat_template_names());
}

/// Prints an answer as it comes, without blanks in front, and keeps it.
class Answer {
  public:
    explicit Answer(const std::string& turn_end, const std::string& stop)
        : stop_(stop, [this](std::string_view part) { print(part); }),
          turn_(turn_end, [this](std::string_view part) { is_stopped_ = stop_.add(part) || is_stopped_; }) {}
    /// True once it has come to its end.
    bool add(const std::string& text) { return turn_.add(text) || is_stopped_; }
    void finish() {
        turn_.finish();
        stop_.finish();
        print_output(shown_.finish());
        while (!text_.empty() && (text_.back() == ' ' || text_.back() == '\n')) text_.pop_back();
    }
    const std::string& text() const { return text_; }

  private:
    void print(std::string_view part) {
        if (text_.empty()) part.remove_prefix(std::min(part.find_first_not_of(" \n"), part.size()));
        text_ += part;
        print_output(shown_.add(part));
        flush_output();
    }

    std::string text_;
    ShownText shown_;
    StopText stop_, turn_;
    bool is_stopped_ = false;
};

class Chat {
  public:
    Chat(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer)
        : options_(options),
          tokenizer_(tokenizer),
          conversation_(template_for(options, weights, tokenizer), tokenizer, options.system),
          ends_(end_tokens(tokenizer, weights.tokenizer_folder(), weights.model().config.V).ends),
          V_(weights.model().config.V) {
        for (const SpecialToken& token : special_tokens_of(tokenizer)) {
            if (token.name == conversation_.turn_end()) turn_end_id_ = token.id;
        }
        if (turn_end_id_ >= 0) ends_.push_back(turn_end_id_);
    }

    Conversation& conversation() { return conversation_; }

    void say_how_it_goes() const {
        const std::string& end = conversation_.turn_end();
        spdlog::info("chat template {}; an answer ends {}", conversation_.chat_template().name(),
                     end.empty()
                         ? fmt::format("after {}: the template marks no end", counted(options_.length, "token"))
                         : fmt::format("at '{}'{}", end, turn_end_id_ < 0 ? "" : fmt::format(" ({})", turn_end_id_)));
    }

    /// The longest question's tokens, where some room is to be left for the answer.
    int64_t most_tokens(int64_t context) const { return context - std::min<int64_t>(options_.length, context / 2); }

    /// Draws and prints an answer.
    std::string answer(GeneratingModel& model, const std::vector<int32_t>& prompt, uint32_t number) const {
        for (const int32_t token : prompt) {
            if (token >= V_) fail("--chat: token {} is beyond the model's vocabulary of {}", token, V_);
        }
        // A token that ends a turn is known by its id; where it is letters, by them.
        Answer answer(turn_end_id_ < 0 ? conversation_.turn_end() : "", options_.stop);
        bool is_over = false;
        const auto emit = [&](int32_t token) {
            is_over = std::find(ends_.begin(), ends_.end(), token) != ends_.end();
            if (!is_over) is_over = answer.add(tokenizer_.decode_next(token));
        };
        const int64_t room = model.context() - static_cast<int64_t>(prompt.size());
        model.generator().generate(prompt, std::min(options_.length, room), sampler_settings(options_), number, emit,
                                   [&](int32_t) { return is_over; });
        answer.finish();
        print_output("\n");
        flush_output();
        return answer.text();
    }

  private:
    const Options& options_;
    const Tokenizer& tokenizer_;
    Conversation conversation_;
    std::vector<int32_t> ends_;
    int64_t V_;
    int32_t turn_end_id_ = -1;
};

/// Turns line by line, until standard input ends.
void talk(Chat& chat, GeneratingModel& model) {
    const bool is_terminal = isatty(STDIN_FILENO) == 1;
    std::string line;
    for (uint32_t turn = 0;; ++turn) {
        if (is_terminal) print_output("> ");
        flush_output();
        if (!std::getline(std::cin, line)) break;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const std::vector<int32_t> prompt = chat.conversation().ask(line, chat.most_tokens(model.context()));
        chat.conversation().answer(chat.answer(model, prompt, turn));
    }
    if (is_terminal) print_output("\n");
}

}  // namespace

void chat_command(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer) {
    Chat chat(options, weights, tokenizer);
    const int64_t longest = weights.model().config.maxT;
    chat.say_how_it_goes();
    if (options.prompt.empty()) {
        GeneratingModel model(options, weights, tokenizer, longest);
        return talk(chat, model);
    }
    const std::vector<int32_t> prompt = chat.conversation().ask(options.prompt, longest - 1);
    const int64_t context = std::min(longest, static_cast<int64_t>(prompt.size()) + options.length);
    GeneratingModel model(options, weights, tokenizer, context);
    for (int64_t sample = 0; sample < options.samples; ++sample) {
        if (options.samples > 1) print_output(fmt::format("---- sample {} ----\n", sample + 1));
        chat.answer(model, prompt, static_cast<uint32_t>(sample));
    }
}

}  // namespace llmc
