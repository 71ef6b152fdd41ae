#include "llmc/io/jinja/template.h"

#include "llmc/base/error.h"
#include "llmc/base/utf8.h"
#include "llmc/io/jinja/builtins.h"
#include "llmc/io/jinja/lexer.h"

#include <algorithm>
#include <optional>

namespace llmc {
namespace {

using Value = JinjaValue;
using Expression = JinjaExpression;
using Statement = JinjaStatement;

bool any_generation(const JinjaBody& body) {
    return std::any_of(body.begin(), body.end(), [](const Statement& statement) {
        return statement.kind == Statement::Kind::Generation ||
               std::any_of(statement.bodies.begin(), statement.bodies.end(), any_generation);
    });
}

/// One rendering.
class Run final : public JinjaWork {
  public:
    Run(const std::string& name, const JinjaMap& context) : name_(name), context_(context) {
        for (const auto& [key, value] : context.items) left_ += kUnitsPerByte * size_of(value);
    }

    JinjaRendered render(const JinjaBody& body) {
        frames_.emplace_back();
        run(body);
        return {std::move(out_), std::move(generations_)};
    }

    void spend(size_t amount) override {
        if (amount >= left_) throw JinjaFault{"the template does not come to an end, or writes more than is allowed"};
        left_ -= amount;
    }

  private:
    // A unit is a byte that is copied; what one node costs besides is about as much as a few.
    static constexpr size_t kUnits = size_t{1} << 24, kUnitsPerByte = 64, kUnitsPerNode = 16;

    enum class Flow : uint8_t { On, Break, Continue };

    static size_t size_of(const Value& value) {
        if (value.text() != nullptr) return value.text()->bytes.size() + 1;
        size_t size = 1;
        if (value.list() != nullptr) {
            for (const Value& item : value.list()->items) size += size_of(item);
        }
        if (value.map() != nullptr) {
            for (const auto& [key, item] : value.map()->items) size += key.size() + size_of(item);
        }
        return size;
    }

    /// Gives faults within `work` the line.
    template <typename Work>
    auto at(int line, Work work) {
        try {
            return work();
        } catch (const JinjaFault& fault) {
            refuse_template(name_, line, fault.what);
        }
    }

    using Frame = std::vector<std::pair<std::string, Value>>;

    void define(const std::string& name, Value value) {
        Frame& frame = frames_.back();
        const auto found = std::find_if(frame.begin(), frame.end(), [&](const auto& one) { return one.first == name; });
        if (found == frame.end()) {
            frame.emplace_back(name, std::move(value));
        } else {
            found->second = std::move(value);
        }
    }

    Value look_up(const std::string& name) const {
        for (auto frame = frames_.rbegin(); frame != frames_.rend(); ++frame) {
            for (const auto& [key, value] : *frame) {
                if (key == name) return value;
            }
        }
        if (const Value* value = context_.find(name)) return *value;
        return is_jinja_function(name) ? Value::of(JinjaFunction{name, nullptr}) : Value::undefined(name);
    }

    Flow run(const JinjaBody& body) {
        for (const Statement& statement : body) {
            const Flow flow = run(statement);
            if (flow != Flow::On) return flow;
        }
        return Flow::On;
    }

    Flow run(const Statement& statement) {
        at(statement.line, [&] { spend(kUnitsPerNode); });
        switch (statement.kind) {
            case Statement::Kind::Text:
                at(statement.line, [&] { spend(statement.text.size()); });
                out_.append(statement.text);
                return Flow::On;
            case Statement::Kind::Print: {
                const Value value = evaluate(*statement.expressions[0]);
                at(statement.line, [&] { out_.append(written(value, *this)); });
                return Flow::On;
            }
            case Statement::Kind::If: return run_if(statement);
            case Statement::Kind::For: return run_for(statement);
            case Statement::Kind::Set: run_set(statement); return Flow::On;
            case Statement::Kind::SetBlock: return run_set_block(statement);
            case Statement::Kind::Generation: {
                const size_t begin = out_.bytes.size();
                frames_.emplace_back();
                const Flow flow = run(statement.bodies[0]);
                frames_.pop_back();
                generations_.emplace_back(begin, out_.bytes.size());
                return flow;
            }
            case Statement::Kind::Break: return Flow::Break;
            case Statement::Kind::Continue: return Flow::Continue;
        }
        return Flow::On;
    }

    Flow run_if(const Statement& statement) {
        for (size_t i = 0; i < statement.bodies.size(); ++i) {
            const JinjaExpressionPtr& condition = statement.expressions[i];
            if (condition == nullptr || evaluate(*condition).truth()) return run(statement.bodies[i]);
        }
        return Flow::On;
    }

    /// Puts a value, or the parts of it, under the names.
    void assign(const std::vector<std::string>& names, const Value& value, int line) {
        if (names.size() == 1) return define(names[0], value);
        const std::vector<Value> parts = at(line, [&] { return jinja_items(value, *this); });
        if (parts.size() != names.size()) {
            refuse_template(name_, line, fmt::format("{} values are for {} names", parts.size(), names.size()));
        }
        for (size_t i = 0; i < names.size(); ++i) define(names[i], parts[i]);
    }

