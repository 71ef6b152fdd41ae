// Values of a Jinja template: what Python's are to it, as far as chat templates use them. A text remembers which bytes
// of it came from where, through everything that only cuts and joins, so that a rendered conversation tells its answers
// from the words around them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace llmc {

/// Bytes [begin, end) of a text came from the source of this number.
struct TextOrigin {
    size_t begin, end;
    int32_t source;
    bool operator==(const TextOrigin&) const = default;
};

/// UTF-8, and where it came from: ordered, without overlaps; an empty stretch marks an empty source.
struct JinjaText {
    std::string bytes;
    std::vector<TextOrigin> origins;

    void append(const JinjaText& other);
    void append(std::string_view text) { bytes += text; }
    /// Bytes [begin, end).
    JinjaText part(size_t begin, size_t end) const;
    /// `bytes` in place of these, which may be longer or shorter: of one source if all of these are.
    JinjaText changed(std::string changed_bytes) const;
};

class JinjaValue;
struct JinjaMap;

struct JinjaList {
    std::vector<JinjaValue> items;
    int depth = 1;  ///< Of lists and maps within one another.
};

/// Something that a name was not found for.
struct JinjaUndefined {
    std::string name;
};

/// A function, or with `self` a method of it.
struct JinjaFunction {
    std::string name;
    std::shared_ptr<const JinjaValue> self;
};

/// Immutable but for namespaces; copies share what they hold.
class JinjaValue {
  public:
    using Text = std::shared_ptr<const JinjaText>;
    using List = std::shared_ptr<const JinjaList>;
    using Map = std::shared_ptr<JinjaMap>;

    JinjaValue() = default;  ///< none
    static JinjaValue undefined(std::string name) { return JinjaValue(JinjaUndefined{std::move(name)}); }
    static JinjaValue of(bool value) { return JinjaValue(value); }
    static JinjaValue of(int64_t value) { return JinjaValue(value); }
    static JinjaValue of(double value) { return JinjaValue(value); }
    static JinjaValue of(std::string text);
    static JinjaValue of(JinjaText text);
    static JinjaValue of(std::vector<JinjaValue> items);
    static JinjaValue of(JinjaMap map);
    static JinjaValue of(JinjaFunction function) { return JinjaValue(std::move(function)); }

    bool is_undefined() const { return std::holds_alternative<JinjaUndefined>(value_); }
    bool is_none() const { return std::holds_alternative<std::monostate>(value_); }
    const bool* flag() const { return std::get_if<bool>(&value_); }
    const int64_t* integer() const { return std::get_if<int64_t>(&value_); }
    const double* real() const { return std::get_if<double>(&value_); }
    const JinjaText* text() const { return pointer<Text>(); }
    const JinjaList* list() const { return pointer<List>(); }
    const JinjaMap* map() const { return pointer<Map>(); }
    /// The map, if it is a namespace.
    JinjaMap* name_space() const;
    const JinjaFunction* function() const { return std::get_if<JinjaFunction>(&value_); }
    const JinjaUndefined* missing() const { return std::get_if<JinjaUndefined>(&value_); }
    bool is_number() const { return flag() || integer() || real(); }

    /// A number as Python counts with it; true is 1. Only of numbers.
    double number() const;
    /// A whole number or a flag; false where it is none.
    bool whole(int64_t* number) const;
    bool truth() const;
    /// Of lists and maps in it: 0 for others.
    int depth() const;
    /// In words, for messages: "a text", "none", "undefined 'x'".
    std::string kind() const;

  private:
    using Variant = std::variant<std::monostate, JinjaUndefined, bool, int64_t, double, Text, List, Map, JinjaFunction>;
    template <typename T>
    explicit JinjaValue(T value) : value_(std::move(value)) {}
    template <typename Pointer>
    const typename Pointer::element_type* pointer() const {
        const Pointer* held = std::get_if<Pointer>(&value_);
        return held == nullptr ? nullptr : held->get();
    }

    Variant value_;
};

/// A dict with texts as keys, in the order in which they came.
struct JinjaMap {
    std::vector<std::pair<std::string, JinjaValue>> items;
    bool is_namespace = false;
    int depth = 1;

    const JinjaValue* find(std::string_view key) const;
    void set(const std::string& key, JinjaValue value);
};

/// Calls spend(n) for work in proportion to n, which may throw.
class JinjaWork {
  public:
    virtual ~JinjaWork() = default;
    virtual void spend(size_t amount) = 0;
};

/// Python's ==.
bool equal(const JinjaValue& a, const JinjaValue& b, JinjaWork& work);
/// What {{ value }} writes: Python's str().
JinjaText written(const JinjaValue& value, JinjaWork& work);
/// Python's json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: on one line. What has no JSON, such as
/// something undefined, is an std::string that says so, thrown.
std::string json_of(const JinjaValue& value, int indent, JinjaWork& work);

}  // namespace llmc
