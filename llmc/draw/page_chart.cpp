#include "llmc/draw/page_chart.h"

#include "llmc/base/printable.h"
#include "llmc/draw/chart.h"
#include "llmc/draw/page_axis.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace llmc {
namespace {

constexpr double kWidth = 560, kHeight = 280, kLeft = 62, kRight = 12, kTop = 10, kBottom = 30;
constexpr double kHalfLabel = 20;  ///< Of a step's number, on a phone.
constexpr size_t kBuckets = 600, kMeans = 100;
constexpr double kLogarithmicSpan = 20;
constexpr int kMostColumns = 7;

struct Range {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    void take(double value) { low = std::min(low, value), high = std::max(high, value); }
    void take(const Range& other) { low = std::min(low, other.low), high = std::max(high, other.high); }
    bool is_empty() const { return low > high; }
};

/// Where a curve has values.
struct Extent {
    Range x, y;
};

Extent extent_of(const Series& series) {
    Extent extent;
    for (size_t i = 0; i < series.size(); ++i) {
        if (std::isfinite(series.y[i])) extent.x.take(series.x[i]), extent.y.take(series.y[i]);
    }
    return extent;
}

class Drawing {
  public:
    explicit Drawing(const PageChart& chart) : chart_(chart) {
        Extent all;
        for (const PageCurve& curve : chart.curves) {
            extents_.push_back(extent_of(curve.series));
            all.x.take(extents_.back().x), all.y.take(extents_.back().y);
        }
        if (all.y.is_empty()) return;
        is_log_ = chart.may_be_log && all.y.low > 0 && all.y.high > kLogarithmicSpan * all.y.low;
        y_ = is_log_ ? logarithmic_axis(std::log10(all.y.low), std::log10(all.y.high))
                     : linear_axis(all.y.low, all.y.high);
        x_ = all.x;
        if (x_.high == x_.low) x_.low -= 1, x_.high += 1;
    }

    std::string run() const {
        if (x_.is_empty()) return "";
        std::string text = fmt::format(
            "<figure class=\"chart\"><figcaption>{} <small>{}</small></figcaption>\n"
            "<svg viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\" data-left=\"{:g}\" data-right=\"{:g}\" "
            "data-top=\"{:g}\" data-bottom=\"{:g}\" data-log=\"{}\">\n",
            html_text(chart_.title), html_text(caption()), kWidth, kHeight, html_text(chart_.title), kLeft,
            kWidth - kRight, kTop, kHeight - kBottom, is_log_ ? 1 : 0);
        text += axes();
        for (size_t i = 0; i < extents_.size(); ++i) {
            if (!extents_[i].y.is_empty()) text += drawn(chart_.curves[i], extents_[i]);
        }
        return text +
               fmt::format(
                   "<text class=\"none\" x=\"{:g}\" y=\"{:g}\" text-anchor=\"middle\">all runs with "
                   "this are switched off</text><line class=\"cursor\" y1=\"{:g}\" y2=\"{:g}\"/></svg></figure>\n",
                   kWidth / 2, kHeight / 2, kTop, kHeight - kBottom);
    }

  private:
    double scaled(double value) const { return is_log_ ? std::log10(value) : value; }
    double x(double value) const { return kLeft + (kWidth - kLeft - kRight) * (value - x_.low) / (x_.high - x_.low); }
    /// Of a scaled value.
    double y(double value) const {
        return kHeight - kBottom - (kHeight - kTop - kBottom) * (value - y_.low) / (y_.high - y_.low);
    }

    static bool has_means(const PageCurve& curve) { return curve.is_noisy && curve.series.size() > kBuckets; }

    std::string caption() const {
        std::string text = chart_.unit;
        const auto add = [&](const std::string& words) { text += (text.empty() ? "" : "; ") + words; };
        if (is_log_) add("logarithmic axis");
        if (std::any_of(chart_.curves.begin(), chart_.curves.end(), has_means)) {
            add(fmt::format("line: means of every 1/{} of a long run; band: all its values", kMeans));
        }
        return text;
    }

    std::string axes() const {
        std::string text = "<g class=\"axes\">";
        for (const double tick : y_.ticks) {
            text += fmt::format(
                "<line x1=\"{:g}\" x2=\"{:g}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text x=\"{:g}\" y=\"{:.1f}\" "
                "text-anchor=\"end\">{}</text>",
                kLeft, kWidth - kRight, y(tick), y(tick), kLeft - 6, y(tick) + 4,
                number_words(is_log_ ? std::pow(10, tick) : tick));
        }
        for (const double tick : linear_ticks(x_.low, x_.high, kMostColumns)) {
            const bool is_at_edge = x(tick) > kWidth - kRight - kHalfLabel;
            text +=
                fmt::format("<text x=\"{:.1f}\" y=\"{:g}\" text-anchor=\"{}\">{}</text>", is_at_edge ? kWidth : x(tick),
                            kHeight - kBottom + 18, is_at_edge ? "end" : "middle", number_words(tick));
        }
        return text + "</g>\n";
    }

    /// The d of a <path> that has a new beginning after every gap; `stroke` follows every point.
    std::string path(const Series& series, double low, double span, const char* stroke) const {
        std::string text;
        bool is_down = false;
        for (size_t i = 0; i < series.size(); ++i) {
            const bool is_gap = !std::isfinite(series.y[i]);
            if (!is_gap) {
                fmt::format_to(std::back_inserter(text), "{}{:.0f} {:.0f}{}", is_down ? "L" : "M", series.x[i],
                               kCurveHeight * (scaled(series.y[i]) - low) / span, stroke);
            }
            is_down = !is_gap && *stroke == 0;
        }
        return text;
    }

    std::string drawn(const PageCurve& curve, const Extent& extent) const {
        const double low = scaled(extent.y.low), high = scaled(extent.y.high), span = high > low ? high - low : 1;
        const bool is_band = has_means(curve);
        std::string text = fmt::format(
            "<g class=\"run r{0} c{1}{2}\" data-run=\"{0}\" data-words=\"{3}\" data-first=\"{4:.0f}\" "
            "data-last=\"{5:.0f}\" data-low=\"{6:.17g}\" data-high=\"{7:.17g}\" "
            "transform=\"matrix({8:.9g} 0 0 {9:.9g} {10:.9g} {11:.9g})\">",
            curve.run, curve.run % 8, curve.is_dashed ? " dashed" : "", html_text(curve.words), extent.x.low,
            extent.x.high, low, high, x(1) - x(0), (y(span) - y(0)) / kCurveHeight, x(0), y(low));
        text += fmt::format("<path class=\"{}\" d=\"{}\"/>", is_band ? "band" : "line",
                            path(curve.has_dots ? curve.series : thinned(curve.series, kBuckets), low, span, ""));
        if (is_band) {
            text +=
                fmt::format("<path class=\"mean\" d=\"{}\"/>", path(bucket_means(curve.series, kMeans), low, span, ""));
        }
        if (curve.has_dots) {
            text += fmt::format("<path class=\"dots\" d=\"{}\"/>", path(curve.series, low, span, "h0"));
        }
        return text + "</g>\n";
    }

    const PageChart& chart_;
    std::vector<Extent> extents_;
    Range x_;
    PageAxis y_;
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
