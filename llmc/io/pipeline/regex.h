// Regular expressions as tokenizers' files write them: in the syntax of Oniguruma, over UTF-8. They are rewritten
// (regex_syntax.h) for PCRE2, which compiles them to machine code.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace llmc {

/// A compiled expression. Any number of threads may use it, each through its own RegexSearch, which is quickly made.
class Regex {
  public:
    /// An Error that names `source` if the expression does not compile, or says what PCRE2 cannot.
    Regex(const std::string& pattern, const std::string& source);
    ~Regex();
    Regex(const Regex&) = delete;
    Regex& operator=(const Regex&) = delete;

  private:
    friend class RegexSearch;
    struct Code;
    struct SearchMemory;
    std::unique_ptr<Code> code_;
    std::unique_ptr<Code> later_;  ///< For texts with characters that PCRE2 may not know (later_characters.h).
};

/// A search through a text, match after match, in one thread. The Regex must outlive it.
class RegexSearch {
  public:
    explicit RegexSearch(const Regex& regex);
    ~RegexSearch();
    RegexSearch(const RegexSearch&) = delete;
    RegexSearch& operator=(const RegexSearch&) = delete;

    /// Begins anew, with valid UTF-8.
    void start(std::string_view text);
    /// Finds the next match; false if there is none. An empty one does not follow another match immediately.
    bool next(size_t* begin, size_t* end);

  private:
    bool search(size_t from);

    const Regex& regex_;
    std::unique_ptr<Regex::SearchMemory> state_;
    const Regex::Code* code_ = nullptr;  ///< What the text is searched with.
    std::string_view text_;
    size_t from_ = 0;
    size_t last_end_ = 0;
    bool has_match_ = false;
};

}  // namespace llmc