    static Value loop_of(const std::vector<Value>& items, size_t i) {
        const auto index = static_cast<int64_t>(i), count = static_cast<int64_t>(items.size());
        JinjaMap loop;
        loop.items = {{"index", Value::of(index + 1)},
                      {"index0", Value::of(index)},
                      {"revindex", Value::of(count - index)},
                      {"revindex0", Value::of(count - index - 1)},
                      {"first", Value::of(i == 0)},
                      {"last", Value::of(i + 1 == items.size())},
                      {"length", Value::of(count)},
                      {"depth", Value::of(int64_t{1})},
                      {"depth0", Value::of(int64_t{0})},
                      {"previtem", i == 0 ? Value::undefined("previtem") : items[i - 1]},
                      {"nextitem", i + 1 == items.size() ? Value::undefined("nextitem") : items[i + 1]}};
        return Value::of(std::move(loop));
    }

    Flow run_for(const Statement& statement) {
        const Value through = evaluate(*statement.expressions[0]);
        std::vector<Value> items = at(statement.line, [&] { return jinja_items(through, *this); });
        if (const JinjaExpressionPtr& condition = statement.expressions[1]) {
            std::vector<Value> kept;
            for (const Value& item : items) {
                frames_.emplace_back();
                assign(statement.names, item, statement.line);
                if (evaluate(*condition).truth()) kept.push_back(item);
                frames_.pop_back();
            }
            items = std::move(kept);
        }
        if (items.empty()) {
            frames_.emplace_back();
            const Flow flow = run(statement.bodies[1]);
            frames_.pop_back();
            return flow;
        }
        for (size_t i = 0; i < items.size(); ++i) {
            at(statement.line, [&] { spend(16 * kUnitsPerNode); });
            frames_.emplace_back();
            define("loop", loop_of(items, i));
            assign(statement.names, items[i], statement.line);
            const Flow flow = run(statement.bodies[0]);
            frames_.pop_back();
            if (flow == Flow::Break) break;
        }
        return Flow::On;
    }

    void run_set(const Statement& statement) {
        const Value value = evaluate(*statement.expressions[0]);
        if (statement.text.empty()) return assign(statement.names, value, statement.line);
        const Value target = look_up(statement.names[0]);
        JinjaMap* name_space = target.name_space();
        if (name_space == nullptr) {
            refuse_template(name_, statement.line,
                            fmt::format("'{}' is {}, and only a namespace has values that can be set",
                                        statement.names[0], target.kind()));
        }
        at(statement.line, [&] { require_storable(value); });
        name_space->set(statement.text, value);
    }

    Flow run_set_block(const Statement& statement) {
        JinjaText outer = std::move(out_);
        out_ = {};
        frames_.emplace_back();
        const Flow flow = run(statement.bodies[0]);
        frames_.pop_back();
        Value value = Value::of(std::exchange(out_, std::move(outer)));
        if (const JinjaExpressionPtr& filters = statement.expressions[0]) {
            frames_.emplace_back();
            define("", std::move(value));
            value = evaluate(*filters);
            frames_.pop_back();
        }
        define(statement.names[0], std::move(value));
        return flow;
    }

    /// A namespace in a list could hold itself.
    static void require_storable(const Value& value) {
        if (value.name_space() != nullptr) throw JinjaFault{"a namespace within another value is not supported"};
        const Value* self = value.function() != nullptr ? value.function()->self.get() : nullptr;
        if (self != nullptr) throw JinjaFault{"a method as a value is not supported"};
        if (value.depth() >= kDeepestJinja) throw JinjaFault{"lists are nested deeper than is allowed"};
    }

    Value evaluate(const Expression& expression) {
        try {
            spend(kUnitsPerNode);
            return value_of(expression);
        } catch (const JinjaFault& fault) {
            refuse_template(name_, expression.line, fault.what);
        }
    }

    Value value_of(const Expression& expression) {
        const auto part = [&](size_t i) { return evaluate(*expression.parts[i]); };
        switch (expression.kind) {
            case Expression::Kind::Literal: return expression.value;
            case Expression::Kind::Name: return look_up(expression.text);
            case Expression::Kind::List: return list_of(expression);
            case Expression::Kind::Dict: return dict_of(expression);
            case Expression::Kind::Attribute:
                return jinja_member(part(0), Value::of(expression.text), /*is_attribute=*/true, *this);
            case Expression::Kind::Index: {
                const Value value = part(0);
                return jinja_member(value, part(1), /*is_attribute=*/false, *this);
            }
            case Expression::Kind::Slice: return slice_of(expression);
            case Expression::Kind::Call: return called(expression);
            case Expression::Kind::Filter: {
                const Value value = part(0);
                return apply_jinja_filter(expression.text, value, arguments_of(expression), *this);
            }
            case Expression::Kind::Test: {
                const Value value = part(0);
                return Value::of(apply_jinja_test(expression.text, value, arguments_of(expression), *this));
            }
            case Expression::Kind::Minus: return negative(part(0));
            case Expression::Kind::Plus: return jinja_binary("+", Value::of(int64_t{0}), part(0), *this);
            case Expression::Kind::Not: return Value::of(!part(0).truth());
            case Expression::Kind::And: {
                Value left = part(0);
                return left.truth() ? part(1) : left;
            }
            case Expression::Kind::Or: {
                Value left = part(0);
                return left.truth() ? left : part(1);
            }
            case Expression::Kind::Binary: {
                const Value left = part(0);
                return jinja_binary(expression.text, left, part(1), *this);
            }
            case Expression::Kind::Compare: return compared(expression);
            case Expression::Kind::Conditional:
                if (part(1).truth()) return part(0);
                return expression.parts[2] == nullptr ? Value::undefined("else") : part(2);
        }
        return {};
    }

