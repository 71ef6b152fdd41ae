// Python's operators, for builtins.h.
#include "llmc/io/jinja/builtins.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

using Value = JinjaValue;

[[noreturn]] void mismatch(const std::string& sign, const Value& left, const Value& right) {
    throw JinjaFault{fmt::format("'{}' cannot be done with {} and {}", sign, left.kind(), right.kind())};
}

[[noreturn]] void overflow() { throw JinjaFault{"a number is too large"}; }

int64_t floor_quotient(int64_t a, int64_t b) {
    const int64_t quotient = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value of_power(int64_t base, int64_t exponent) {
    int64_t result = 1;
    if (exponent < 0) return Value::of(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
    if (base == 0 || base == 1) return Value::of(exponent == 0 ? int64_t{1} : base);
    if (base == -1) return Value::of(exponent % 2 == 0 ? int64_t{1} : int64_t{-1});
    for (int64_t i = 0; i < exponent; ++i) {
        if (__builtin_mul_overflow(result, base, &result)) overflow();
    }
    return Value::of(result);
}

Value of_whole(const std::string& sign, int64_t a, int64_t b) {
    int64_t result = 0;
    if (sign == "+" && __builtin_add_overflow(a, b, &result)) overflow();
    if (sign == "-" && __builtin_sub_overflow(a, b, &result)) overflow();
    if (sign == "*" && __builtin_mul_overflow(a, b, &result)) overflow();
    if (sign == "+" || sign == "-" || sign == "*") return Value::of(result);
    if (sign == "**") return of_power(a, b);
    if (b == 0) throw JinjaFault{"division by zero"};
    if (sign == "/") return Value::of(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {
        if (sign == "%") return Value::of(int64_t{0});
        if (__builtin_sub_overflow(int64_t{0}, a, &result)) overflow();
        return Value::of(result);
    }
    const int64_t quotient = floor_quotient(a, b);
    return Value::of(sign == "//" ? quotient : a - quotient * b);
}

Value of_real(const std::string& sign, double a, double b) {
    if (sign == "+") return Value::of(a + b);
    if (sign == "-") return Value::of(a - b);
    if (sign == "*") return Value::of(a * b);
    if (sign == "**") return Value::of(std::pow(a, b));
    if (b == 0) throw JinjaFault{"division by zero"};
    if (sign == "/") return Value::of(a / b);
    return sign == "//" ? Value::of(std::floor(a / b)) : Value::of(a - std::floor(a / b) * b);
}

Value repeated(const Value& value, int64_t times, JinjaWork& work) {
    const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
    const size_t size =
        value.text() != nullptr ? value.text()->bytes.size() + 1 : sizeof(Value) * (value.list()->items.size() + 1);
    if (count > (size_t{1} << 32) / size) throw JinjaFault{"a text or list becomes too long"};
    work.spend(size * count);
    if (value.text() != nullptr) {
        JinjaText text;
        for (size_t i = 0; i < count; ++i) text.append(*value.text());
        return Value::of(std::move(text));
    }
    std::vector<Value> items;
    for (size_t i = 0; i < count; ++i) {
        items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
    }
    return Value::of(std::move(items));
}

/// -1, 0 or 1; anything else has no order.
int order(const std::string& sign, const Value& left, const Value& right, JinjaWork& work) {
    const auto sign_of = [](auto a, auto b) { return a < b ? -1 : a > b ? 1 : 0; };
    if (left.integer() != nullptr && right.integer() != nullptr) return sign_of(*left.integer(), *right.integer());
    if (left.is_number() && right.is_number()) return sign_of(left.number(), right.number());
    if (left.text() != nullptr && right.text() != nullptr) return sign_of(left.text()->bytes, right.text()->bytes);
    if (left.list() == nullptr || right.list() == nullptr) mismatch(sign, left, right);
    const auto &a = left.list()->items, &b = right.list()->items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        if (!equal(a[i], b[i], work)) return order(sign, a[i], b[i], work);
    }
    return sign_of(a.size(), b.size());
}

bool is_in(const Value& left, const Value& right, JinjaWork& work) {
    if (right.text() != nullptr) {
        if (left.text() == nullptr) mismatch("in", left, right);
        work.spend(right.text()->bytes.size());
        return right.text()->bytes.find(left.text()->bytes) != std::string::npos;
    }
    if (right.map() != nullptr && !right.map()->is_namespace) {
        work.spend(right.map()->items.size());
        return left.text() != nullptr && right.map()->find(left.text()->bytes) != nullptr;
    }
    if (right.is_undefined()) return false;
    if (right.list() == nullptr) mismatch("in", left, right);
    return std::any_of(right.list()->items.begin(), right.list()->items.end(),
                       [&](const Value& item) { return equal(left, item, work); });
}

}  // namespace

Value jinja_binary(const std::string& sign, const Value& left, const Value& right, JinjaWork& work) {
    if (sign == "~") {
        JinjaText text = written(left, work);
        text.append(written(right, work));
        return Value::of(std::move(text));
    }
    if (left.is_undefined()) throw JinjaFault{fmt::format("'{}' is undefined", left.missing()->name)};
    if (right.is_undefined()) throw JinjaFault{fmt::format("'{}' is undefined", right.missing()->name)};
    int64_t a = 0, b = 0;
    const bool a_whole = left.whole(&a), b_whole = right.whole(&b);
    if (a_whole && b_whole) return of_whole(sign, a, b);
    if (left.is_number() && right.is_number()) return of_real(sign, left.number(), right.number());
    if (sign == "+" && left.text() != nullptr && right.text() != nullptr) {
        work.spend(left.text()->bytes.size() + right.text()->bytes.size());
        JinjaText text = *left.text();
        text.append(*right.text());
        return Value::of(std::move(text));
    }
    if (sign == "+" && left.list() != nullptr && right.list() != nullptr) {
        std::vector<Value> items = left.list()->items;
        items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
        work.spend(items.size() * sizeof(Value));
        return Value::of(std::move(items));
    }
    const bool can_repeat = left.text() != nullptr || left.list() != nullptr;
    if (sign == "*" && can_repeat && b_whole) return repeated(left, b, work);
    if (sign == "*" && a_whole && (right.text() != nullptr || right.list() != nullptr)) return repeated(right, a, work);
    mismatch(sign, left, right);
}

bool jinja_compare(const std::string& sign, const Value& left, const Value& right, JinjaWork& work) {
    if (sign == "==") return equal(left, right, work);
    if (sign == "!=") return !equal(left, right, work);
    if (sign == "in") return is_in(left, right, work);
    if (sign == "not in") return !is_in(left, right, work);
    const int found = order(sign, left, right, work);
    if (sign == "<") return found < 0;
    if (sign == "<=") return found <= 0;
    return sign == ">" ? found > 0 : found >= 0;
}

}  // namespace llmc
