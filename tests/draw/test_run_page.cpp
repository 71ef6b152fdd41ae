// The page of runs: thinning that loses no extreme, means, axes, charts, what is escaped, size.
#include "llmc/draw/page_axis.h"
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

TEST(Series, BucketMeansAreMeansOfFiniteValues) {
    Series all;
    for (int i = 0; i < 1000; ++i) all.add(i, i % 2 == 0 ? 1 : i == 501 ? kNaN : 3);
    const Series means = bucket_means(all, 10);
    ASSERT_EQ(means.size(), 10u);
    for (size_t i = 0; i < means.size(); ++i) EXPECT_NEAR(means.y[i], 2, 0.02) << i;
    EXPECT_NEAR(means.x[0], 49.5, 0.51);
    Series gaps;
    for (int i = 0; i < 100; ++i) gaps.add(i, i < 50 ? kNaN : 1);
    EXPECT_TRUE(std::isnan(bucket_means(gaps, 4).y[0]));
    EXPECT_EQ(bucket_means(Series(), 4).size(), 0u);
}

TEST(PageAxis, EndsAtTicksAroundAllValues) {
    for (const auto& [low, high] : {std::pair(3.18, 5.54), std::pair(-1.0, 7.0), std::pair(0.0, 0.0),
                                    std::pair(7.0, 7.0), std::pair(1e20, std::nextafter(1e20, 2e20)),
                                    std::pair(1e-7, 1.3e-7), std::pair(0.31, 5.28), std::pair(2e5, 9.1e7)}) {
        for (const bool is_log : {false, true}) {
            if (is_log && low <= 0) continue;
            const double from = is_log ? std::log10(low) : low, to = is_log ? std::log10(high) : high;
            const PageAxis axis = is_log ? logarithmic_axis(from, to) : linear_axis(from, to);
            ASSERT_GE(axis.ticks.size(), 2u) << low << " .. " << high;
            EXPECT_LE(axis.ticks.size(), 8u) << low << " .. " << high;
            EXPECT_DOUBLE_EQ(axis.ticks.front(), axis.low);
            EXPECT_DOUBLE_EQ(axis.ticks.back(), axis.high);
            EXPECT_LE(axis.low, from + 1e-8 * std::abs(from));
            EXPECT_GE(axis.high, to - 1e-8 * std::abs(to));
            EXPECT_TRUE(std::is_sorted(axis.ticks.begin(), axis.ticks.end()));
        }
    }
    std::string words;
    for (const double tick : logarithmic_axis(std::log10(0.31), std::log10(5.28)).ticks) {
        words += number_words(std::pow(10, tick)) + " ";
    }
    EXPECT_EQ(words, "0.2 0.5 1 2 5 10 ");
}

