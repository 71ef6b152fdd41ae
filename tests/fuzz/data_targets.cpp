#include "tests/fuzz/data_targets.h"

#include "llmc/io/encode_corpus.h"
#include "llmc/io/token_file.h"
#include "llmc/io/token_scan.h"
#include "llmc/io/token_source.h"
#include "tests/io/packed_file.h"
#include "tests/io/temp_dir.h"

#include <cstring>

namespace llmc {
namespace {

std::string token_file(const TokenFormat& format, int32_t count) {
    std::string bytes(kTokenFileHeaderBytes, '\0');
    const int32_t header[] = {format.magic, format.version, count};
    std::memcpy(bytes.data(), header, sizeof header);
    for (int32_t i = 0; i < count; ++i) bytes.append(reinterpret_cast<const char*>(&i), size_t(format.item_bytes));
    return bytes;
}

void use(const TokenSource& source) {
    std::vector<int32_t> tokens(static_cast<size_t>(std::min<int64_t>(source.size(), 100'000)));
    source.read(0, tokens);
    source.where(source.size() - 1);
    source.describe();
    largest_id(source, 1);
    find_id_beyond(source, 1000);
}

}  // namespace

std::vector<FuzzTarget> data_targets() {
    const std::string text = "One document <|endoftext|> and\nanother, 1234567890 times.\r\n";
    const std::string lines =
        "{\"id\": 1, \"text\": \"the man said \\u0041\\ud83d\\ude00\"}\n\n{\"text\": \"\"}\r\n{\"text\": \"a\\n\"}\n"
        "{\"meta\": {\"x\": [1, 2.5, null, true]}, \"text\": \"\xc3\xa9\"}";
    const std::string csv = "id,text\r\n1,\"a, b\"\r\n";
    const std::string utf16("\xff\xfeh\0e\0l\0l\0o\0", 12);
    const std::vector<std::string> files = {text,
                                            lines,
                                            csv,
                                            utf16,
                                            token_file(kGpt2Tokens, 40),
                                            token_file(kLlama3Tokens, 20),
                                            gzip_of(text),
                                            zstd_of(lines),
                                            gzip_of(token_file(kGpt2Tokens, 40))};
    const auto open = [](const std::string& content, const std::string& place) {
        for (const char* name : {"/x.txt", "/train.bin"}) {
            std::ofstream(place + name, std::ios::binary) << content;
            for (const char* format : {"auto", "uint16", "text"}) {
                try {
                    use(*open_token_source(place + name, "--data", nullptr, {.data_format = format}));
                } catch (const Error&) {
                }
            }
        }
    };
    const auto read_lines = [](const std::string& content, const std::string& place) {
        std::ofstream(place + "/x.jsonl", std::ios::binary) << content;
        for (const bool skips : {false, true}) {
            try {
                const DataReading reading = {.jsonl_field = "text", .special_tokens = skips, .skip_bad_lines = skips};
                TextCorpus corpus({place + "/x.jsonl"}, reading, "tokenize");
                encode_corpus(corpus, ByteTokenizer(), skips ? SpecialTokens::AsIds : SpecialTokens::AsText, 1,
                              [](const CorpusChunk&, std::span<const int32_t>) {});
            } catch (const Error&) {
            }
        }
    };
    return {{"data", files, open}, {"JSON Lines", {lines, zstd_of(lines), gzip_of(lines)}, read_lines}};
}

}  // namespace llmc
