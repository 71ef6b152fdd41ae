#include "tests/fuzz/data_targets.h"

#include "llmc/io/chat/chat_template.h"
#include "llmc/io/chat/families.h"
#include "llmc/io/encode_corpus.h"
#include "llmc/io/marks_file.h"
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

/// The templates of families, and one with most of what templates have.
std::vector<std::string> template_seeds() {
    std::vector<std::string> seeds = {
        "{%- set ns = namespace(n=0, last='') -%}\n{# note #}\n{% for m in messages if m.role != 'x' %}\n"
        "  {%- if loop.first and 'content' in m %}{{ m['content'][1:-1] | trim | title }}{% elif not m %}{% break %}\n"
        "  {% else %}{{ (m.content.split(' ')[0] ~ ns.n) * 2 }}{% endif %}{% set ns.n = ns.n + loop.index0 // 2 %}\n"
        "{% endfor %}{% raw %}{{ x }}{% endraw %}{% generation %}{{ messages[-1].content | tojson(indent=2) }}"
        "{% endgeneration %}{% set x %}{{ range(3) | join(', ') }}{% endset %}{{ x.upper() if x is defined else none }}"
        "{% for k, v in {'a': 1.5, 'b': [true, none]}.items() %}{{ k }}={{ v }}{% else %}{{ 2 ** 3 % 5 }}{% endfor %}"
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}"};
    for (const ChatFamily& family : kChatFamilies) seeds.emplace_back(family.source);
    return seeds;
}

/// A file of marks for a token file.
std::string marks_of(const std::string& tokens, size_t count) {
    const TempDir dir;
    std::vector<uint8_t> marks(count, kScored);
    marks[0] = kDocumentStart;
    write_marks(dir / "x.marks", marks, checksum_of(std::as_bytes(std::span(tokens))));
    return slurp(dir / "x.marks");
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
    const std::string rows =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a <|endoftext|>\"},"
        "{\"role\":\"assistant\",\"content\":\" b\\n\"}]}\n{\"instruction\":\"x\",\"input\":\"y\",\"output\":\"z\"}\n"
        "{\"prompt\":\"p\",\"completion\":\"c\"}\n{\"text\":\"t\"}\n";
    const std::string array =
        "[{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"]},{\"}]},\n"
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"\\u00e9\"}],"
        "\"completion\":[{\"role\":\"assistant\",\"content\":\"c\"}]}]";
    const auto read_rows = [](const std::string& content, const std::string& place) {
        std::ofstream(place + "/x.jsonl", std::ios::binary) << content;
        for (const char* family : {"llama2", "qwen"}) {
            for (const bool skips : {false, true}) {
                try {
                    const DataReading reading = {
                        .data_format = "rows", .skip_bad_lines = skips, .chat_template = family, .score = "completion"};
                    use(*open_token_source(place + "/x.jsonl", "--data", nullptr, reading));
                } catch (const Error&) {
                }
            }
        }
    };
    const auto use_template = [](const std::string& content, const std::string& place) {
        std::ofstream(place + "/chat_template.jinja", std::ios::binary) << content;
        const std::vector<ChatMessage> messages = {{"system", "s"}, {"user", " \xc3\xa9\xff"}, {"assistant", "a b\n"}};
        const std::optional<ChatTemplate> found = find_chat_template("", place);
        for (const bool prompts : {false, true}) found->render(messages, prompts);
    };
    const auto read_marks = [](const std::string& content, const std::string& place) {
        std::ofstream(place + "/x.bin", std::ios::binary) << token_file(kGpt2Tokens, 40);
        std::ofstream(place + "/x.marks", std::ios::binary) << content;
        use(*open_token_source(place + "/x.bin", "--data"));
    };
    return {{"rows", {rows, array, gzip_of(rows)}, read_rows},
            {"chat template", template_seeds(), use_template},
            {"marks", {marks_of(token_file(kGpt2Tokens, 40), 40)}, read_marks},
            {"data", files, open},
            {"JSON Lines", {lines, zstd_of(lines), gzip_of(lines)}, read_lines}};
}

}  // namespace llmc
