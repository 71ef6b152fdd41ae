#include "llmc/draw/svg.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

namespace llmc {
namespace {

constexpr const char* kFont = "Helvetica, Arial, 'DejaVu Sans', sans-serif";

/// To a tenth of a pixel, as short as it can be written.
double rounded(double pixels) { return std::round(pixels * 10) / 10; }
std::string number(double pixels) {
    return fmt::format("{:g}", rounded(pixels) + 0.0);  // No "-0".
}

std::string escaped(std::string_view words) {
    std::string text;
    for (const char letter : words) {
        switch (letter) {
            case '&': text += "&amp;"; break;
            case '<': text += "&lt;"; break;
            case '>': text += "&gt;"; break;
            case '"': text += "&quot;"; break;
            default: text += letter;
        }
    }
    return text;
}

std::string attributes(const SvgStyle& style) {
    std::string text = fmt::format(R"( fill="{}")", style.fill);
    if (style.stroke == "none") return text;
    text += fmt::format(R"( stroke="{}" stroke-width="{}")", style.stroke, number(style.width));
    if (!style.dashes.empty()) text += fmt::format(R"( stroke-dasharray="{}")", style.dashes);
    return text;
}

/// The strokes of one tile of 8 x 8 pixels.
const char* strokes(SvgHatch hatch) {
    switch (hatch) {
        case SvgHatch::None: return "";
        case SvgHatch::Rising: return "M-2 2L2 -2M0 8L8 0M6 10L10 6";
        case SvgHatch::Falling: return "M-2 6L2 10M0 0L8 8M6 -2L10 2";
        case SvgHatch::Crossed: return "M0 8L8 0M0 0L8 8";
        case SvgHatch::Level: return "M0 2H8M0 6H8";
        case SvgHatch::Dots: return "M1 2h2M5 6h2";
    }
    return "";
}

}  // namespace

SvgCanvas::SvgCanvas(double width, double height, std::string_view title) : width_(width), height_(height) {
    head_ = fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}")",
                        number(width), number(height));
    head_ += fmt::format(" font-family=\"{}\" stroke-linejoin=\"round\">\n<title>{}</title>\n{}\n", kFont,
                         escaped(title), kSvgMark);
    rectangle({0, 0, width, height}, {.fill = "white"});
}

void SvgCanvas::rectangle(const SvgBox& box, const SvgStyle& style) {
    body_ += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}/>\n", number(box.x), number(box.y),
                         number(box.width), number(box.height), attributes(style));
}

void SvgCanvas::marker(SvgMarker kind, SvgPoint at, double size, const SvgStyle& style) {
    const double half = size / 2;
    switch (kind) {
        case SvgMarker::Dot:
            body_ += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"{}\"{}/>\n", number(at.x), number(at.y), number(half),
                                 attributes(style));
            return;
        case SvgMarker::Square: return rectangle({at.x - half, at.y - half, size, size}, style);
        case SvgMarker::Pointer: return polygon({at, {at.x - half, at.y - size}, {at.x + half, at.y - size}}, style);
    }
}

void SvgCanvas::text(SvgPoint at, std::string_view words, const SvgFont& font) {
    constexpr const char* kAnchors[] = {"start", "middle", "end"};
    std::string how = fmt::format("x=\"{}\" y=\"{}\" font-size=\"{}\" text-anchor=\"{}\"", number(at.x), number(at.y),
                                  number(font.size), kAnchors[static_cast<int>(font.anchor)]);
    if (font.bold) how += " font-weight=\"bold\"";
    if (font.upwards) how += fmt::format(" transform=\"rotate(-90 {} {})\"", number(at.x), number(at.y));
    for (const char* paint : {R"(fill="none" stroke="white" stroke-width="3")", R"(fill="#111")"}) {
        body_ += fmt::format("<text {} {}>{}</text>\n", how, paint, escaped(words));
    }
}

std::string SvgCanvas::hatched(SvgHatch hatch, const std::string& paper, const std::string& ink) {
    if (hatch == SvgHatch::None) return paper;
    const int id = ++definitions_;
    head_ += fmt::format(
        "<pattern id=\"hatch{}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><rect width=\"8\" "
        "height=\"8\" fill=\"{}\"/><path d=\"{}\" stroke=\"{}\" stroke-width=\"{}\"/></pattern>\n",
        id, paper, strokes(hatch), ink, hatch == SvgHatch::Dots ? 2 : 1);
    return fmt::format("url(#hatch{})", id);
}

void SvgCanvas::begin_clip(const SvgBox& box) {
    const int id = ++definitions_;
    head_ += fmt::format("<clipPath id=\"clip{}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
                         id, number(box.x), number(box.y), number(box.width), number(box.height));
    body_ += fmt::format("<g clip-path=\"url(#clip{})\">\n", id);
}

void SvgCanvas::end_clip() { body_ += "</g>\n"; }

std::string SvgCanvas::finish() const { return head_ + body_ + "</svg>\n"; }

/// Stairs of thousands of steps are common: what does not move is left out, and level and upright strokes are short.
void SvgCanvas::path(const std::vector<SvgPoint>& points, const SvgStyle& style, bool closed) {
    if (points.empty()) return;
    SvgPoint last = {rounded(points[0].x), rounded(points[0].y)};
    std::string strokes = fmt::format("M{} {}", number(last.x), number(last.y));
    for (const SvgPoint& point : points) {
        const SvgPoint next = {rounded(point.x), rounded(point.y)};
        if (next.x == last.x && next.y == last.y) continue;
        if (next.y == last.y) {
            strokes += "H" + number(next.x);
        } else if (next.x == last.x) {
            strokes += "V" + number(next.y);
        } else {
            strokes += fmt::format("L{} {}", number(next.x), number(next.y));
        }
        last = next;
    }
    body_ += fmt::format("<path d=\"{}{}\"{}/>\n", strokes, closed ? "Z" : "", attributes(style));
}

double svg_text_width(std::string_view words, double size) { return 0.6 * size * static_cast<double>(words.size()); }

}  // namespace llmc
