// A template's tokens, one after the other, with what both halves of the parser ask of them.
#pragma once

#include "llmc/base/error.h"
#include "llmc/io/jinja/lexer.h"
#include "llmc/io/jinja/tree.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

class JinjaTokenReader {
  protected:
    /// `name` must outlive the reader.
    JinjaTokenReader(std::string_view source, const std::string& name)
        : name_(name), tokens_(lex_jinja(source, name)) {}

    [[noreturn]] void refuse(const std::string& what) const { refuse_template(name_, peek().line, what); }

    /// Counts how deep the parser stands in itself.
    class Level {
      public:
        explicit Level(JinjaTokenReader& reader) : reader_(reader) {
            if (++reader_.level_ > kDeepestJinja) reader_.refuse("more is nested than is allowed");
        }
        ~Level() { --reader_.level_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

      private:
        JinjaTokenReader& reader_;
    };

    const JinjaToken& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
    JinjaToken take() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
    bool is(JinjaToken::Kind kind, std::string_view text, size_t ahead = 0) const {
        return peek(ahead).kind == kind && peek(ahead).text == text;
    }
    bool is_operator(std::string_view text, size_t ahead = 0) const {
        return is(JinjaToken::Kind::Operator, text, ahead);
    }
    bool is_name(std::string_view text, size_t ahead = 0) const { return is(JinjaToken::Kind::Name, text, ahead); }
    bool accept_operator(std::string_view text) {
        const bool there = is_operator(text);
        if (there) ++at_;
        return there;
    }
    bool accept_name(std::string_view text) {
        const bool there = is_name(text);
        if (there) ++at_;
        return there;
    }
    std::string found() const {
        switch (peek().kind) {
            case JinjaToken::Kind::BlockEnd: return "%}";
            case JinjaToken::Kind::VariableEnd: return "}}";
            case JinjaToken::Kind::End: return "the end";
            case JinjaToken::Kind::String: return "'" + peek().text + "'";
            default: return peek().text;
        }
    }
    void expect_operator(const char* text) {
        if (!accept_operator(text)) refuse(fmt::format("'{}' is wanted where {} stands", text, found()));
    }
    std::string expect_name(const char* what) {
        if (peek().kind != JinjaToken::Kind::Name) refuse(fmt::format("{} is wanted where {} stands", what, found()));
        return take().text;
    }
    void expect_block_end() {
        if (peek().kind != JinjaToken::Kind::BlockEnd) refuse(fmt::format("%}} is wanted where {} stands", found()));
        ++at_;
    }

    const std::string& name_;

    void skip(size_t tokens) { at_ += tokens; }
    void step_back() { --at_; }

  private:
    std::vector<JinjaToken> tokens_;
    size_t at_ = 0;
    int level_ = 0;
};

}  // namespace llmc
