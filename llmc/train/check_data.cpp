#include "llmc/train/check_data.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/io/encode_corpus.h"
#include "llmc/io/token_scan.h"

#include <algorithm>

namespace llmc {
namespace {

/// A vocabulary much larger than the ids, which costs memory and time, where only they are known.
void suggest_vocabulary(const Options& options, int64_t V, int64_t largest, const Data& data) {
    const bool is_known = data.source->tokenizer() != "none" || options.was_given("vocab-size");
    if (is_known || largest < 0 || 2 * (largest + 1) > V) return;
    spdlog::info("data    the largest id is {}; a model for these alone needs --vocab-size={}, not {}", largest,
                 largest + 1, V);
}

}  // namespace

void require_ids_below(int64_t V, const TokenSource& source, const std::string& option, const std::string& remedy,
                       const Options& options) {
    if (options.no_scan) return;
    const int64_t largest = largest_id(source, threads_or_all(options.threads));
    if (largest < V) return;
    const std::string which = find_id_beyond(source, V);
    fail("{}: {}, but the model's vocabulary is {} (the largest id is {}); {}", option, which, V, largest, remedy);
}

void check_data(const Options& options, const Data& data, int64_t V, bool is_new, Comm& comm) {
    std::string fault;
    if (comm.is_root() && !options.no_scan) {
        const auto checking = comm.busy("a look at all its token ids");
        try {
            const int threads = threads_or_all(options.threads);
            int64_t largest = largest_id(*data.source, threads);
            if (data.val_source != nullptr) largest = std::max(largest, largest_id(*data.val_source, threads));
            suggest_vocabulary(options, V, largest, data);
            const bool can_grow = is_new && largest < kLargestVocabulary;
            const std::string remedy =
                fmt::format("give data made for this model's tokenizer{}{}",
                            can_grow ? fmt::format(", or --vocab-size={} or more", largest + 1) : "",
                            options.data_format == "auto" ? "" : ", or another --data-format");
            require_ids_below(V, *data.source, "--data", remedy, options);
            if (data.val_source != nullptr) require_ids_below(V, *data.val_source, "--val-data", remedy, options);
        } catch (const Error& error) {
            fault = error.what();
        }
    }
    if (comm.size() > 1) fault = comm.broadcast(fault);
    if (!fault.empty()) fail("{}", fault);
}

}  // namespace llmc
