#include "llmc/draw/page_chart.h"

#include "llmc/base/printable.h"
#include "llmc/draw/chart.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace llmc {
namespace {

constexpr double kWidth = 560, kHeight = 280, kLeft = 62, kRight = 12, kTop = 10, kBottom = 30;
constexpr double kHalfLabel = 20;  ///< Of a step's number, on a phone.
constexpr size_t kBuckets = 600;
constexpr double kLogarithmicSpan = 20;

struct Range {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    void take(double value) { low = std::min(low, value), high = std::max(high, value); }
    bool is_empty() const { return low > high; }
};

/// "3.1e-05", "0.25", "1.2M", without the noise of a binary fraction.
std::string number_words(double value) {
    const double size = std::abs(value);
    if (size >= 1e3 && size < 1e15) {
        for (const auto& [unit, letter] : {std::pair(1e9, "G"), std::pair(1e6, "M"), std::pair(1e3, "k")}) {
            if (size >= unit) return fmt::format("{:g}{}", value / unit, letter);
        }
    }
    return fmt::format("{:g}", value);
}

class Drawing {
  public:
    explicit Drawing(const PageChart& chart) : chart_(chart) {
        for (const PageCurve& curve : chart.curves) {
            for (size_t i = 0; i < curve.series.size(); ++i) {
                if (!std::isfinite(curve.series.y[i])) continue;
                x_.take(curve.series.x[i]), y_.take(curve.series.y[i]);
            }
        }
        if (y_.is_empty()) return;
        is_log_ = chart.may_be_log && y_.low > 0 && y_.high > kLogarithmicSpan * y_.low;
        if (x_.high == x_.low) x_.low -= 1, x_.high += 1;
        const double margin = is_log_ ? 0 : 0.04 * (y_.high - y_.low);
        y_.low -= margin, y_.high += margin;
        if (y_.high == y_.low) {
            const double room = y_.low == 0 ? 1 : 0.1 * std::abs(y_.low);
            y_.low -= room, y_.high += room;
        }
    }

    std::string run() const {
        if (y_.is_empty()) return "";
        std::string text = fmt::format(
            "<figure class=\"chart\"><figcaption>{}{}</figcaption>\n"
            "<svg viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\" data-left=\"{:g}\" data-right=\"{:g}\" "
            "data-top=\"{:g}\" data-bottom=\"{:g}\" data-x0=\"{:.17g}\" data-x1=\"{:.17g}\" data-y0=\"{:.17g}\" "
            "data-y1=\"{:.17g}\" data-log=\"{}\">\n",
            html_text(chart_.title),
            chart_.unit.empty() ? "" : fmt::format(" <small>{}</small>", html_text(chart_.unit)), kWidth, kHeight,
            html_text(chart_.title), kLeft, kWidth - kRight, kTop, kHeight - kBottom, x_.low, x_.high, y_.low, y_.high,
            is_log_ ? 1 : 0);
        text += axes();
        for (const PageCurve& curve : chart_.curves) text += drawn(curve);
        return text + fmt::format("<line class=\"cursor\" y1=\"{:g}\" y2=\"{:g}\"/></svg></figure>\n", kTop,
                                  kHeight - kBottom);
    }

  private:
    double x(double value) const { return kLeft + (kWidth - kLeft - kRight) * (value - x_.low) / (x_.high - x_.low); }
    double y(double value) const {
        const double share =
            is_log_ ? std::log(value / y_.low) / std::log(y_.high / y_.low) : (value - y_.low) / (y_.high - y_.low);
        return kHeight - kBottom - (kHeight - kTop - kBottom) * share;
    }

    std::string axes() const {
        std::string text = "<g class=\"axes\">";
        constexpr int kMostRows = 6, kMostColumns = 7;
        for (const double tick :
             is_log_ ? log_ticks(y_.low, y_.high, kMostRows) : linear_ticks(y_.low, y_.high, kMostRows)) {
            text += fmt::format(
                "<line x1=\"{:g}\" x2=\"{:g}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text x=\"{:g}\" y=\"{:.1f}\" "
                "text-anchor=\"end\">{}</text>",
                kLeft, kWidth - kRight, y(tick), y(tick), kLeft - 6, y(tick) + 4, number_words(tick));
        }
        for (const double tick : linear_ticks(x_.low, x_.high, kMostColumns)) {
            const bool is_at_edge = x(tick) > kWidth - kRight - kHalfLabel;
            text +=
                fmt::format("<text x=\"{:.1f}\" y=\"{:g}\" text-anchor=\"{}\">{}</text>", is_at_edge ? kWidth : x(tick),
                            kHeight - kBottom + 18, is_at_edge ? "end" : "middle", number_words(tick));
        }
        return text + "</g>\n";
    }

    /// One <path>, which has a new beginning after every gap.
    std::string drawn(const PageCurve& curve) const {
        const Series series = curve.has_dots ? curve.series : thinned(curve.series, kBuckets);
        std::string path, dots;
        bool is_down = false;
        for (size_t i = 0; i < series.size(); ++i) {
            if (!std::isfinite(series.y[i])) {
                is_down = false;
                continue;
            }
            const double at = x(series.x[i]), height = y(series.y[i]);
            fmt::format_to(std::back_inserter(path), "{}{:.1f} {:.1f}", is_down ? "L" : "M", at, height);
            if (curve.has_dots) {
                fmt::format_to(std::back_inserter(dots), "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>", at, height);
            }
            is_down = true;
        }
        return fmt::format("<g class=\"run r{} c{}{}\" data-run=\"{}\" data-words=\"{}\"><path d=\"{}\"/>{}</g>\n",
                           curve.run, curve.run % 8, curve.is_dashed ? " dashed" : "", curve.run,
                           html_text(curve.words), path, dots);
    }

    const PageChart& chart_;
    Range x_, y_;
    bool is_log_ = false;
};

}  // namespace

std::string page_chart(const PageChart& chart) { return Drawing(chart).run(); }

std::string html_text(std::string_view text) {
    std::string escaped;
    for (const char c : printable(text)) {
        switch (c) {
            case '&': escaped += "&amp;"; break;
            case '<': escaped += "&lt;"; break;
            case '>': escaped += "&gt;"; break;
            case '"': escaped += "&quot;"; break;
            case '\'': escaped += "&#39;"; break;
            default: escaped += c;
        }
    }
    return escaped;
}

}  // namespace llmc
