#include "llmc/draw/svg.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace llmc {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

size_t count(const std::string& text, const std::string& part) {
    size_t found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
}

TEST(Svg, IsADocumentOnWhite) {
    const std::string svg = SvgCanvas(300, 200.25, "a < b & \"c\"").finish();
    EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"300\" height=\"200.3\"")) << svg;
    EXPECT_TRUE(contains(svg, "<title>a &lt; b &amp; &quot;c&quot;</title>"));
    EXPECT_TRUE(contains(svg, "<rect x=\"0\" y=\"0\" width=\"300\" height=\"200.3\" fill=\"white\"/>"));
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

TEST(Svg, StairsAreShort) {
    SvgCanvas canvas(100, 100, "");
    canvas.polyline({{0, 10}, {5, 10}, {5, 20}, {5.01, 20.01}, {9, 24}}, {.stroke = "black"});
    EXPECT_TRUE(contains(canvas.finish(), "<path d=\"M0 10H5V20L9 24\" fill=\"none\" stroke=\"black\""));
    canvas.polygon({{1, 1}, {2, 1}, {2, 2}}, {.fill = "red"});
    EXPECT_TRUE(contains(canvas.finish(), "<path d=\"M1 1H2V2Z\" fill=\"red\"/>"));
    const std::string before = canvas.finish();
    canvas.polyline({}, {.stroke = "black"});
    EXPECT_EQ(canvas.finish(), before);
}

TEST(Svg, DefinitionsComeBeforeTheirUse) {
    SvgCanvas canvas(100, 100, "");
    const std::string first = canvas.hatched(SvgHatch::Rising, "white", "black");
    const std::string second = canvas.hatched(SvgHatch::Dots, "white", "black");
    EXPECT_NE(first, second);
    EXPECT_EQ(canvas.hatched(SvgHatch::None, "#123", "black"), "#123");
    canvas.begin_clip({0, 0, 10, 10});
    canvas.rectangle({1, 2, 3, 4}, {.fill = first});
    canvas.end_clip();
    const std::string svg = canvas.finish();
    EXPECT_EQ(count(svg, "<pattern"), 2u);
    EXPECT_LT(svg.rfind("<pattern"), svg.find("<rect x=\"1\""));
    EXPECT_LT(svg.find("<clipPath"), svg.find("<g clip-path"));
    EXPECT_EQ(count(svg, "<g "), count(svg, "</g>"));
}

TEST(Svg, WordsAreEscapedAndTurned) {
    SvgCanvas canvas(100, 100, "");
    canvas.text({10, 20}, "x<y", {.size = 9, .anchor = SvgAnchor::End, .bold = true, .upwards = true});
    const std::string svg = canvas.finish();
    EXPECT_TRUE(contains(svg, "text-anchor=\"end\" font-weight=\"bold\" transform=\"rotate(-90 10 20)\"")) << svg;
    EXPECT_EQ(count(svg, ">x&lt;y</text>"), 2u);  // The rim and the letters.
}

TEST(Svg, BoxesKnowWhenTheyOverlap) {
    const SvgBox box = {0, 0, 10, 10};
    EXPECT_TRUE(box.overlaps({9, 9, 5, 5}));
    EXPECT_FALSE(box.overlaps({10, 0, 5, 5}));
    EXPECT_FALSE(box.overlaps({0, 10, 5, 5}));
}

}  // namespace
}  // namespace llmc
