#include "llmc/io/chat/row_reader.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/parallel_for.h"
#include "llmc/base/units.h"
#include "llmc/io/chat/row_file.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// One value of a file and what it becomes.
struct Work {
    RowFile::Item item;
    EncodedRow row;
    std::string fault;           ///< What is wrong with it, if it is not "".
    bool lacks_setting = false;  ///< The fault is none of the row's.
    bool is_dropped = false;
};

void count_names(const ChatRow& row, SpecialNames* names) {
    names->count(row.first);
    names->count(row.second);
    for (const ChatMessage& message : row.messages) names->count(message.content);
}

void encode(RowEncoder* encoder, SpecialNames* names, Work* work) {
    const ChatRow row = read_row(work->item.json, &work->fault);
    if (!work->fault.empty()) return;
    work->is_dropped = !row.has_answer();
    if (work->is_dropped) return;
    try {
        work->row = encoder->encode(row);
    } catch (const Error& error) {
        work->fault = std::string(": ") + error.what();
        work->lacks_setting = error.exit_code() == kExitBadUsage;
        return;
    }
    count_names(row, names);
    work->is_dropped = work->row.scored == 0;
}

std::string percent(int64_t part, int64_t whole) {
    return fmt::format("{:.1f} %", 100 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1)));
}

}  // namespace

RowReader::RowReader(const Tokenizer& tokenizer, const DataReading& reading, std::string option, int threads)
    : tokenizer_(tokenizer),
      reading_(reading),
      option_(std::move(option)),
      threads_(threads),
      format_(tokenizer, reading.chat_template, scored_by_name(reading.score)),
      lengths_(tokenizer),
      names_(tokenizer) {}

RowCounts RowReader::read(const DataFile& file, const Take& take) {
    std::vector<std::unique_ptr<RowEncoder>> encoders;
    for (int i = 0; i < threads_; ++i) encoders.push_back(std::make_unique<RowEncoder>(format_, lengths_));
    constexpr size_t kRowsPerThread = 64;
    const std::string& path = file.file.path();
    RowFile rows(file.file.text());
    RowCounts counts;
    std::string first_bad;
    const auto skip_or_refuse = [&](int64_t line, const std::string& fault) {
        std::string words = fmt::format("'{}' line {}{}{}", path, line, fault.starts_with(':') ? "" : " ", fault);
        std::replace(words.begin(), words.end(), '\n', ' ');  // Keys and roles may be any texts.
        if (!reading_.skip_bad_lines) {
            fail("{}: {}; mend the row, or pass over such rows with --data-format=rows --skip-bad-lines", option_,
                 words);
        }
        if (counts.bad++ == 0) first_bad = words;
    };
    ProgressBar progress("reading rows", file.file.size());
    std::vector<Work> batch;
    std::string end;  // What is wrong with the file behind its last row.
    RowFile::Item item;
    for (bool more = true; more;) {
        batch.clear();
        while (more && batch.size() < kRowsPerThread * static_cast<size_t>(threads_)) {
            more = rows.next(&item, &end);
            if (more) batch.push_back({item, {}, "", false});
        }
        parallel_for(threads_, static_cast<int64_t>(batch.size()), [&](int64_t i, int thread) {
            encode(encoders[static_cast<size_t>(thread)].get(), &names_, &batch[static_cast<size_t>(i)]);
        });
        for (const Work& work : batch) {
            if (work.lacks_setting) fail("{}: '{}' line {}{}", option_, path, work.item.line, work.fault);
            if (!work.fault.empty()) {
                skip_or_refuse(work.item.line, work.fault);
                continue;
            }
            if (work.is_dropped) {
                ++counts.dropped;
                continue;
            }
            ++counts.rows;
            counts.tokens += static_cast<int64_t>(work.row.tokens.size());
            counts.scored += work.row.scored;
            counts.open_answers += work.row.open_answers;
            take(work.row, work.item.line, work.item.end_bytes);
        }
        if (!batch.empty()) progress.update(batch.back().item.end_bytes);
    }
    if (!end.empty()) skip_or_refuse(item.line, end);
    if (counts.bad > 0) {
        spdlog::warn("{}: {} bad row{} skipped (--skip-bad-lines); the first, {}", option_, format_count(counts.bad),
                     counts.bad == 1 ? " was" : "s were", first_bad);
    }
    if (counts.rows == 0 && counts.dropped == 0 && counts.bad > 0) {
        fail("{}: '{}' has no row that can be used: {} skipped; {}; mend that instead of skipping", option_, path,
             counts.bad == 1 ? "its one row was" : fmt::format("all {} were", format_count(counts.bad)), first_bad);
    }
    if (counts.scored == 0) {
        fail(
            "{}: '{}' has nothing to learn from: {} of its rows {} no token that is scored; look at its answers, the "
            "chat template, and --score={}",
            option_, path, format_count(counts.dropped), counts.dropped == 1 ? "has" : "have", reading_.score);
    }
    return counts;
}

void RowReader::report(const std::string& path, const RowCounts& counts) const {
    spdlog::info("{}: '{}': {} row{}, {} dropped because nothing of them is scored; {} tokens, {} of them scored ({})",
                 option_, path, format_count(counts.rows), counts.rows == 1 ? "" : "s", format_count(counts.dropped),
                 format_count(counts.tokens), format_count(counts.scored), percent(counts.scored, counts.tokens));
    if (counts.open_answers > 0) {
        spdlog::warn(
            "{}: '{}': behind {} answer{} the template puts no token that ends a turn, so that a model does not learn "
            "to stop there",
            option_, path, format_count(counts.open_answers), counts.open_answers == 1 ? "" : "s");
    }
    if (const std::string found = names_.found(); !found.empty()) {
        spdlog::warn("{}: in contents of rows stands {}, which become the special tokens of these names", option_,
                     found);
    }
}

std::string RowReader::describe_template() const {
    return format_.chat_template ? "chat template " + format_.chat_template->name() : "no chat template";
}

}  // namespace llmc
