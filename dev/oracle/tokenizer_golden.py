#!/usr/bin/env python3
"""Golden files for the tokenizers: small vocabularies, a text that is hard on them, and what the reference libraries
make of it. Run with tokenizers, tiktoken, sentencepiece and xxhash from PyPI; the README beside this file says how.

    tokenizer_golden.py [--data FOLDER] [--output-dir tests/golden/tokenizers]

FOLDER may hold gpt2_encoder.json, gpt2_vocab.bpe, llama2_tokenizer.model and tinyshakespeare.txt; checksums of their
encodings are then written, too.
"""
import argparse
import base64
import io
import json
import pathlib
import re

import sentencepiece
import tiktoken
import tiktoken.load
import tokenizers
import xxhash
from tokenizers import AddedToken, Regex, models, pre_tokenizers, trainers

GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXT = b"".join([
    "The quick brown fox can't jump; it's what they'll say, and we've HEARD IT'S so.\n".encode(),
    "Line ends:\r\nthen\r\n\r\n  indented\r\n\ttabbed\t\tand trailing blanks   \n\n\n   \n".encode(),
    "Numbers 1 12 123 1234 12345678.90 and ½ ² Ⅷ ٣٤٥ १२३ 1,000,000th x86-64\n".encode(),
    "Grüße, façade, naïve, smørrebrød, Łódź, İstanbul, ſharp ſ: it'ſ\n".encode(),
    "Combining: e\u0301 n\u0303 o\u0302\u0323 Z\u0336a\u0336l\u0336 \u0301alone\n".encode(),
    "Русский текст, ελληνικά κείμενα, עברית, العربيّة, हिन्दी में लिखा है, ภาษาไทยไม่มีช่องว่าง\n".encode(),
    "中文没有空格。日本語の文章、カタカナとひらがな！한국어 문장입니다. 全角　空白\u3000\u3000和１２３\n".encode(),
    "Emoji: 😀 👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ ☃ and 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 😀😀😀\n".encode(),
    "Blanks: a\u00a0b\u2003c\u2028d\u2029e\u0085f\u200bg\u180eh\ufeffi\u202fj\u205fk\u1680l \u00a0 \u180e \n".encode(),
    b"NULs: \x00 \x00\x00a\x00b\x01\x02\x7f\x1b[0m end\n",
    "Code: for (int i=0;i<n;++i){ x[i]+=y[i]*2; } // <|endoftext|> not <|end\n".encode(),
    "Special: <|endoftext|><|begin_of_text|>a <|eot_id|> b<turn>c <turn> d</turn>\n".encode(),
    b"Not UTF-8: \xff \xfe\xfd a\x80b \xc3( \xe2\x82 \xe2\x28\xa1 \xf0\x9f\x98 \xed\xa0\x80 \xc0\xaf "
    b"\xf4\x90\x80\x80\xc3\n",
    b"Latin-1: caf\xe9 na\xefve \xa9 and UTF-8 again: caf\xc3\xa9 \xc2\xa9\n",
    ("long" * 60 + "!" * 90 + "é" * 40 + "中" * 33 + " " * 70 + "end\n").encode(),
    "The end of the text, the end of the test, the rest of the best\n\n  ".encode(),
])


def runs(text):
    """Stretches of valid UTF-8 as str, and single other bytes as bytes, in their order."""
    for part in re.split("([\udc80-\udcff])", text.decode("utf-8", "surrogateescape")):
        if re.fullmatch("[\udc80-\udcff]", part):
            yield part.encode("utf-8", "surrogateescape")
        elif part:
            yield part


def valid_runs(text):
    return [run for run in runs(text) if isinstance(run, str)]


def encode_runs(text, encode, byte_token):
    return [id for run in runs(text) for id in (encode(run) if isinstance(run, str) else [byte_token(run)])]


def train_byte_level(pre_tokenizer, size, special):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, special_tokens=special, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(valid_runs(TEXT), trainer)
    return tokenizer