TEST(PageChart, DrawsGapsDotsAndLogarithms) {
    Series values;
    for (int i = 1; i <= 5; ++i) values.add(i, i == 3 ? kNaN : std::pow(10, i));
    const std::string text = page_chart({"Norm", "", true, {{1, "norm", values, true, false}}});
    EXPECT_NE(text.find("data-log=\"1\""), std::string::npos);
    EXPECT_NE(text.find("logarithmic axis"), std::string::npos);
    const size_t dots = text.find("class=\"dots\"");
    EXPECT_EQ(count(text.substr(dots, text.find("/>", dots) - dots), "h0"), 4u);
    const size_t begin = text.find(" d=\"") + 4;
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

TEST(PageChart, SaysThatAnAxisIsLogarithmicOnlyWhereItIs) {
    Series near;
    near.add(1, 1), near.add(2, 2);
    EXPECT_EQ(page_chart({"Norm", "", true, {{0, "norm", near}}}).find("logarithmic"), std::string::npos);
}

TEST(PageChart, DrawsMeansOverTheBandOfALongNoisyCurve) {
    Series noisy;
    for (int step = 1; step <= 50'000; ++step) noisy.add(step, 2 + std::sin(step * 0.7));
    const std::string text = page_chart({"Loss", "nats", false, {{0, "loss", noisy, false, false, true}}});
    EXPECT_EQ(count(text, "class=\"band\""), 1u);
    EXPECT_NE(text.find("line: means of every 1/100"), std::string::npos);
    const size_t mean = text.find("class=\"mean\"");
    ASSERT_NE(mean, std::string::npos);
    EXPECT_EQ(count(text.substr(mean, text.find("/>", mean) - mean), "L"), 99u);
    noisy.x.resize(50), noisy.y.resize(50);
    EXPECT_EQ(page_chart({"Loss", "nats", false, {{0, "loss", noisy, false, false, true}}}).find("mean"),
              std::string::npos);
}

PageRun some_run(const std::string& name, int steps) {
    PageRun run;
    run.name = name, run.status = "finished", run.predicted_ms = 10;
    for (int step = 1; step <= steps; ++step) {
        run.loss.add(step, 10.0 / step), run.step_ms.add(step, 10), run.tokens_per_second.add(step, 1000);
        run.grad_norm.add(step, 1), run.learning_rate.add(step, 1e-3);
    }
    run.validation.add(steps, 1);
    run.options = {{"steps", std::to_string(steps), true}, {"seed", "1", false}};
    run.memory = {{"parameters", 1000}, {"gradients", 3000}};
    run.layers = {{0, 3, "input", 100, 0, 1.5}};
    run.samples = {{steps, "<b>&\"'\xff</b>"}};
    return run;
}

TEST(RunPage, EscapesWhatComesFromARun) {
    PageRun run = some_run("a<script>alert(1)</script>", 3);
    run.options.push_back({"data", "x\"><img alt=y>", true});
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

TEST(RunPage, NamesTheUnitOfLosses) {
    PageRun bytes = some_run("one", 3), tokens = some_run("two", 3);
    bytes.loss_unit = "nats per byte", tokens.loss_unit = "nats per token";
    EXPECT_NE(run_page({bytes}).find("nats per byte; dots"), std::string::npos);
    EXPECT_EQ(run_page({bytes}).find("per token"), std::string::npos);
    EXPECT_NE(run_page({bytes, tokens}).find("nats per byte or nats per token; dots"), std::string::npos);
}

TEST(RunPage, BoldIsWhatWasGiven) {
    PageRun run = some_run("one", 10);
    const std::string page = run_page({run});
    EXPECT_NE(page.find("all options; bold: given"), std::string::npos);
    EXPECT_NE(page.find("set\">10</td>"), std::string::npos);
    EXPECT_EQ(page.find("set\">1</td>"), std::string::npos);
    for (PageOption& option : run.options) option.is_given = false;
    EXPECT_EQ(run_page({run}).find("bold"), std::string::npos) << "what is not known is not claimed";
}

TEST(RunPage, SaysWhereThereAreNoSamples) {
    PageRun none = some_run("none", 3), off = some_run("off", 3);
    none.samples.clear(), off.samples.clear();
    off.options.push_back({"sample-length", "0", true});
    const std::string page = run_page({some_run("some", 3), none, off});
    EXPECT_EQ(count(page, "No sample was taken"), 2u);
    EXPECT_EQ(count(page, "No sample was taken: --sample-length=0"), 1u);
}

TEST(RunPage, PredictsOnlyTheStepsOfTheLastStart) {
    PageRun run = some_run("one", 40);
    run.first_step = 30;
    const std::string page = run_page({run});
    EXPECT_NE(page.find("data-words=\"predicted ms\" data-first=\"31\" data-last=\"40\""), std::string::npos);
    run.first_step = 40;
    EXPECT_EQ(run_page({run}).find("predicted ms"), std::string::npos);
}

TEST(RunPage, SaysThatAWidePictureScrolls) {
    PageRun run = some_run("one", 3);
    EXPECT_EQ(run_page({run}).find("class=\"sideways\""), std::string::npos);
    run.timeline = "<svg></svg>";
    EXPECT_NE(run_page({run}).find("class=\"sideways\""), std::string::npos);
}

TEST(RunPage, PicturesOfTwoRunsShareNoIds) {
    PageRun run = some_run("one", 3);
    run.timeline = "<svg><pattern id=\"hatch1\"/><path fill=\"url(#hatch1)\"/></svg>";
    const std::string page = run_page({run, run});
    for (const char* one : {"id=\"r0-hatch1\"", "url(#r0-hatch1)", "id=\"r1-hatch1\"", "url(#r1-hatch1)"}) {
        EXPECT_EQ(count(page, one), 1u) << one;
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
