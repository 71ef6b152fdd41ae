// Encodes every text of a JSON-Lines file and decodes the tokens again, for dev/oracle/fuzz_tokenizers.py.
//
//   roundtrip TOKENIZER FILE
//
// FILE has a JSON string on every line. Prints a line for each: [ids with special tokens as text, ids with them as ids,
// text of the former, whether pieces cut at safe places give the same ids].
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/tokenizer.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace llmc {
namespace {

std::vector<int32_t> encode_in_pieces(Encoder& encoder, std::string_view text, size_t step) {
    std::vector<int32_t> tokens;
    for (bool continues = false; !text.empty(); continues = true) {
        const size_t cut = text.size() > step ? encoder.safe_cut(text, step) : text.size();
        encoder.encode(text.substr(0, cut), continues, &tokens);
        text.remove_prefix(cut);
    }
    return tokens;
}

void run(const std::string& reference, const std::string& path) {
    const auto tokenizer = make_tokenizer(reference);
    const auto plain = tokenizer->make_encoder(SpecialTokens::AsText);
    const auto special = tokenizer->make_encoder(SpecialTokens::AsIds);
    const MappedFile file(path);
    std::string_view rest = file.text();
    while (!rest.empty()) {
        const size_t end = std::min(rest.find('\n'), rest.size());
        const std::string text = nlohmann::json::parse(rest.substr(0, end)).get<std::string>();
        rest.remove_prefix(std::min(end + 1, rest.size()));
        std::vector<int32_t> ids, special_ids;
        plain->encode(text, /*continues=*/false, &ids);
        special->encode(text, /*continues=*/false, &special_ids);
        const bool pieces_agree = encode_in_pieces(*plain, text, 1) == ids &&
                                  encode_in_pieces(*plain, text, 20) == ids &&
                                  encode_in_pieces(*special, text, 5) == special_ids;
        const nlohmann::json line = {ids, special_ids, tokenizer->decode(ids), pieces_agree};
        std::printf("%s\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    }
}

}  // namespace
}  // namespace llmc

int main(int count, char** arguments) {
    if (count != 3) return 2;
    spdlog::set_level(spdlog::level::off);
    try {
        llmc::run(arguments[1], arguments[2]);
    } catch (const llmc::Error& error) {
        std::fprintf(stderr, "roundtrip: %s\n", error.what());
        return 1;
    }
    return 0;
}
