// The page of runs: thinning that loses no extreme, charts, what is escaped, size.
#include "llmc/draw/page_chart.h"
#include "llmc/draw/run_page.h"
#include "llmc/draw/series.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace llmc {
namespace {

const double kNaN = std::numeric_limits<double>::quiet_NaN();

size_t count(const std::string& text, const std::string& part) {
    size_t found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
}

TEST(Series, ThinnedKeepsEveryExtremeAndTheEnds) {
    Series all;
    for (int step = 1; step <= 100'000; ++step) {
        const bool is_spike = step % 9973 == 0;
        all.add(step, is_spike ? 50 + step * 1e-5 : std::sin(step * 0.37));
    }
    all.y[777] = -80;
    const Series some = thinned(all, 300);
    EXPECT_LE(some.size(), 5 * 300u);
    EXPECT_EQ(some.x.front(), 1);
    EXPECT_EQ(some.x.back(), 100'000);
    EXPECT_TRUE(std::is_sorted(some.x.begin(), some.x.end()));
    EXPECT_EQ(*std::min_element(some.y.begin(), some.y.end()), -80);
    EXPECT_EQ(std::count_if(some.y.begin(), some.y.end(), [](double y) { return y > 50; }), 100'000 / 9973);
    for (size_t i = 0; i < some.size(); ++i) {
        EXPECT_EQ(some.y[i], all.y[static_cast<size_t>(some.x[i]) - 1]) << "points are the series' own";
    }
}

TEST(Series, ThinnedLeavesShortOnesGapsAndEmptyOnesAlone) {
    Series few;
    for (int i = 0; i < 10; ++i) few.add(i, i);
    EXPECT_EQ(thinned(few, 300).x, few.x);
    EXPECT_EQ(thinned(Series(), 300).size(), 0u);
    Series gap;
    for (int i = 0; i < 10'000; ++i) gap.add(i, i == 5000 ? kNaN : 1);
    const Series some = thinned(gap, 100);
    EXPECT_EQ(std::count_if(some.y.begin(), some.y.end(), [](double y) { return std::isnan(y); }), 1);
    Series same;
    for (int i = 0; i < 10'000; ++i) same.add(3, i);
    const Series one = thinned(same, 100);
    EXPECT_LE(one.size(), 8u) << "all at one step";
}

TEST(PageChart, DrawsGapsDotsAndLogarithms) {
    Series values;
    for (int i = 1; i <= 5; ++i) values.add(i, i == 3 ? kNaN : std::pow(10, i));
    const std::string text = page_chart({"Norm", "", true, {{1, "norm", values, true, false}}});
    EXPECT_NE(text.find("data-log=\"1\""), std::string::npos);
    EXPECT_EQ(count(text, "<circle"), 4u);
    const size_t begin = text.find("<path d=\"") + 9;
    EXPECT_EQ(count(text.substr(begin, text.find('"', begin) - begin), "M"), 2u) << "a gap begins anew";
    EXPECT_NE(text.find("class=\"run r1 c1\""), std::string::npos);
    EXPECT_EQ(text.find("nan"), std::string::npos);
    EXPECT_EQ(page_chart({"Norm", "", true, {{0, "norm", Series()}}}), "");
    Series nothing;
    nothing.add(1, kNaN);
    EXPECT_EQ(page_chart({"Norm", "", false, {{0, "norm", nothing}}}), "");
    Series flat;
    flat.add(7, 0);
    EXPECT_EQ(page_chart({"Norm", "", false, {{0, "norm", flat}}}).find("nan"), std::string::npos) << "one point";
}

PageRun some_run(const std::string& name, int steps) {
    PageRun run;
    run.name = name, run.status = "finished", run.predicted_ms = 10;
    for (int step = 1; step <= steps; ++step) {
        run.loss.add(step, 10.0 / step), run.step_ms.add(step, 10), run.tokens_per_second.add(step, 1000);
        run.grad_norm.add(step, 1), run.learning_rate.add(step, 1e-3);
    }
    run.validation.add(steps, 1);
    run.options = {{"steps", std::to_string(steps), false}, {"seed", "1", true}};
    run.memory = {{"parameters", 1000}, {"gradients", 3000}};
    run.layers = {{0, 3, "input", 100, 0, 1.5}};
    run.samples = {{steps, "<b>&\"'\xff</b>"}};
    return run;
}

TEST(RunPage, EscapesWhatComesFromARun) {
    PageRun run = some_run("a<script>alert(1)</script>", 3);
    run.options.push_back({"data", "x\"><img alt=y>", false});
    run.notes = {"<i>note</i>"};
    const std::string page = run_page({run});
    for (const char* raw : {"<script>alert", "<img", "<i>note", "<b>", "\xff"}) {
        EXPECT_EQ(page.find(raw), std::string::npos) << raw;
    }
    EXPECT_NE(page.find("&lt;b&gt;&amp;&quot;&#39;\\xff"), std::string::npos);
    for (const char* outside : {"http://", "https://", "src=", "@import", "url("}) {
        EXPECT_EQ(page.find(outside), std::string::npos) << outside;
    }
}

TEST(RunPage, SaysWhatDiffersAndStaysSmall) {
    const std::string two = run_page({some_run("one", 10), some_run("two", 20)});
    const size_t begin = two.find("What differs"), end = two.find("</table>", begin);
    ASSERT_NE(begin, std::string::npos);
    const std::string differs = two.substr(begin, end - begin);
    EXPECT_NE(differs.find("--steps"), std::string::npos);
    EXPECT_EQ(differs.find("--seed"), std::string::npos);
    EXPECT_EQ(count(two, "type=\"checkbox\""), 2u);
    EXPECT_NE(run_page({some_run("one", 10), some_run("two", 10)}).find("the same options"), std::string::npos);
    EXPECT_EQ(run_page({some_run("one", 10)}).find("What differs"), std::string::npos);
    PageRun empty;
    empty.name = "nothing";
    EXPECT_NE(run_page({empty}).find("nothing"), std::string::npos);
    EXPECT_LT(run_page(std::vector<PageRun>(3, some_run("long", 1'000'000))).size(), 2'000'000u);
}

}  // namespace
}  // namespace llmc
