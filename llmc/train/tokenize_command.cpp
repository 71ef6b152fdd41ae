#include "llmc/train/tokenize_command.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/parallel_for.h"
#include "llmc/base/pending_output.h"
#include "llmc/base/printable.h"
#include "llmc/base/program_name.h"
#include "llmc/base/units.h"
#include "llmc/io/bpe_learn.h"
#include "llmc/io/chat/chat_template.h"
#include "llmc/io/encode_corpus.h"
#include "llmc/io/llmc_tokenizer.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/io/pipeline/unicode.h"
#include "llmc/io/text_corpus.h"
#include "llmc/io/token_file.h"
#include "llmc/io/tokenizer.h"
#include "llmc/io/tokenizer_files.h"
#include "llmc/train/setup.h"
#include "llmc/train/tokenize_rows.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// Sends the first tokens to validation shards and the others to training shards.
class SplitWriter {
  public:
    SplitWriter(const Options& options, const TextCorpus& corpus, const TokenFormat& format)
        : train_(options.out + "_train", format, options.shard_tokens),
          val_(options.out + "_val", format, options.shard_tokens),
          end_of_text_(format.end_of_text),
          whole_documents_(!options.jsonl_field.empty()),
          most_tokens_(options.val_tokens > 0 ? options.val_tokens : options.shard_tokens),
          val_bytes_(options.val_tokens > 0
                         ? corpus.bytes()
                         : std::llround(options.val_fraction * static_cast<double>(corpus.bytes()))) {}

    void take(const CorpusChunk& chunk, std::span<const int32_t> tokens) {
        const size_t count = in_validation_ ? validation_share(chunk, tokens) : 0;
        if (count < tokens.size()) in_validation_ = false;
        val_.append(tokens.first(count));
        train_.append(tokens.subspan(count));
    }
    void close() { TokenShardWriter::close_all({&train_, &val_}); }
    const TokenShardWriter& val() const { return val_; }
    const TokenShardWriter& train() const { return train_; }

  private:
    /// How many of a chunk's tokens are still for validation.
    size_t validation_share(const CorpusChunk& chunk, std::span<const int32_t> tokens) const {
        const auto bytes = static_cast<int64_t>(chunk.text.size());
        const int64_t wanted = std::clamp<int64_t>(val_bytes_ - (chunk.end_bytes - bytes), 0, bytes);
        auto count = static_cast<size_t>(static_cast<double>(tokens.size()) * static_cast<double>(wanted) /
                                         static_cast<double>(std::max<int64_t>(bytes, 1)));
        if (whole_documents_ && wanted < bytes) {
            while (count < tokens.size() && tokens[count] != end_of_text_) ++count;
        }
        return std::min(count, static_cast<size_t>(most_tokens_ - val_.tokens()));
    }

    TokenShardWriter train_, val_;
    int32_t end_of_text_;
    bool whole_documents_;
    int64_t most_tokens_;
    int64_t val_bytes_;
    bool in_validation_ = true;
};

/// Refuses to mix new shards with old ones, or with another process's, and to write over them.
void require_new_names(const std::string& out, FileLock* lock) {
    const std::string folder = std::filesystem::path(out).parent_path().string();
    if (!folder.empty()) make_directories(folder, "--out");
    lock_output(out, "--out", lock);
    std::string first, all;
    for (const char* ending : {"_val_*.bin", "_train_*.bin", "_val_*.marks", "_train_*.marks", "_tokenizer"}) {
        const std::vector<std::string> old = glob_paths(out + ending);
        if (old.empty() || !path_exists(old[0])) continue;
        if (first.empty()) first = old[0];
        all += fmt::format(" {}{}", shell_word(out), ending);
    }
    if (first.empty()) return;
    if (unfinished_shard(out).empty()) {
        fail_usage("--out={}: '{}' is there already; remove it, or choose another name", out, first);
    }
    fail_usage("--out={}: a tokenize that was killed has left a part of its files; remove them first: rm -r --{}", out,
               all);
}

TokenizerChoices choices_of(const Options& options) { return {options.document_token, options.tokenizer_pattern}; }

/// The tokenizer's files, beside the shards, if it has any. They have their name before what writes the shards is
/// called, and lose it where that fails.
template <typename CloseShards>
bool keep_tokenizer(const Options& options, const Tokenizer& tokenizer, CloseShards close_shards) {
    PendingOutput folder(options.out + "_tokenizer", "--out", OutputIs::Folder);
    bool has_files = false;
    folder.write([&] {
        has_files = copy_tokenizer(options.tokenizer, folder.temporary(), choices_of(options)) != options.tokenizer;
        keep_chat_template(options.chat_template, folder.temporary());
    });
    if (!options.llmc_tokenizer.empty()) write_llmc_tokenizer(tokenizer, options.llmc_tokenizer);
    try {
        if (has_files) folder.complete();
        close_shards();
    } catch (...) {
        folder.withdraw();
        throw;
    }
    return has_files;
}

/// How to train on what was written, and the names on stdout.
void say_how_to_train(const Options& options, bool has_validation, bool has_tokenizer,
                      const std::vector<std::string>& paths) {
    spdlog::info("train on them: {} --data='{}_train_*.bin'{}{}", program_name(), options.out,
                 has_validation ? fmt::format(" --val-data='{}_val_*.bin'", options.out) : "",
                 has_tokenizer ? "" : " --tokenizer=" + options.tokenizer);
    for (const std::string& path : paths) print_output(path + "\n");
}

