#!/usr/bin/env python3
"""One thread of Hugging Face tokenizers on GPT-2's vocabulary, for tokenize.sh.

    hf_tokenizers.py VOCAB MERGES TEXT TOKENS

Prints megabytes per second of the fastest of three ways to hand over the text: whole, in lines, in stretches of 10,000
characters. Fails unless its ids of the whole text are those in TOKENS, a 16-bit token file, after end-of-text.
"""
import os
import struct
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402


def main():
    vocab, merges, text_path, tokens_path = sys.argv[1:]
    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with open(text_path, encoding="utf-8", newline="") as file:
        text = file.read()
    with open(tokens_path, "rb") as file:
        content = file.read()
    ours = struct.unpack(f"<{(len(content) - 1024) // 2}H", content[1024:])
    if list(ours[1:]) != tokenizer.encode(text).ids:
        sys.exit("hf_tokenizers: other tokens than train_gpt's")
    stretches = [text[i:i + 10000] for i in range(0, len(text), 10000)]
    lines = text.splitlines(keepends=True)
    megabytes = len(text.encode()) / 1e6
    best = 0
    for encode in (lambda: tokenizer.encode(text), lambda: tokenizer.encode_batch_fast(lines),
                   lambda: tokenizer.encode_batch_fast(stretches)):
        begin = time.perf_counter()
        encode()
        best = max(best, megabytes / (time.perf_counter() - begin))
    print(f"{best:.2f}")


main()
