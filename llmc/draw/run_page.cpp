#include "llmc/draw/run_page.h"

#include "llmc/base/units.h"
#include "llmc/draw/page_chart.h"
#include "llmc/draw/run_page_script.h"
#include "llmc/draw/run_page_style.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <set>

namespace llmc {
namespace {

constexpr size_t kMostSamples = 40, kLongestSample = 4000, kLargestTimeline = 400'000;

using Runs = std::vector<PageRun>;

std::string list_of_runs(const Runs& runs) {
    std::string text = "<section class=\"runs\">\n";
    for (size_t i = 0; i < runs.size(); ++i) {
        const PageRun& run = runs[i];
        text += fmt::format("<article class=\"card c{}\"><h2><label>", i % 8);
        if (runs.size() > 1) text += fmt::format("<input type=\"checkbox\" checked data-run=\"{}\"> ", i);
        text += fmt::format("<span class=\"swatch\"></span>{}</label> <span class=\"status {}\">{}</span></h2>\n",
                            html_text(run.name), html_text(run.status), html_text(run.status));
        for (const std::string& note : run.notes) text += fmt::format("<p class=\"note\">{}</p>\n", html_text(note));
        text += "<dl>";
        for (const auto& [name, value] : run.facts) {
            text += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", html_text(name), html_text(value));
        }
        text += "</dl></article>\n";
    }
    return text + "</section>\n";
}

/// Two ends of a line at the predicted time, over the steps that it was predicted for.
Series predicted(const PageRun& run) {
    Series line;
    const auto first = static_cast<double>(run.first_step + 1);
    if (run.predicted_ms <= 0 || run.step_ms.size() == 0 || run.step_ms.x.back() < first) return line;
    line.add(std::max(first, run.step_ms.x.front()), run.predicted_ms);
    line.add(run.step_ms.x.back(), run.predicted_ms);
    return line;
}

/// "nats per byte", or of runs that differ "nats per byte or nats per token".
std::string loss_units(const Runs& runs) {
    std::set<std::string> units;
    for (const PageRun& run : runs) units.insert(run.loss_unit);
    return fmt::format("{}", fmt::join(units, " or "));
}

std::string charts(const Runs& runs) {
    std::vector<PageChart> all = {{"Loss", loss_units(runs) + "; dots: validation", false, {}},
                                  {"Tokens per second", "", false, {}},
                                  {"Time of a step", "ms; dashed: predicted", true, {}},
                                  {"Gradient norm", "before clipping", true, {}},
                                  {"Learning rate", "", false, {}}};
    for (size_t i = 0; i < runs.size(); ++i) {
        const PageRun& run = runs[i];
        all[0].curves.push_back({i, "training loss", run.loss, false, false, /*is_noisy=*/true});
        all[0].curves.push_back({i, "validation loss", run.validation, /*has_dots=*/true});
        all[1].curves.push_back({i, "tokens/s", run.tokens_per_second, false, false, /*is_noisy=*/true});
        all[2].curves.push_back({i, "ms", run.step_ms, false, false, /*is_noisy=*/true});
        all[2].curves.push_back({i, "predicted ms", predicted(run), false, /*is_dashed=*/true});
        all[3].curves.push_back({i, "norm", run.grad_norm, false, false, /*is_noisy=*/true});
        all[4].curves.push_back({i, "rate", run.learning_rate});
    }
    std::string text = "<section class=\"charts\">\n";
    for (const PageChart& chart : all) text += page_chart(chart);
    return text + "</section>\n";
}

std::string bytes_table(const char* title, const std::vector<std::pair<std::string, int64_t>>& rows) {
    if (rows.empty()) return "";
    int64_t total = 0, most = 1;
    for (const auto& [name, bytes] : rows) total += bytes, most = std::max(most, bytes);
    std::string text = fmt::format("<table><caption>{}</caption>\n", title);
    for (const auto& [name, bytes] : rows) {
        text += fmt::format(
            "<tr><th>{}</th><td class=\"n\">{}</td><td class=\"bar\"><i style=\"width:{:.1f}%\"></i></td></tr>\n",
            html_text(name), format_bytes(bytes), 100.0 * static_cast<double>(bytes) / static_cast<double>(most));
    }
    return text + fmt::format("<tr class=\"sum\"><th>in all</th><td class=\"n\">{}</td><td></td></tr></table>\n",
                              format_bytes(total));
}

std::string layers_table(const std::vector<PageLayers>& layers) {
    if (layers.empty()) return "";
    const bool uses_host =
        std::any_of(layers.begin(), layers.end(), [](const auto& row) { return row.host_bytes > 0; });
    std::string text = fmt::format(
        "<table><caption>Plan, layer by layer</caption>\n<tr><th>layers</th><th>keep</th><th class=\"n\">bytes "
        "each</th>{}<th class=\"n\">repeated, ms each</th></tr>\n",
        uses_host ? "<th class=\"n\">to the host each</th>" : "");
    for (const PageLayers& row : layers) {
        const std::string which =
            row.first == row.last ? fmt::format("{}", row.first) : fmt::format("{}–{}", row.first, row.last);
        text += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td>", which, html_text(row.keeps),
                            format_bytes(row.kept_bytes));
        if (uses_host) text += fmt::format("<td class=\"n\">{}</td>", format_bytes(row.host_bytes));
        text += fmt::format("<td class=\"n\">{:.2f}</td></tr>\n", row.repeated_ms);
    }
    return text + "</table>\n";
}

/// A part of the page about one run: open where there is no other.
std::string about(const Runs& runs, size_t index, const std::string& content) {
    if (content.empty()) return "";
    if (runs.size() == 1) return content;
    return fmt::format(
        "<details class=\"r{}\"{}><summary><span class=\"swatch c{}\"></span>{}</summary>\n{}</details>\n", index,
        index == 0 ? " open" : "", index % 8, html_text(runs[index].name), content);
}

std::string section(const char* title, const std::string& content) {
    return content.empty() ? "" : fmt::format("<section><h2>{}</h2>\n{}</section>\n", title, content);
}

/// Ids are the page's, where several pictures stand.
std::string with_own_ids(std::string svg, size_t run) {
    for (const std::string mark : {" id=\"", "url(#"}) {
        const std::string own = fmt::format("{}r{}-", mark, run);
        for (size_t at = svg.find(mark); at != std::string::npos; at = svg.find(mark, at + own.size())) {
            svg.replace(at, mark.size(), own);
        }
    }
    return svg;
}

std::string memory_and_plan(const Runs& runs) {
    std::string text;
    for (size_t i = 0; i < runs.size(); ++i) {
        const PageRun& run = runs[i];
        std::string content;
        if (!run.plan_words.empty()) content += fmt::format("<p>{}</p>\n", html_text(run.plan_words));
        const std::string tables = bytes_table("Device memory", run.memory) +
                                   bytes_table("Host memory", run.host_memory) + layers_table(run.layers);
        if (!tables.empty()) content += "<div class=\"tables\">" + tables + "</div>\n";
        if (!run.timeline.empty() && run.timeline.size() <= kLargestTimeline) {
            content += "<p class=\"sideways\">↔ wider than the screen: scroll it sideways</p>\n<div class=\"paper\">" +
                       with_own_ids(run.timeline, i) + "</div>\n";
        }
        text += about(runs, i, content);
    }
    return section("Memory and plan", text);
}

/// The value of an option, or nothing if the run does not have it.
const PageOption* find(const PageRun& run, const std::string& name) {
    const auto found =
        std::find_if(run.options.begin(), run.options.end(), [&](const PageOption& one) { return one.name == name; });
    return found == run.options.end() ? nullptr : &*found;
}

/// Why there are none.
std::string no_samples(const PageRun& run) {
    const PageOption* length = find(run, "sample-length");
    const bool asks_for_none = length != nullptr && length->value == "0";
    return fmt::format("<p>No sample was taken{}.</p>\n", asks_for_none ? ": --sample-length=0" : " so far");
}

std::string samples(const Runs& runs) {
    std::string text;
    for (size_t i = 0; i < runs.size(); ++i) {
        const std::vector<PageSample>& all = runs[i].samples;
        std::string content;
        const size_t shown = std::min(all.size(), kMostSamples);
        for (size_t k = 0; k < shown; ++k) {  // Of many, evenly spread, the first and the last among them.
            const PageSample& sample = all[shown == 1 ? all.size() - 1 : k * (all.size() - 1) / (shown - 1)];
            const bool is_long = sample.text.size() > kLongestSample;
            content += fmt::format(
                "<details{}><summary>after {}</summary><pre>{}{}</pre></details>\n", k + 1 == shown ? " open" : "",
                sample.step == 1 ? "1 step" : format_count(sample.step) + " steps",
                html_text(std::string_view(sample.text).substr(0, kLongestSample)), is_long ? " …" : "");
        }
        text += about(runs, i, content.empty() ? no_samples(runs[i]) : content);
    }
    return section("Samples", text);
}

std::vector<std::string> names_of_options(const Runs& runs) {
    std::vector<std::string> names;
    for (const PageRun& run : runs) {
        for (const PageOption& option : run.options) {
            if (std::find(names.begin(), names.end(), option.name) == names.end()) names.push_back(option.name);
        }
    }
    return names;
}

std::string options_table(const Runs& runs, const std::vector<std::string>& names) {
    std::string text = "<div class=\"wide\"><table>\n<tr><th>option</th>";
    for (size_t i = 0; i < runs.size(); ++i)
        text += fmt::format("<th class=\"r{}\">{}</th>", i, html_text(runs[i].name));
    text += "</tr>\n";
    for (const std::string& name : names) {
        text += fmt::format("<tr><th>--{}</th>", html_text(name));
        for (size_t i = 0; i < runs.size(); ++i) {
            const PageOption* option = find(runs[i], name);
            text += fmt::format("<td class=\"r{}{}\">{}</td>", i, option != nullptr && option->is_given ? " set" : "",
                                option == nullptr ? "" : html_text(option->value));
        }
        text += "</tr>\n";
    }
    return text + "</table></div>\n";
}

std::string options(const Runs& runs) {
    const std::vector<std::string> names = names_of_options(runs);
    if (names.empty()) return "";
    std::vector<std::string> differing;
    for (const std::string& name : names) {
        const PageOption* first = find(runs.front(), name);
        const bool is_same = std::all_of(runs.begin(), runs.end(), [&](const PageRun& run) {
            const PageOption* other = find(run, name);
            return (first == nullptr) == (other == nullptr) && (first == nullptr || first->value == other->value);
        });
        if (!is_same) differing.push_back(name);
    }
    std::string text;
    if (runs.size() > 1) {
        text += differing.empty() ? "<p>The runs have the same options.</p>\n"
                                  : "<h3>What differs</h3>\n" + options_table(runs, differing);
    }
    const bool knows_given = std::any_of(runs.begin(), runs.end(), [](const PageRun& run) {
        return std::any_of(run.options.begin(), run.options.end(), [](const PageOption& one) { return one.is_given; });
    });
    return section("Options", text +
                                  fmt::format("<details><summary>all options{}</summary>\n",
                                              knows_given ? "; bold: given, by hand or with --config" : "") +
                                  options_table(runs, names) + "</details>\n");
}

}  // namespace

std::string run_page(const Runs& runs) {
    std::string title = runs.size() == 1 ? runs.front().name : fmt::format("{} runs", runs.size());
    return fmt::format(
               "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
               "content=\"width=device-width, initial-scale=1\"><meta name=\"generator\" content=\"train_gpt "
               "report\">\n<title>{} – train_gpt</title>\n<style>{}</style></head>\n<body>\n<h1>{}</h1>\n",
               html_text(title), kRunPageStyle, html_text(title)) +
           list_of_runs(runs) + charts(runs) + memory_and_plan(runs) + samples(runs) + options(runs) +
           fmt::format("<div id=\"tip\" hidden></div>\n<script>{}</script>\n</body></html>\n", kRunPageScript);
}

}  // namespace llmc
