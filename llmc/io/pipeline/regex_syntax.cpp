#include "llmc/io/pipeline/regex_syntax.h"

#include "llmc/io/pipeline/regex_class.h"

#include <cctype>
#include <vector>

namespace llmc {
namespace {

std::string set_of(const char* items) { return std::string("[") + items + "]"; }
std::string set_without(const char* items) { return std::string("[^") + items + "]"; }

class Translator {
  public:
    explicit Translator(std::string_view pattern) : reader_(pattern) {}

    RegexSyntax translate() {
        while (!reader_.at_end()) step();
        if (reader_.misses_end()) result_.obstacle = "a class or a name without its end";
        return std::move(result_);
    }

  private:
    void step() {
        const char c = reader_.peek();
        if (reader_.skip("\\")) {
            add_atom(escape());
        } else if (reader_.skip("[")) {
            add_atom(read_class(reader_, &result_.obstacle));
        } else if (c == '(') {
            open_group();
        } else if (c == ')') {
            reader_.take();
            result_.pattern += ')';
            if (!groups_.empty()) {
                atom_ = groups_.back();
                groups_.pop_back();
            }
        } else if (c == '{' && quantify()) {
            return;
        } else if (c == '|' || c == '^' || c == '$' || c == '.' || c == '*' || c == '+' || c == '?') {
            if (c == '.') atom_ = result_.pattern.size();
            result_.pattern += reader_.take();
        } else {
            add_atom(reader_.take_literal());
        }
    }

    void add_atom(const std::string& text) {
        atom_ = result_.pattern.size();
        result_.pattern += text;
    }

    /// "(" and what may follow it.
    void open_group() {
        groups_.push_back(result_.pattern.size());
        reader_.take();
        result_.pattern += '(';
        if (reader_.skip("?#")) {
            reader_.take_until(")");
            result_.pattern.pop_back();
            groups_.pop_back();
            return;
        }
        if (reader_.peek() != '?') return;
        result_.pattern += reader_.take();
        if (reader_.peek() == '~') result_.obstacle = "an absent repeater (?~";
        std::string flags;
        while (std::isalpha(static_cast<unsigned char>(reader_.peek())) != 0 || reader_.peek() == '-') {
            const char flag = reader_.take();
            if (flag != 'i' && flag != 'm' && flag != 'x' && flag != '-') {
                result_.obstacle = std::string("the option (?") + flag + ")";
            }
            flags += flag == 'm' ? 's' : flag;  // Oniguruma's m lets a dot match a line end.
        }
        result_.pattern += flags;
        if (!flags.empty() && reader_.peek() == ':') result_.pattern += reader_.take();
        for (const char* look : {"<=", "<!", "=", "!", ">", ":", "<"}) {
            if (!flags.empty() || !reader_.skip(look)) continue;
            result_.pattern += look;
            if (std::string_view(look) == "<") result_.pattern += reader_.take_until(">") + ">";
            break;
        }
    }

    std::string escape() {
        const char c = reader_.take();
        switch (c) {
            case 's': return set_of(kSpaceItems);
            case 'S': return set_without(kSpaceItems);
            case 'w': return set_of(kBareWordItems);
            case 'W': return set_without(kBareWordItems);
            case 'd': return set_of(kDigitItems);
            case 'D': return set_without(kDigitItems);
            case 'h': return set_of(kHexItems);
            case 'H': return set_without(kHexItems);
            case 'b': return word_edge("(?=", "(?!");
            case 'B': return word_edge("(?!", "(?=");
            case 'O': return "(?s:.)";
            case 'v': return "\\x{b}";
            case 'x':
            case 'u': return reader_.take_number(c, &result_.obstacle);
            case 'p':
            case 'P': return property(c == 'P');
            case 'y':
            case 'Y':
            case 'C':
            case 'M':
            case 'c': result_.obstacle = std::string("\\") + c; return "";
            default: break;
        }
        if (c == '\0') return "\\\\";
        if ((c == 'k' || c == 'g') && reader_.skip("<"))
            return std::string("\\") + c + "<" + reader_.take_until(">") + ">";
        const std::string_view same = "AZzGKRXNtnrfea";
        const bool is_word = std::isalpha(static_cast<unsigned char>(c)) != 0;
        if (!is_word || same.find(c) != std::string_view::npos) return std::string("\\") + c;
        return std::string(1, c);
    }

    /// Where a word's character stands beside another kind: `after` one there is none, and the other way round.
    static std::string word_edge(const char* after_other, const char* after_word) {
        const std::string word = set_of(kBareWordItems);
        return "(?:(?<=" + word + ")" + after_word + word + ")|(?<!" + word + ")" + after_other + word + "))";
    }

    std::string property(bool negated) {
        if (!reader_.skip("{")) return negated ? "P" : "p";
        std::string name = reader_.take_until("}");
        if (name.starts_with('^')) {
            negated = !negated;
            name.erase(0, 1);
        }
        const std::string items = property_items(name, negated, &result_.obstacle);
        const bool is_one = items.starts_with("\\p") || items.starts_with("\\P");
        if (!items.empty() && is_one && items.find('}') == items.size() - 1) return items;
        const std::string set = property_items(name, false, &result_.obstacle);
        return negated ? "[^" + set + "]" : "[" + set + "]";
    }

    /// {n}, {n,}, {,m}, {n,m} and what follows it; false if it is none. After it + is one more quantifier, as is ?
    /// after {n}.
    bool quantify() {
        PatternReader ahead = reader_;
        ahead.take();
        std::string least, most;
        while (std::isdigit(static_cast<unsigned char>(ahead.peek())) != 0) least += ahead.take();
        const bool is_range = ahead.skip(",");
        while (is_range && std::isdigit(static_cast<unsigned char>(ahead.peek())) != 0) most += ahead.take();
        if ((least.empty() && most.empty()) || !ahead.skip("}")) return false;
        reader_ = ahead;
        result_.pattern += "{" + (least.empty() ? "0" : least) + (is_range ? "," + most : "") + "}";
        if (reader_.peek() == '+' || reader_.peek() == '*' || (reader_.peek() == '?' && !is_range)) {
            result_.pattern.insert(atom_, "(?:");
            result_.pattern += ")";
        }
        return true;
    }

    PatternReader reader_;
    RegexSyntax result_;
    size_t atom_ = 0;             ///< Where the last thing that a quantifier could follow begins.
    std::vector<size_t> groups_;  ///< Where the open groups begin.
};

}  // namespace

RegexSyntax to_pcre2(std::string_view pattern) { return Translator(pattern).translate(); }

}  // namespace llmc
