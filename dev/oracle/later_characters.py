#!/usr/bin/env python3
"""Characters that the tokenizers library's patterns know and Unicode 14 did not: the table later_character_table.h.

    later_characters.py > llmc/io/pipeline/later_character_table.h

Needs a Python with Unicode 14 (3.11) and the tokenizers library.
"""
import unicodedata

from tokenizers import Regex, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf".split()

HEAD = """// Written by dev/oracle/later_characters.py: characters of Unicode 15 and 16 by general category.
#pragma once

#include <string_view>

namespace llmc {

struct LaterRange {
    char32_t first, last;
    std::string_view category;
};

// clang-format off
inline constexpr LaterRange kLaterRanges[] = {"""
TAIL = """};
// clang-format on

}  // namespace llmc"""


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    unborn = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn"]
    rows = []
    for category in CATEGORIES:
        split = pre_tokenizers.Split(Regex(rf"\p{{{category}}}"), "removed", invert=True)
        found = sorted(ord(c) for piece, _ in split.pre_tokenize_str("".join(unborn)) for c in piece)
        for c in found:
            if rows and rows[-1][1] == c - 1 and rows[-1][2] == category:
                rows[-1][1] = c
            else:
                rows.append([c, c, category])
    print(HEAD)
    line = "   "
    for first, last, category in sorted(rows):
        item = f'{{0x{first:X}, 0x{last:X}, "{category}"}},'
        if len(line) + len(item) > 118:
            print(line)
            line = "   "
        line += " " + item
    print(line)
    print(TAIL)


main()
