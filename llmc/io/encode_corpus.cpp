#include "llmc/io/encode_corpus.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/parallel_for.h"
#include "llmc/base/threads.h"

#include <memory>
#include <omp.h>
#include <optional>
#include <vector>

namespace llmc {

int threads_or_all(int64_t threads) {
    return possible_threads(threads > 0 ? static_cast<int>(threads)
                                        : threads_by_environment().value_or(omp_get_num_procs()));
}

void encode_corpus(TextCorpus& corpus, const Tokenizer& tokenizer, SpecialTokens special, int threads,
                   const TakeTokens& take, SpecialNames* names) {
    std::vector<std::unique_ptr<Encoder>> encoders;
    for (int i = 0; i < threads; ++i) encoders.push_back(tokenizer.make_encoder(special));
    if (tokenizer.end_of_text() < 0) {
        fail(
            "tokenizer '{}': none of its files names an end-of-text token (eos_token or bos_token) to put in front of "
            "documents; name one with --document-token",
            tokenizer.name());
    }
    std::optional<SpecialNames> own_names;
    if (special == SpecialTokens::AsText && names == nullptr) names = &own_names.emplace(tokenizer);
    const auto cut = [&](std::string_view text, size_t from) {
        size_t place = encoders[0]->safe_cut(text, from);
        while (names != nullptr && place < text.size() && names->cuts_through(text, place)) {
            place = encoders[0]->safe_cut(text, place + 1);
        }
        return place;
    };
    const size_t batch = threads == 1 ? 1 : 4 * static_cast<size_t>(threads);
    std::vector<CorpusChunk> chunks;
    std::vector<std::vector<int32_t>> tokens(batch);
    ProgressBar progress("tokenizing", corpus.bytes());
    do {
        chunks.clear();
        for (CorpusChunk chunk; chunks.size() < batch && corpus.next(cut, &chunk);) chunks.push_back(chunk);
        parallel_for(threads, static_cast<int64_t>(chunks.size()), [&](int64_t i, int thread) {
            std::vector<int32_t>& out = tokens[static_cast<size_t>(i)];
            out.clear();
            corpus.read(chunks[static_cast<size_t>(i)], [&](std::string_view text, bool starts_document) {
                if (starts_document) out.push_back(tokenizer.end_of_text());
                if (names != nullptr) names->count(text);
                try {
                    encoders[static_cast<size_t>(thread)]->encode(text, !starts_document, &out);
                } catch (const Error& error) {
                    fail("{}: {}: {}", corpus.option(), corpus.where(chunks[static_cast<size_t>(i)]), error.what());
                }
            });
        });
        for (size_t i = 0; i < chunks.size(); ++i) take(chunks[i], tokens[i]);
        if (!chunks.empty()) progress.update(chunks.back().end_bytes);
    } while (!chunks.empty());
    if (own_names) own_names->report(corpus.option());
    corpus.report_skipped_lines();
}

}  // namespace llmc