def byte_alphabet():
    """GPT-2's character for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def golden_learned(folder):
    """Merges that another trainer learns from the text."""
    trained = train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 256 + 180, [])
    merges = [m if isinstance(m, str) else " ".join(m) for m in json.loads(trained.to_str())["model"]["merges"]]
    (folder / "learned_merges.txt").write_text("".join(f"{m}\n" for m in merges), encoding="utf-8", newline="")


def golden_tokenizer_json(folder):
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    both = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = train_byte_level(both, 500, ["<|begin_of_text|>", "<|endoftext|>"])
    tokenizer.add_special_tokens([AddedToken("<|eot_id|>", normalized=False, special=True)])
    tokenizer.add_tokens([AddedToken("<turn>", normalized=False), AddedToken("</turn>", normalized=False),
                          AddedToken("  \n", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    alphabet = byte_alphabet()

    def encode(special_as_text):
        tokenizer.encode_special_tokens = special_as_text
        return encode_runs(TEXT, lambda run: tokenizer.encode(run, add_special_tokens=False).ids,
                           lambda byte: tokenizer.token_to_id(alphabet[byte[0]]))

    return {"tokenizer_json": encode(True), "tokenizer_json_special": encode(False)}


def golden_ranks(folder):
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    both = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    vocab = train_byte_level(both, 450, []).get_vocab()
    byte_of = {c: b for b, c in byte_alphabet().items()}
    ranks = {bytes(byte_of[c] for c in token): id for token, id in vocab.items()}
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in sorted(ranks.items(), key=lambda t: t[1])]
    (folder / "ranks.tiktoken").write_bytes(b"".join(lines))
    reference = tiktoken.Encoding("golden", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})
    return {"ranks": encode_runs(TEXT, reference.encode_ordinary, reference.encode_single_token)}


def encode_sentencepiece(processor, text):
    """Bytes that are not UTF-8 go in as U+FFFD, which small vocabularies spell in bytes, and are put back."""
    assert processor.is_byte(processor.encode("a\ufffd")[-1])
    spelled = [processor.piece_to_id(f"<0x{b:02X}>") for b in b"\xef\xbf\xbd"]
    others = [run for run in runs(text) if isinstance(run, bytes)]
    assert "\ufffd" not in text.decode("utf-8", "ignore")
    ids = processor.encode("".join(run if isinstance(run, str) else "\ufffd" for run in runs(text)))
    out = []
    while ids:
        if ids[:3] == spelled:
            out.append(processor.piece_to_id(f"<0x{others.pop(0)[0]:02X}>"))
            ids = ids[3:]
        else:
            out.append(ids.pop(0))
    assert not others
    return out


def golden_sentencepiece(folder):
    model = io.BytesIO()
    lines = [line for run in valid_runs(TEXT) for line in run.replace("\0", "").split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, character_coverage=0.98, minloglevel=2)
    (folder / "sentencepiece.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return {"sentencepiece": encode_sentencepiece(processor, TEXT)}


def checksum(ids):
    return f"{xxhash.xxh3_64_intdigest(b''.join(i.to_bytes(4, 'little') for i in ids)):016x}"


def golden_data(data):
    """Counts and checksums of encodings by large vocabularies, which are not stored."""
    shakespeare = (data / "tinyshakespeare.txt").read_bytes().decode()
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(data / "gpt2_vocab.bpe"), str(data / "gpt2_encoder.json"))
    gpt2 = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    llama2 = sentencepiece.SentencePieceProcessor(model_file=str(data / "llama2_tokenizer.model"))
    encodings = {
        "gpt2_shakespeare": gpt2.encode_ordinary(shakespeare),
        "gpt2_text": encode_runs(TEXT, gpt2.encode_ordinary, gpt2.encode_single_token),
        "llama2_shakespeare": llama2.encode(shakespeare),
        "llama2_text": llama2.encode("".join(valid_runs(TEXT))),
    }
    return {name: {"tokens": len(ids), "xxh3": checksum(ids)} for name, ids in encodings.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--output-dir", type=pathlib.Path, default=pathlib.Path("tests/golden/tokenizers"))
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "text.bin").write_bytes(TEXT)
    golden_learned(args.output_dir)
    expected = {**golden_tokenizer_json(args.output_dir), **golden_ranks(args.output_dir),
                **golden_sentencepiece(args.output_dir)}
    if args.data:
        expected.update(golden_data(args.data))
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
    (args.output_dir / "expected.json").write_text("{" + lines + "}\n")


main()
