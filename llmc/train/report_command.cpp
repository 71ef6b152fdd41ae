#include "llmc/train/report_command.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/file_lock.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/program_name.h"
#include "llmc/base/units.h"
#include "llmc/draw/run_page.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/train/metrics.h"
#include "llmc/train/output_file.h"
#include "llmc/train/plan_files.h"
#include "llmc/train/run_folder.h"
#include "llmc/train/step_times.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <utility>

namespace llmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDefaultName = "report.html";

/// The folder in runs/ that was last written to; "" if there is none.
std::string newest_run() {
    std::string newest;
    fs::file_time_type when;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("runs", error)) {
        const fs::path metrics = entry.path() / "metrics.jsonl";
        const fs::file_time_type time = fs::last_write_time(metrics, error);
        if (error || (!newest.empty() && time <= when)) continue;
        newest = entry.path().string(), when = time;
    }
    return newest;
}

std::string status_of(const std::string& folder, int64_t done, int64_t asked) {
    if (is_locked(folder + "/lock")) return "running";
    return done >= asked ? "finished" : "interrupted";
}

std::vector<PageOption> options_shown(const Options& options) {
    std::vector<PageOption> shown;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & kTrain) == 0 || !row.shapes_run) continue;
        const std::string value = option_text(options, row);
        if (!value.empty()) shown.push_back({row.name(), value});
    }
    return shown;
}

std::string lowest(const Series& series) {
    size_t best = series.size();
    for (size_t i = 0; i < series.size(); ++i) {
        if (std::isfinite(series.y[i]) && (best == series.size() || series.y[i] < series.y[best])) best = i;
    }
    return best == series.size()
               ? ""
               : fmt::format("{:.4f} at step {}", series.y[best], format_count(std::llround(series.x[best])));
}

/// Those of the process that trained last, for which the plan was made.
StepTimes times_of_last_start(const RunHistory& history, int64_t first_step) {
    StepTimes times;
    for (size_t i = 0; i < history.step_ms.size(); ++i) {
        const double ms = history.step_ms.y[i];
        if (history.step_ms.x[i] > static_cast<double>(first_step) && std::isfinite(ms)) times.add(ms);
    }
    return times;
}

std::vector<std::pair<std::string, std::string>> facts_of(const Options& options, const RunHistory& history,
                                                          const PageRun& page) {
    std::vector<std::pair<std::string, std::string>> facts;
    const auto add = [&](const char* name, const std::string& value) {
        if (!value.empty()) facts.emplace_back(name, value);
    };
    add("model", options.model);
    add("steps", fmt::format("{} of {}", format_count(history.last_step), format_count(options.steps)));
    const auto loss = [&](const Series& series) { return fmt::format("{:.4f} {}", series.y.back(), page.loss_unit); };
    if (history.loss.size() > 0) add("training loss", loss(history.loss));
    if (history.validation.size() > 0) add("validation loss", loss(history.validation));
    if (history.validation.size() > 1) add("lowest", lowest(history.validation));
    if (history.tokens > 0) add("tokens", format_count(history.tokens));
    const StepTimes times = times_of_last_start(history, page.first_step);
    if (times.size() > 0) {
        const double ms = times.median_ms();
        add("ms per step", fmt::format("{:.1f} (median of {})", ms, format_count(times.size())));
        if (page.predicted_ms > 0) {
            add("predicted ms",
                fmt::format("{:.1f} ({:+.1f} %)", page.predicted_ms, 100 * (page.predicted_ms / ms - 1)));
        }
        const double per_second = static_cast<double>(options.total_batch_size) / ms * 1e3;
        if (per_second > 0) add("tokens/s", format_count(std::llround(per_second)) + " at that");
    }
    if (history.memory_bytes > 0) add("memory allocated", format_bytes(history.memory_bytes));
    add("recompute", options.recompute);
    if (options.offload != "none") add("offload", options.offload);
    add("type", options.dtype);
    return facts;
}

PageRun page_of(const std::string& given, const std::string& name) {
    const std::string folder = find_run_folder(given, "report");
    const Options options = options_of_run(folder, "report");
    RunHistory history = read_history(folder + "/metrics.jsonl", options.total_batch_size, options.seq_len);
    PageRun page;
    page.name = name;
    page.status = status_of(folder, history.last_step, options.steps);
    if (history.loss.size() == 0) page.notes.emplace_back("no step of this run is in metrics.jsonl yet");
    if (history.skipped_steps > 0) {
        page.notes.push_back(history.skipped_steps == 1
                                 ? std::string("1 update was skipped: its gradient was not finite")
                                 : fmt::format("{} updates were skipped: their gradients were not finite",
                                               format_count(history.skipped_steps)));
    }
    if (page.status == "interrupted") {
        const std::optional<int64_t> saved = newest_step(folder);
        page.notes.push_back(saved ? fmt::format("goes on from step {} with --resume={}", *saved, given)
                                   : "no checkpoint is there to go on from");
    }
    page.options = options_shown(options);
    read_plan_files(folder, &page);
    page.facts = facts_of(options, history, page);
    for (auto& [step, text] : read_samples(folder + "/samples.jsonl")) {
        if (step <= history.last_step) page.samples.push_back({step, std::move(text)});
    }
    page.loss = std::move(history.loss), page.validation = std::move(history.validation);
    page.learning_rate = std::move(history.learning_rate), page.grad_norm = std::move(history.grad_norm);
    page.tokens_per_second = std::move(history.tokens_per_second), page.step_ms = std::move(history.step_ms);
    return page;
}

/// Their last parts, or where those are alike the whole paths.
std::vector<std::string> names_of(const std::vector<std::string>& runs) {
    std::vector<std::string> names;
    for (const std::string& run : runs) {
        const fs::path path = (fs::path(run) / "").lexically_normal();
        names.push_back(path.parent_path().filename().string());
    }
    const std::set<std::string> different(names.begin(), names.end());
    return different.size() == names.size() && different.count("") == 0 ? names : runs;
}

}  // namespace

void report_command(const Options& options) {
    std::vector<std::string> runs = options.runs;
    if (runs.empty()) {
        runs.push_back(newest_run());
        if (runs.front().empty())
            fail_usage("report: there is no run in runs/; name one: {} report FOLDER", program_name());
    }
    for (std::string& run : runs) {
        while (run.size() > 1 && run.ends_with('/')) run.pop_back();
    }
    std::string out = options.out;
    if (out.empty()) out = runs.size() == 1 ? find_run_folder(runs[0], "report") + "/" + kDefaultName : kDefaultName;
    require_output("--out", out);
    const std::vector<std::string> names = names_of(runs);
    std::vector<PageRun> pages;
    for (size_t i = 0; i < runs.size(); ++i) pages.push_back(page_of(runs[i], names[i]));
    write_output("--out", out, run_page(pages));
    print_output(out + "\n");
}

}  // namespace llmc
