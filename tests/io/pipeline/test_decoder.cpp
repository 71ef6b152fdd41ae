#include "llmc/io/pipeline/decoder.h"

#include <gtest/gtest.h>

#include <utility>

namespace llmc {
namespace {

using Texts = std::vector<std::string>;

template <typename... Stages>
Decoder decoder_of(Stages... stages) {
    std::vector<std::unique_ptr<DecoderStage>> all;
    (all.push_back(std::move(stages)), ...);
    return Decoder(std::move(all));
}

TEST(Decoder, BytesAreSpelled) {
    const Decoder decoder = decoder_of(make_byte_level_decoder());
    EXPECT_EQ(decoder.decode(Texts{"\u0120"
                                   "a",
                                   "\u00c3", "\u00a9"}),
              " a\u00e9");
    EXPECT_EQ(decoder.decode(Texts{"a b"}), "a b");  // No spelling: as it is.
    EXPECT_EQ(decoder.decode_next("\u0120x"), " x");
}

TEST(Decoder, Llama2s) {
    const Decoder decoder = decoder_of(make_literal_replace_decoder("\u2581", " ", "t"), make_byte_fallback_decoder(),
                                       make_fuse_decoder(), make_strip_decoder(" ", 1, 0));
    EXPECT_EQ(decoder.decode(Texts{"\u2581\u2581Hey", "\u2581you", "<0xC3>", "<0xA9>", "<0xZZ>"}),
              " Hey you\u00e9<0xZZ>");
    EXPECT_EQ(decoder.decode_next("\u2581you"), " you");
    EXPECT_EQ(decoder.decode(Texts{}), "");
}

TEST(Decoder, MetaspaceSuffixAndNone) {
    const Decoder metaspace = decoder_of(make_metaspace_decoder("\u2581", true));
    EXPECT_EQ(metaspace.decode(Texts{"\u2581Hey", "\u2581my", "\u2581"}), "Hey my ");
    EXPECT_EQ(decoder_of(make_metaspace_decoder("\u2581", false)).decode(Texts{"\u2581Hey"}), " Hey");
    const Decoder suffix = decoder_of(make_suffix_decoder("</w>"));
    EXPECT_EQ(suffix.decode(Texts{"th", "e</w>", "end</w>"}), "the end");
    EXPECT_EQ(Decoder().decode(Texts{"a", "b"}), "a b");
    EXPECT_EQ(Decoder().decode_next("b"), " b");
}

}  // namespace
}  // namespace llmc