    Value negative(const Value& value) {
        if (value.real() != nullptr) return Value::of(-*value.real());
        return jinja_binary("-", Value::of(int64_t{0}), value, *this);
    }

    Value list_of(const Expression& expression) {
        std::vector<Value> items;
        for (const JinjaExpressionPtr& part : expression.parts) {
            items.push_back(evaluate(*part));
            require_storable(items.back());
        }
        return Value::of(std::move(items));
    }

    Value dict_of(const Expression& expression) {
        JinjaMap map;
        for (size_t i = 0; i < expression.parts.size(); i += 2) {
            const Value key = evaluate(*expression.parts[i]);
            if (key.text() == nullptr) throw JinjaFault{"a key that is " + key.kind() + " is not supported"};
            Value value = evaluate(*expression.parts[i + 1]);
            require_storable(value);
            map.set(key.text()->bytes, std::move(value));
        }
        return Value::of(std::move(map));
    }

    Value slice_of(const Expression& expression) {
        const Value value = evaluate(*expression.parts[0]);
        std::optional<int64_t> bounds[3];
        for (size_t i = 0; i < 3; ++i) {
            const JinjaExpressionPtr& part = expression.parts[i + 1];
            const Value bound = part == nullptr ? Value() : evaluate(*part);
            int64_t number = 0;
            if (bound.whole(&number)) bounds[i] = number;
            if (!bounds[i] && !bound.is_none()) throw JinjaFault{"a slice wants whole numbers, not " + bound.kind()};
        }
        const auto given = [&](size_t i) { return bounds[i] ? &*bounds[i] : nullptr; };
        return jinja_slice(value, given(0), given(1), given(2), *this);
    }

    /// Those behind parts[0].
    JinjaArguments arguments_of(const Expression& expression) {
        JinjaArguments arguments;
        const size_t positional = expression.parts.size() - expression.names.size();
        for (size_t i = 1; i < expression.parts.size(); ++i) {
            Value value = evaluate(*expression.parts[i]);
            require_storable(value);
            if (i < positional) {
                arguments.positional.push_back(std::move(value));
            } else {
                arguments.named.emplace_back(expression.names[i - positional], std::move(value));
            }
        }
        return arguments;
    }

    Value called(const Expression& expression) {
        const Value target = evaluate(*expression.parts[0]);
        const JinjaFunction* function = target.function();
        if (function == nullptr) {
            throw JinjaFault{target.is_undefined()
                                 ? fmt::format("'{}()' is not supported, or not defined", target.missing()->name)
                                 : target.kind() + " cannot be called"};
        }
        const JinjaArguments arguments = arguments_of(expression);
        return function->self == nullptr ? call_jinja_function(function->name, arguments, *this)
                                         : call_jinja_method(function->name, *function->self, arguments, *this);
    }

    Value compared(const Expression& expression) {
        Value left = evaluate(*expression.parts[0]);
        for (size_t i = 0; i < expression.names.size(); ++i) {
            Value right = evaluate(*expression.parts[i + 1]);
            if (!jinja_compare(expression.names[i], left, right, *this)) return Value::of(false);
            left = std::move(right);
        }
        return Value::of(true);
    }

    const std::string& name_;
    const JinjaMap& context_;
    size_t left_ = kUnits;
    JinjaText out_;
    std::vector<std::pair<size_t, size_t>> generations_;
    std::vector<Frame> frames_;
};

}  // namespace

JinjaTemplate::JinjaTemplate(std::string_view source, std::string name) : name_(std::move(name)) {
    constexpr size_t kLargest = size_t{1} << 20;
    if (source.size() > kLargest) {
        fail("chat template {}: it has {} bytes, and a template has at most {}; name another file", name_,
             source.size(), kLargest);
    }
    if (valid_utf8_prefix(source) != source.size()) {
        fail("chat template {}: it is not UTF-8; name another file", name_);
    }
    body_ = parse_jinja(source, name_);
    has_generation_ = any_generation(body_);
}

JinjaRendered JinjaTemplate::render(const JinjaMap& context) const { return Run(name_, context).render(body_); }

}  // namespace llmc
