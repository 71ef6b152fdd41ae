#!/usr/bin/env python3
"""Hugging Face tokenizers on one thread, for tokenize.sh.

    hf_tokenizers.py make FOLDER VOCAB MERGES [SENTENCEPIECE_MODEL]
    hf_tokenizers.py time TOKENIZER_JSON TEXT TOKENS

`make` writes FOLDER/NAME/tokenizer.json in the forms of four families, with the vocabularies of GPT-2 and, where the
sentencepiece package and a model are there, of that model; it prints the names. `time` prints megabytes per second of
the fastest of three ways to hand over the text: whole, in lines, in stretches of 10,000 characters. It fails unless the
ids of the whole text are those in TOKENS, a token file, after its first.
"""
import json
import os
import pathlib
import struct
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def over_bytes(vocab, merges, pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def llama2(path):
    """A SentencePiece model as BPE: any two pieces that make a third merge, in the order of its score."""
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    vocab = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    merges = []
    for piece, i in vocab.items():
        for k in range(1, len(piece)):
            if piece[:k] in vocab and piece[k:] in vocab:
                merges.append((-model.get_score(i), vocab[piece[:k]], vocab[piece[k:]], piece[:k], piece[k:]))
    merges = [(left, right) for *_, left, right in sorted(merges)]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def make(folder, vocab, merges, sentencepiece_model=None):
    kinds = {"gpt2": over_bytes(vocab, merges, pre_tokenizers.ByteLevel(add_prefix_space=False)),
             "llama3": over_bytes(vocab, merges, split_then_bytes(LLAMA3)),
             "qwen2": over_bytes(vocab, merges, split_then_bytes(QWEN2), normalizers.NFC())}
    if sentencepiece_model:
        kinds["llama2"] = llama2(sentencepiece_model)
    for name, tokenizer in kinds.items():
        place = pathlib.Path(folder) / name
        place.mkdir()
        content = json.loads(tokenizer.to_str())
        content["model"]["ignore_merges"] = name == "llama3"
        (place / "tokenizer.json").write_text(json.dumps(content))
    print(*kinds)


def read_tokens(path):
    with open(path, "rb") as file:
        content = file.read()
    kind = "H" if struct.unpack("<i", content[:4])[0] == 20240520 else "I"
    return list(struct.unpack(f"<{(len(content) - 1024) // struct.calcsize(kind)}{kind}", content[1024:]))


def measure(tokenizer_path, text_path, tokens_path):
    tokenizer = Tokenizer.from_file(tokenizer_path)
    with open(text_path, encoding="utf-8", newline="") as file:
        text = file.read()
    if read_tokens(tokens_path)[1:] != tokenizer.encode(text, add_special_tokens=False).ids:
        sys.exit("hf_tokenizers: other tokens than train_gpt's")
    stretches = [text[i:i + 10000] for i in range(0, len(text), 10000)]
    megabytes = len(text.encode()) / 1e6
    best = 0
    for pieces in ([text], text.splitlines(keepends=True), stretches):
        begin = time.perf_counter()
        tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        best = max(best, megabytes / (time.perf_counter() - begin))
    print(f"{best:.2f}")


{"make": make, "time": measure}[sys.argv[1]](*sys.argv[2:])
