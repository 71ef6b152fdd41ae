#include "llmc/io/pipeline/regex.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/later_characters.h"
#include "llmc/io/pipeline/regex_syntax.h"
#include "llmc/io/pipeline/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace llmc {
namespace {

std::string reason_of(int error) {
    std::array<PCRE2_UCHAR, 256> why = {};
    pcre2_get_error_message(error, why.data(), why.size());
    return reinterpret_cast<const char*>(why.data());
}

/// What PCRE2 has made, which is nothing where memory is short.
template <typename T>
T* required(T* made) {
    if (made == nullptr) throw std::bad_alloc();
    return made;
}

}  // namespace

/// What a match works in.
struct Regex::SearchMemory {
    struct Free {
        void operator()(pcre2_match_data* memory) const { pcre2_match_data_free(memory); }
        void operator()(pcre2_match_context* memory) const { pcre2_match_context_free(memory); }
        void operator()(pcre2_jit_stack* memory) const { pcre2_jit_stack_free(memory); }
    };
    static constexpr size_t kMostStack = size_t{1} << 30;  ///< Reserved, not used: groups repeat over megabytes.

    std::unique_ptr<pcre2_match_data, Free> match{required(pcre2_match_data_create(1, nullptr))};
    std::unique_ptr<pcre2_match_context, Free> context{required(pcre2_match_context_create(nullptr))};
    /// Without it PCRE2 has a smaller one.
    std::unique_ptr<pcre2_jit_stack, Free> stack{pcre2_jit_stack_create(32 * 1024, kMostStack, nullptr)};
    PCRE2_SIZE* found = pcre2_get_ovector_pointer(match.get());

    SearchMemory() {
        pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
        pcre2_set_match_limit(context.get(), 1'000'000'000);
    }
};

struct Regex::Code {
    pcre2_code* code = nullptr;
    bool has_jit = false;
    std::mutex mutex;                                  ///< Of what follows.
    std::vector<std::unique_ptr<SearchMemory>> spare;  ///< States that no search has.
    std::string written, source;                       ///< For messages.

    /// `written_as` is what the file `named` has for `pattern`.
    Code(const std::string& pattern, const std::string& written_as, const std::string& named)
        : written(written_as), source(named) {
        const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
            required(pcre2_compile_context_create(nullptr)), pcre2_compile_context_free);
        pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
        int error = 0;
        PCRE2_SIZE where = 0;
        code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &where,
                             context.get());
        if (code == nullptr) fail("{}: its pattern does not compile: {}: '{}'", source, reason_of(error), written);
        has_jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
    }
    ~Code() { pcre2_code_free(code); }
    Code(const Code&) = delete;
    Code& operator=(const Code&) = delete;
};

Regex::Regex(const std::string& pattern, const std::string& source) {
    const RegexSyntax syntax = to_pcre2(pattern);
    if (!syntax.obstacle.empty()) fail("{}: its pattern has {}, which cannot be read", source, syntax.obstacle);
    code_ = std::make_unique<Code>(syntax.pattern, pattern, source);
    const std::string later = with_later_characters(syntax.pattern);
    if (later != syntax.pattern) later_ = std::make_unique<Code>(later, pattern, source);
}

Regex::~Regex() = default;

RegexSearch::RegexSearch(const Regex& regex) : regex_(regex) {
    Regex::Code& code = *regex_.code_;
    const std::lock_guard lock(code.mutex);
    if (code.spare.empty()) {
        state_ = std::make_unique<Regex::SearchMemory>();
    } else {
        state_ = std::move(code.spare.back());
        code.spare.pop_back();
    }
}

RegexSearch::~RegexSearch() {
    const std::lock_guard lock(regex_.code_->mutex);
    regex_.code_->spare.push_back(std::move(state_));
}

void RegexSearch::start(std::string_view text) {
    text_ = text;
    from_ = 0;
    has_match_ = false;
    code_ = regex_.later_ != nullptr && may_have_later_characters(text) ? regex_.later_.get() : regex_.code_.get();
}

bool RegexSearch::search(size_t from) {
    const Regex::Code& code = *code_;
    Regex::SearchMemory& state = *state_;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text_.data());
    const int status = code.has_jit ? pcre2_jit_match(code.code, subject, text_.size(), from, 0, state.match.get(),
                                                      state.context.get())
                                    : pcre2_match(code.code, subject, text_.size(), from, PCRE2_NO_UTF_CHECK,
                                                  state.match.get(), state.context.get());
    if (status < 0 && status != PCRE2_ERROR_NOMATCH) {
        fail(
            "{}: its pattern '{}' gave up on the text ({}), which it would take too long to cut; make token files with "
            "the tokenizer's own program, and train on those",
            code.source, code.written, reason_of(status));
    }
    return status >= 0;
}

bool RegexSearch::next(size_t* begin, size_t* end) {
    while (from_ <= text_.size()) {
        if (!search(from_)) break;
        *begin = state_->found[0];
        *end = state_->found[1];
        if (*begin == *end && has_match_ && *end == last_end_) {
            from_ += from_ < text_.size() ? utf8_bytes(text_[from_]) : 1;
            continue;
        }
        has_match_ = true;
        from_ = last_end_ = *end;
        return true;
    }
    from_ = text_.size() + 1;
    return false;
}

}  // namespace llmc
