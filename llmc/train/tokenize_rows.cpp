#include "llmc/train/tokenize_rows.h"

#include "llmc/base/error.h"
#include "llmc/io/chat/row_reader.h"
#include "llmc/io/encode_corpus.h"
#include "llmc/io/token_file.h"
#include "llmc/train/setup.h"

#include <algorithm>
#include <cmath>

namespace llmc {

bool are_rows(const std::vector<DataFile>& files) {
    const auto is_rows = [](const DataFile& file) { return file.kind == DataKind::Rows; };
    const auto count = std::count_if(files.begin(), files.end(), is_rows);
    if (count == 0 || count == static_cast<std::ptrdiff_t>(files.size())) return count > 0;
    const auto other = std::find_if_not(files.begin(), files.end(), is_rows);
    fail("tokenize: {}, but {}; give files of one kind", std::find_if(files.begin(), files.end(), is_rows)->describe(),
         other->describe());
}

TokenizedRows tokenize_rows(const Options& options, const std::vector<DataFile>& files, const Tokenizer& tokenizer,
                            const std::function<void(const std::function<void()>& close)>& finish) {
    TokenizedRows done;
    for (const DataFile& file : files) done.bytes += file.file.size();
    const TokenFormat format = format_for(tokenizer);
    TokenShardWriter train(options.out + "_train", format, options.shard_tokens);
    TokenShardWriter val(options.out + "_val", format, options.shard_tokens);
    const bool by_tokens = options.val_tokens > 0;
    const int64_t most_tokens = by_tokens ? options.val_tokens : options.shard_tokens;
    const auto val_bytes = static_cast<int64_t>(std::llround(options.val_fraction * static_cast<double>(done.bytes)));
    RowReader reader(tokenizer, reading_of(options), "tokenize", threads_or_all(options.threads));
    bool in_validation = true;
    int64_t bytes_before = 0;
    for (const DataFile& file : files) {
        const RowCounts counts = reader.read(file, [&](const EncodedRow& row, int64_t, int64_t end_bytes) {
            const bool fits = val.tokens() + static_cast<int64_t>(row.tokens.size()) <= most_tokens;
            in_validation = in_validation && fits && (by_tokens || bytes_before + end_bytes <= val_bytes);
            (in_validation ? val : train).append_marked(row.tokens, row.marks);
        });
        reader.report(file.file.path(), counts);
        done.scored += counts.scored;
        bytes_before += file.file.size();
    }
    if (train.tokens() == 0) {
        fail("tokenize: all {} tokens of the rows are for validation; lower --val-tokens or --val-fraction",
             val.tokens());
    }
    finish([&] { TokenShardWriter::close_all({&train, &val}); });
    done.val_tokens = val.tokens();
    done.train_tokens = train.tokens();
    for (const TokenShardWriter* shards : {&val, &train}) {
        done.paths.insert(done.paths.end(), shards->paths().begin(), shards->paths().end());
    }
    return done;
}

}  // namespace llmc
