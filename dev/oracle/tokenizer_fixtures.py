#!/usr/bin/env python3
"""Golden files for tests/io/pipeline/test_kinds.cpp: every kind of tokenizer_kinds.py, hard texts, and checksums of
what the tokenizers library makes of them. The README beside this file says what it needs.

    tokenizer_fixtures.py [--output tests/golden/tokenizers/kinds.json]

Vocabularies that kinds share are stored once: a kind's "base" says which is its model's vocab and merges.
"""
import argparse
import json
import pathlib

import tokenizers
import xxhash
from tokenizer_kinds import KINDS, TEXT

HARD = TEXT + [
    "", " ", "\n", "  ", "a", " a", "a ", "\u0301", "e\u0301e", "<|endoftext|>",
    "x<|endoftext|><|im_start|> y <|endoftext", "a <left> b <right>  c  <both>\n d",
    "fox foxes afox fox", "GRÖSSE größe Größe Gro\u0308ße", "<a<ab><ab>b<abc",
    "<unk> <s></s> <0x41><0xE4> \u2581a\u2581 \u0120a </w>##b", "IT'S it'ſ I'LL we'Ve 'd", "１２３ 12345 ٣٤ Ⅷ½x",
    "a\u0085b\u00a0c\u3000\u3000d\u200b\ufeff\u180e.", "tabs\t\tand\r\n\r\nends \n \n\n\n  x", "\x00\x01\x7fé\x1b",
    "ǅ ẞ ß ﬀ ﷺ ㎏ ⓐ Å Σς İı", "\u1112\u1161\u11ab \uac00\u11a8 \u0f71\u0f72 \u0958 \U0002f800", "中文abc中文 123中",
    "😀👩‍👧👍🏽🇩🇪 \U0010ffff\ue000\ufdd0", "!!!...---/// \"a\" 'b' $x^2+|y~` a_b_c @#", "oo-oor abcdef-ab aaaa bb 0a1b",
    "long" * 40 + "!" * 60 + "é" * 30 + "中" * 20 + " " * 40 + "end",
]


def checksum(content):
    return f"{xxhash.xxh3_64_intdigest(content):016x}"


def of_ids(ids):
    return checksum(b"".join(i.to_bytes(4, "little") for i in ids))


def results(content):
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    end = next(i for i in map(tokenizer.token_to_id, ["<|endoftext|>", "</s>"]) if i is not None)
    rows = []
    for text in HARD:
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode([i for i in plain if i != end], skip_special_tokens=False)
        rows.append([len(plain), of_ids(plain), of_ids(special),
                     "" if "\ufffd" in decoded else checksum(decoded.encode())])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/golden/tokenizers/kinds.json"))
    args = parser.parse_args()
    bases, kinds = [], {}
    for name, make in KINDS.items():
        content = make()
        rows = results(content)
        base = {key: content["model"].pop(key) for key in ("vocab", "merges") if key in content["model"]}
        if base not in bases:
            bases.append(base)
        kinds[name] = {"base": bases.index(base), "tokenizer": content, "expected": rows}
    dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))  # noqa: E731
    lines = [f'"made_with":"tokenizers {tokenizers.__version__}"', f'"texts":{dump(HARD)}',
             '"bases":[\n' + ",\n".join(map(dump, bases)) + "]",
             '"kinds":{\n' + ",\n".join(f"{dump(name)}:{dump(kind)}" for name, kind in kinds.items()) + "}"]
    args.output.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    print(f"{args.output}: {len(kinds)} kinds, {args.output.stat().st_size} bytes")


main()