void write_rows(const Options& options, const std::vector<DataFile>& files) {
    const std::unique_ptr<Tokenizer> tokenizer = make_given_tokenizer(options.tokenizer, "", choices_of(options));
    FileLock lock;
    require_new_names(options.out, &lock);
    bool has_files = false;
    const TokenizedRows rows = tokenize_rows(options, files, *tokenizer, [&](const std::function<void()>& close) {
        has_files = keep_tokenizer(options, *tokenizer, close);
    });
    spdlog::info("{} {}, {} of them for validation, of {} {}; {} are scored",
                 format_count(rows.train_tokens + rows.val_tokens), noun(rows.train_tokens + rows.val_tokens, "token"),
                 format_count(rows.val_tokens), format_count(rows.bytes), noun(rows.bytes, "byte"),
                 format_count(rows.scored));
    say_how_to_train(options, rows.val_tokens > 0, has_files, rows.paths);
}

void write_tokens(const Options& options, TextCorpus& corpus) {
    for (const char* name : {"chat-template", "score"}) {
        if (options.was_typed(name)) {
            fail_usage(
                "--{}: is about instruction rows, and the files are text; leave it out, or give "
                "--data-format=rows",
                name);
        }
    }
    const std::unique_ptr<Tokenizer> tokenizer = make_given_tokenizer(options.tokenizer, "", choices_of(options));
    FileLock lock;
    require_new_names(options.out, &lock);
    SplitWriter writer(options, corpus, format_for(*tokenizer));
    if (!tokenizer->describe_end_of_text().empty()) spdlog::info("{}", tokenizer->describe_end_of_text());
    const double begin = now_seconds();
    encode_corpus(corpus, *tokenizer, options.special_tokens ? SpecialTokens::AsIds : SpecialTokens::AsText,
                  threads_or_all(options.threads),
                  [&](const CorpusChunk& chunk, std::span<const int32_t> tokens) { writer.take(chunk, tokens); });
    if (writer.train().tokens() + writer.val().tokens() == 0) fail("tokenize: there is no text in the files");
    if (writer.train().tokens() == 0) {
        fail("tokenize: all {} tokens of the text are for validation; lower --val-tokens or --val-fraction",
             writer.val().tokens());
    }
    const double seconds = now_seconds() - begin;
    const bool has_files = keep_tokenizer(options, *tokenizer, [&] { writer.close(); });

    const int64_t total = writer.val().tokens() + writer.train().tokens();
    const auto bytes = static_cast<double>(corpus.bytes());
    spdlog::info("{} {}, {} of them for validation, of {} {}: {:.2f} bytes per token, {:.1f} MB/s", format_count(total),
                 noun(total, "token"), format_count(writer.val().tokens()), format_count(corpus.bytes()),
                 noun(corpus.bytes(), "byte"), bytes / static_cast<double>(total),
                 bytes / 1e6 / std::max(seconds, 1e-9));
    std::vector<std::string> paths = writer.val().paths();
    paths.insert(paths.end(), writer.train().paths().begin(), writer.train().paths().end());
    say_how_to_train(options, writer.val().tokens() > 0, has_files, paths);
}

WordCounts count_words(TextCorpus& corpus, int threads) {
    std::vector<WordCounts> counts(static_cast<size_t>(threads));
    ProgressBar progress("counting words", corpus.bytes());
    std::vector<CorpusChunk> chunks;
    do {
        chunks.clear();
        for (CorpusChunk chunk; chunks.size() < 4 * counts.size() && corpus.next(blank_after_letter, &chunk);)
            chunks.push_back(chunk);
        parallel_for(threads, static_cast<int64_t>(chunks.size()), [&](int64_t i, int thread) {
            const auto t = static_cast<size_t>(thread);
            corpus.read(chunks[static_cast<size_t>(i)], [&](std::string_view text, bool) { counts[t].add_text(text); });
        });
        if (!chunks.empty()) progress.update(chunks.back().end_bytes);
    } while (!chunks.empty());
    corpus.report_skipped_lines();
    for (size_t t = 1; t < counts.size(); ++t) counts[0].add(counts[t]);
    return std::move(counts[0]);
}

void learn_vocabulary(const Options& options, TextCorpus& corpus) {
    PendingOutput folder(options.out, "--out", OutputIs::Folder);
    const double begin = now_seconds();
    const LearnedBpe bpe = learn_bpe(count_words(corpus, threads_or_all(options.threads)), options.vocab_size);
    folder.write([&] {
        make_directories(folder.temporary(), "--out");
        write_bpe(bpe, folder.temporary());
    });
    folder.complete();
    const auto size = static_cast<int64_t>(bpe.tokens.size());
    if (size < options.vocab_size) {
        spdlog::warn("--vocab-size={}: the text has only {} tokens to learn, so the vocabulary is {}; give more text",
                     options.vocab_size, bpe.merges.size(), size);
    }
    spdlog::info("learned {} tokens from {} in {}; use them: {} --tokenizer={} --data=...",
                 format_count(static_cast<int64_t>(bpe.merges.size())), format_bytes(corpus.bytes()),
                 format_duration(now_seconds() - begin), program_name(), shell_word(folder.path()));
    print_output(folder.path() + "\n");
}

}  // namespace

void tokenize_command(const Options& options) {
    std::vector<DataFile> files = open_data_files(options.files, reading_of(options), "tokenize");
    if (!options.train_bpe && are_rows(files)) return write_rows(options, files);
    TextCorpus corpus(std::move(files), reading_of(options), "tokenize");
    if (options.train_bpe) {
        learn_vocabulary(options, corpus);
    } else {
        write_tokens(options, corpus);
    }
}

}  // namespace llmc
