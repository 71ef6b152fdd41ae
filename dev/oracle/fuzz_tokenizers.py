#!/usr/bin/env python3
"""Random texts through train_gpt's tokenizers and the tokenizers library: ids with special tokens as text and as ids,
and the text of the ids. make build/release/bench/roundtrip first; the README beside this file says what Python needs.

    fuzz_tokenizers.py [--texts 100000] [--kinds NAME,...] [--folder FOLDER] [--seed N] [--roundtrip PROGRAM]
                       [--every-character]

Prints a row for each kind of tokenizer_kinds.py and the first texts that differ; fails if any does. Text on which the
library gives up is passed over. --folder takes a tokenizer.json instead, such as that of `tokenize --train-bpe`.
--every-character takes every character once, between letters and beside blanks,
instead of random texts.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "true"
from tokenizers import Tokenizer  # noqa: E402
from tokenizer_kinds import KINDS, TEXT  # noqa: E402

WORDS = [word for line in TEXT for word in line.split(" ")]
ODD = ["\u0301", "\u0323\u0307", "\u0345", "\u0f71\u0f72", "\u1112\u1161", "\u11a8", "\u200d", "\u200b", "\ufeff",
       "\u180e", "\u00ad", "\u2028", "\u0085", "\x00", "\x01", "\x0b", "\x1c", "\x7f", "\ufffd", "\U0010ffff", "\ue000",
       "\u0378", "İ", "ſ", "ß", "ẞ", "ﬀ", "ǅ", "Σ", "ς", "K", "Å", "ª", "ⓐ", "㎏", "ﷺ", "\u0958", "\u2126",
       "\U0001d15e", "\U0002f800"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|endof", "text|>", "<s>", "</s>", "<unk>", "<0x41>", "<0xE4>", "▁",
           "▁▁", "Ġ", "</w>", "##", "<left>", "<right>", "<both>", "fox", "foxes", "größe", "Größe", "GRÖSSE", "<a",
           "<ab>", "<abc", "<tool>"]
BLANKS = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2003"]
ENDS = ["'s", "'S", "'ſ", "'ll", "'LL", "'re", "'Ve", "'", "’s", "'t", "'d", "'m"]
SCRIPTS = [(0x20, 0x7e), (0xa0, 0x24f), (0x250, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff), (0xe00, 0xfff),
           (0x1000, 0x1fff), (0x2000, 0x2fff), (0x3000, 0x4dbf), (0x4e00, 0x9fff), (0xa000, 0xd7ff), (0xe000, 0xffff),
           (0x10000, 0x1ffff), (0x20000, 0x323af), (0xe0000, 0x10ffff)]


def character(rng):
    first, last = rng.choice(SCRIPTS)
    return chr(rng.randint(first, last))


def piece(rng):
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(WORDS)
    if kind < 5:
        return rng.choice(BLANKS)
    if kind == 5:
        return "".join(character(rng) for _ in range(rng.randint(1, 4)))
    if kind == 6:
        first, last = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 6)))
    if kind == 7:
        return rng.choice(ODD) * rng.choice([1, 1, 1, 2, 3])
    if kind == 8:
        return rng.choice(SPECIAL)
    if kind == 9:
        return str(rng.randrange(10 ** rng.randint(1, 9)))
    if kind == 10:
        return rng.choice(ENDS)
    return rng.choice("aeEx.,-!_/()[]{}<>&|*") * rng.randint(1, 4)


def random_text(rng):
    text = "".join(piece(rng) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])))
    return "".join(c for c in text if not 0xd800 <= ord(c) < 0xe000)


def every_character():
    points = [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    return [f"a{c}b {c}1{c} {c}{c}'{c}" for c in points]


def library_results(tokenizer, texts):
    results = []
    for special_as_text in (True, False):
        tokenizer.encode_special_tokens = special_as_text
        try:
            encoded = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        except BaseException:  # One by one, to see which; it panics, too.
            encoded = []
            for text in texts:
                try:
                    encoded.append(tokenizer.encode(text, add_special_tokens=False).ids)
                except BaseException:
                    encoded.append(None)
        results.append(encoded)
    return results


def without(ids, end):
    return [i for i in ids if i != end]


def fuzz(content, texts, roundtrip, folder):
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "texts").write_text("".join(json.dumps(t) + "\n" for t in texts))
    tokenizer = Tokenizer.from_str(json.dumps(content))
    plain, special = library_results(tokenizer, texts)
    end = tokenizer.token_to_id("<|endoftext|>")
    end = tokenizer.token_to_id("</s>") if end is None else end
    run = subprocess.run([roundtrip, folder, folder / "texts"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         encoding="utf-8", errors="replace")
    lines = run.stdout.split("\n")[:-1]
    if run.returncode != 0 or len(lines) != len(texts):
        return [("run", "", run.stderr.strip()[-300:], "")], 0
    wanted = tokenizer.decode_batch([without(ids or [], end) for ids in plain], skip_special_tokens=False)
    differences = []
    for text, a, b, decoded, line in zip(texts, plain, special, wanted, lines):
        ids, special_ids, got, pieces_agree = json.loads(line)
        if a is not None and ids != a:
            differences.append(("ids", text, ids, a))
        elif b is not None and special_ids != b:
            differences.append(("special ids", text, special_ids, b))
        elif a is not None and "\ufffd" not in decoded and got != decoded:
            differences.append(("text", text, got, decoded))
        elif not pieces_agree:
            differences.append(("pieces", text, "", ""))
    return differences, plain.count(None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--kinds")
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--roundtrip", default="build/release/bench/roundtrip")
    parser.add_argument("--every-character", action="store_true")
    args = parser.parse_args()
    kinds = KINDS
    if args.kinds:
        kinds = {name: KINDS[name] for name in args.kinds.split(",")}
    if args.folder:
        kinds = {str(args.folder): lambda: json.loads((args.folder / "tokenizer.json").read_text(encoding="utf-8"))}
    failed = 0
    for name, make in kinds.items():
        rng = random.Random(f"{args.seed} {name}")
        texts = every_character() if args.every_character else [random_text(rng) for _ in range(args.texts)]
        with tempfile.TemporaryDirectory() as folder:
            differences, lost = fuzz(make(), texts, os.path.abspath(args.roundtrip), pathlib.Path(folder))
        print(f"{name:26} {len(texts):8} texts {len(differences):7} differ {lost:7} passed over", flush=True)
        for what, text, got, wanted in differences[:2]:
            print(f"    {what} of {text!r}\n      here    {got}\n      library {wanted}", flush=True)
        failed += bool(differences)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
