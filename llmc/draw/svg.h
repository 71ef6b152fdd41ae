// A picture as SVG text: lines, filled shapes, markers and words on a white canvas, in pixels from the upper left
// corner. Fills may be hatched, so that a picture can be read without its colours. chart.h puts axes and a legend on
// it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// In every picture near its beginning, by which a picture of ours is known.
constexpr std::string_view kSvgMark = "<metadata>train_gpt</metadata>";

struct SvgPoint {
    double x = 0, y = 0;
};

struct SvgBox {
    double x = 0, y = 0, width = 0, height = 0;
    double right() const { return x + width; }
    double bottom() const { return y + height; }
    bool overlaps(const SvgBox& other) const {
        return x < other.right() && other.x < right() && y < other.bottom() && other.y < bottom();
    }
};

/// "none" for no line or no fill.
struct SvgStyle {
    std::string stroke = "none";
    double width = 1;
    std::string dashes = "";  ///< Lengths of strokes and gaps, "6 3"; empty: solid.
    std::string fill = "none";
};

enum class SvgHatch : uint8_t { None, Rising, Falling, Crossed, Level, Dots };
enum class SvgMarker : uint8_t { Dot, Square, Pointer };  ///< Pointer: a triangle that stands on its tip.
enum class SvgAnchor : uint8_t { Start, Middle, End };

struct SvgFont {
    double size = 12;
    SvgAnchor anchor = SvgAnchor::Start;
    bool bold = false;
    bool upwards = false;  ///< Turned, read from the bottom to the top.
};

class SvgCanvas {
  public:
    /// `title` is for those who cannot see the picture; it is not drawn.
    SvgCanvas(double width, double height, std::string_view title);

    double width() const { return width_; }
    double height() const { return height_; }

    void polyline(const std::vector<SvgPoint>& points, const SvgStyle& style) { path(points, style, false); }
    void polygon(const std::vector<SvgPoint>& points, const SvgStyle& style) { path(points, style, true); }
    void line(SvgPoint from, SvgPoint to, const SvgStyle& style) { path({from, to}, style, false); }
    void rectangle(const SvgBox& box, const SvgStyle& style);
    void marker(SvgMarker kind, SvgPoint at, double size, const SvgStyle& style);
    /// Words on a white rim, with their baseline at `at`.
    void text(SvgPoint at, std::string_view words, const SvgFont& font = {});

    /// A fill for SvgStyle: `ink` strokes on `paper`.
    std::string hatched(SvgHatch hatch, const std::string& paper, const std::string& ink);

    /// What is drawn between the two shows inside the box only.
    void begin_clip(const SvgBox& box);
    void end_clip();

    std::string finish() const;

  private:
    void path(const std::vector<SvgPoint>& points, const SvgStyle& style, bool closed);

    double width_, height_;
    int definitions_ = 0;
    std::string head_, body_;
};

/// Width of a line of text, from above: the font is the viewer's.
double svg_text_width(std::string_view words, double size);

}  // namespace llmc
