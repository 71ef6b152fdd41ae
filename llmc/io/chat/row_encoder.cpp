#include "llmc/io/chat/row_encoder.h"

#include "llmc/base/error.h"
#include "llmc/io/token_source.h"
#include "llmc/io/tokenizer_files.h"

#include <algorithm>

namespace llmc {
namespace {

using Stretch = SpanEncoder::Stretch;

/// The first message that --score counts.
size_t first_scored(const ChatRow& row, Scored scored) {
    if (scored != Scored::Completion) return 0;
    if (row.first_completion > 0) return row.first_completion;
    size_t last = row.messages.size();
    while (last > 0 && row.messages[last - 1].role != "assistant") --last;
    return last == 0 ? row.messages.size() : last - 1;
}

/// Where an answer's content stands: [first, last) over all its parts, if no other message is between them.
std::vector<Stretch> places_of(const RenderedChat& chat, int32_t message) {
    std::vector<Stretch> places;
    bool is_apart = true;
    for (const TextOrigin& origin : chat.contents) {
        if (origin.source != message) {
            is_apart = true;
        } else if (is_apart) {
            places.emplace_back(origin.begin, origin.end);
            is_apart = false;
        } else {
            places.back().second = origin.end;
        }
    }
    return places;
}

/// Without overlaps, in order.
std::vector<Stretch> united(std::vector<Stretch> stretches) {
    std::sort(stretches.begin(), stretches.end());
    std::vector<Stretch> all;
    for (const Stretch& stretch : stretches) {
        if (!all.empty() && stretch.first <= all.back().second) {
            all.back().second = std::max(all.back().second, stretch.second);
        } else {
            all.push_back(stretch);
        }
    }
    return all;
}

void score_generations(const RenderedChat& chat, size_t first_message, ScoredText* scored) {
    for (const Stretch& block : chat.generations) {
        // The message that it is of: the one whose content it has, else the last before its end.
        int32_t message = 0;
        for (const TextOrigin& origin : chat.contents) {
            if (origin.begin <= block.second) message = origin.source;
        }
        if (message >= static_cast<int32_t>(first_message)) scored->stretches.push_back(block);
    }
}

void score_answers(const RenderedChat& chat, const ChatRow& row, size_t first_message, const std::string& eos,
                   ScoredText* scored) {
    for (size_t i = first_message; i < row.messages.size(); ++i) {
        if (row.messages[i].role != "assistant") continue;
        const std::vector<Stretch> places = places_of(chat, static_cast<int32_t>(i));
        for (const auto& [begin, last] : places) {
            const size_t end = end_of_turn(chat.text, last, eos);
            if (end == last) ++scored->open_answers;
            scored->stretches.emplace_back(begin, end);
        }
    }
}

}  // namespace

Scored scored_by_name(const std::string& name) {
    return name == "all" ? Scored::All : name == "completion" ? Scored::Completion : Scored::Assistant;
}

std::string folder_of_tokenizer(const std::string& reference) {
    try {
        return find_tokenizer_files(reference).folder;
    } catch (const Error&) {
        return "";
    }
}

ChatFormat::ChatFormat(const Tokenizer& tokenizer, const std::string& chat_template_choice, Scored what)
    : scored(what), chat_template(find_chat_template(chat_template_choice, folder_of_tokenizer(tokenizer.name()))) {
    const TokenRoles roles =
        chat_template ? chat_template->roles() : token_roles(folder_of_tokenizer(tokenizer.name()));
    const auto role = [&](const char* name) {
        const auto found = roles.find(name);
        return found == roles.end() ? std::string() : found->second;
    };
    bos = role("bos_token");
    eos = role("eos_token");
    if (!eos.empty() || tokenizer.end_of_text() < 0) return;
    eos = tokenizer.token_bytes(tokenizer.end_of_text());
    if (bos.empty()) bos = eos;
}

ScoredText score_chat(const ChatTemplate& chat_template, const ChatRow& row, Scored scored) {
    ScoredText text;
    RenderedChat chat = chat_template.render(row.messages, /*add_generation_prompt=*/false);
    const std::string bos = chat_template.token("bos_token");
    const size_t first = first_scored(row, scored);
    if (scored == Scored::All) {
        const size_t begin = !bos.empty() && chat.text.starts_with(bos) ? bos.size() : 0;
        text.stretches.emplace_back(begin, chat.text.size());
    } else if (chat_template.has_generation()) {
        score_generations(chat, first, &text);
    } else {
        score_answers(chat, row, first, chat_template.token("eos_token"), &text);
    }
    text.stretches = united(std::move(text.stretches));
    text.text = std::move(chat.text);
    return text;
}

RowEncoder::RowEncoder(const ChatFormat& format, const TokenLengths& lengths)
    : format_(format), lengths_(lengths), encoder_(lengths), bos_id_(lengths.special_id(format.bos)) {}

void RowEncoder::encode_text(const ScoredText& text, EncodedRow* row) {
    std::vector<bool> inside(row->tokens.size(), false);
    encoder_.encode(text.text, text.stretches, &row->tokens, &inside);
    for (size_t i = row->marks.size(); i < row->tokens.size(); ++i) {
        row->marks.push_back(inside[i] ? uint8_t{kScored} : uint8_t{0});
    }
}

void RowEncoder::require_one_bos(const EncodedRow& row) const {
    if (row.tokens.size() < 2 || bos_id_ < 0 || row.tokens[0] != bos_id_ || row.tokens[1] != bos_id_) return;
    fail("its text begins with '{}' twice, which no model knows; take it out of the template, or of the text",
         format_.bos);
}

EncodedRow RowEncoder::encode(const ChatRow& row) {
    EncodedRow encoded;
    const bool all = format_.scored == Scored::All;
    if (row.kind == ChatRow::Kind::Messages) {
        if (!format_.chat_template) {
            fail_usage(
                "it is a conversation, and the tokenizer '{}' has no chat template; name one with --chat-template: {}, "
                "or a file; to read the file as plain text, give --data-format=text",
                lengths_.tokenizer().name(), chat_template_names());
        }
        const ScoredText text = score_chat(*format_.chat_template, row, format_.scored);
        encoded.open_answers = text.open_answers;
        encode_text(text, &encoded);
    } else {
        // A text that begins with the token itself gets no second one.
        const std::string bos = row.first.starts_with(format_.bos) ? "" : format_.bos;
        const size_t begin = format_.bos.size();
        std::string first = bos + row.first;
        if (row.kind == ChatRow::Kind::Plain) {
            first += format_.eos;
            encode_text({first, {{begin, first.size()}}, 0}, &encoded);
        } else {
            std::vector<Stretch> of_prompt;
            if (all && begin < first.size()) of_prompt.emplace_back(begin, first.size());
            const std::string second = row.second + format_.eos;
            encode_text({first, of_prompt, 0}, &encoded);
            encode_text({second, {{0, second.size()}}, 0}, &encoded);
        }
    }
    require_one_bos(encoded);
    for (size_t i = 1; i < encoded.marks.size(); ++i) encoded.scored += encoded.marks[i] & kScored;
    if (!encoded.marks.empty()) encoded.marks[0] |= kDocumentStart;
    return encoded;
}

}  // namespace llmc
