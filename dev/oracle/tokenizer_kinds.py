"""Small tokenizers of every kind that train_gpt reads, made with the tokenizers library from a text of our own. The
names say which family's form a kind has, or which stage it is about; vocabularies and texts are synthetic.

KINDS maps a name to a function that returns the content of tokenizer.json.
"""
import functools
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
          r"|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDS}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDS}|\p{{N}}{{1,3}}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
HAN_APART = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXT = [
    "The quick brown fox can't jump; it's what they'll say, and we've heard it's so. I'm sure he'd say: you're right!",
    "THE END OF THE TEST IS THE REST OF THE BEST, SAID THE OTHERS; O'BRIEN'S AND JOHN'LL.\n\n  indented\n\ttabbed\n",
    "Numbers 1 12 123 1234 12345678.90 and ½ ² Ⅷ ٣٤٥ १२३ 1,000,000th x86-64, 3.14159 or 2026-01-02\r\n\r\n",
    "Grüße, façade, naïve, smørrebrød, Łódź, İstanbul, ſharp: it'ſ; Ångström, ﬁne ﬂour, Å, ①②, ｆｕｌｌ　ｗｉｄｔｈ",
    "Combining: e\u0301 n\u0303 o\u0302\u0323 Z\u0336a\u0336l\u0336 and \u1112\u1161\u11ab 한국어 문장입니다.",
    "Русский текст, ελληνικά κείμενα σοφός, עברית, العربيّة, हिन्दी में लिखा है, ภาษาไทยไม่มีช่องว่าง",
    "中文没有空格。日本語の文章、カタカナとひらがな！全角\u3000空白\u3000\u3000和１２３。",
    "Emoji 😀 👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ ☃ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈; blanks a\u00a0b\u2003c\u2028d\u2029e\u0085f\u200bg\ufeffh",
    "for (int i = 0; i < n; ++i) { x[i] += y[i] * 2; }  // see <https://example.org/a/b?c=d&e=f>\n" * 2,
    "  two blanks,   three blanks,    four, and a tab\tbehind.   \n \n  \n",
]
PLAIN = " ".join(line for line in TEXT if line.isascii())

SPECIAL = ["<|endoftext|>", "<|im_start|>"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def sequence(*stages):
    return pre_tokenizers.Sequence(list(stages))


def byte_level(prefix=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def to_json(tokenizer, **model):
    """The tokenizer's file, with fields of the model set."""
    content = json.loads(tokenizer.to_str())
    content["model"].update(model)
    return content


@functools.cache
def trained_bytes():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level()
    trainer = trainers.BpeTrainer(vocab_size=420, min_frequency=2, show_progress=False, special_tokens=SPECIAL,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def bpe_over_bytes(pre_tokenizer, normalizer=None, added=(), **model):
    tokenizer = Tokenizer.from_str(trained_bytes())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens(list(added))
    return to_json(tokenizer, **model)


@functools.cache
def trained_characters(stage, fallback, unk, affixes=(), lines=tuple(TEXT)):
    tokenizer = Tokenizer(models.BPE(unk_token=unk))
    tokenizer.pre_tokenizer = STAGES[stage]
    special = [unk] * (unk is not None) + ["<s>", "</s>"] + (BYTES if fallback else [])
    trainer = trainers.BpeTrainer(vocab_size=420 + len(special), min_frequency=2, show_progress=False,
                                  special_tokens=special, limit_alphabet=150, **dict(affixes))
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer.to_str()


def bpe_over_characters(pre_tokenizer=None, normalizer=None, decoder=None, stage="metaspace", fallback=True,
                        unk="<unk>", lines=tuple(TEXT), **model):
    """`stage` cuts the text for training, whatever the tokenizer itself does."""
    affixes = tuple((k, model[k]) for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in model)
    tokenizer = Tokenizer.from_str(trained_characters(stage, fallback, unk, affixes, lines))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    content = to_json(tokenizer, byte_fallback=fallback, **model)
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in BYTES]
    content["pre_tokenizer"] = None if pre_tokenizer is None else json.loads(pre_tokenizer.__getstate__())
    content["decoder"] = decoder and json.loads(decoder.__getstate__())
    return content


def unigram(pre_tokenizer, normalizer=None, fallback=True, size=300):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    special = ["<unk>", "<s>", "</s>"] + (BYTES if fallback else [])
    trainer = trainers.UnigramTrainer(vocab_size=size + len(special), show_progress=False, special_tokens=special,
                                      unk_token="<unk>")
    tokenizer.train_from_iterator(TEXT, trainer)
    content = to_json(tokenizer, byte_fallback=fallback)
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in BYTES]
    # Training does not end with the same scores every time.
    content["model"]["vocab"] = [[token, round(score, 2)] for token, score in content["model"]["vocab"]]
    content["decoder"] = json.loads(decoders.Metaspace().__getstate__())
    return content


STAGES = {"metaspace": pre_tokenizers.Metaspace(), "whitespace": pre_tokenizers.Whitespace(),
          "blanks": pre_tokenizers.WhitespaceSplit(), "with blanks": split(r"\S+ |\s+")}
LLAMA2_DECODER = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                    decoders.Strip(" ", 1, 0)])
FLAGS = [AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
         AddedToken("<both>", lstrip=True, rstrip=True, normalized=False, special=True),
         AddedToken("fox", single_word=True, normalized=False), AddedToken("Größe", normalized=True),
         AddedToken("<a", normalized=False), AddedToken("<ab>", normalized=False), AddedToken("  ", normalized=True),
         AddedToken("    ", normalized=True), AddedToken("\n\n", normalized=False)]


def words_with_spelled_bytes():
    """A stage behind ByteLevel sees the spelling."""
    return bpe_over_bytes(sequence(byte_level(), split("Ġ", "merged_with_next"), pre_tokenizers.Digits(True)))


def spelled_by_normalizer():
    content = bpe_over_bytes(byte_level(regex=False))
    content["normalizer"] = {"type": "ByteLevel"}
    content["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "Ġ?[A-Za-z]+|Ċ+|."}, "behavior": "Isolated",
                                "invert": False}
    return content


def old_metaspace():
    content = bpe_over_characters(pre_tokenizers.Metaspace(), decoder=LLAMA2_DECODER)
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    return content


def merges_as_lines():
    content = bpe_over_bytes(byte_level())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    return content


def missing_bytes():
    content = bpe_over_bytes(byte_level())
    vocab = content["model"]["vocab"]
    gone = {"é", "ä", "à", "z"}
    content["model"]["vocab"] = {t: i for t, i in vocab.items() if not gone & set(t)}
    content["model"]["merges"] = [m for m in content["model"]["merges"] if not gone & set("".join(m))]
    return content


def behavior(name, invert, pattern=r"\p{L}+|\d"):
    return lambda: bpe_over_bytes(sequence(split(pattern, name, invert), byte_level(regex=False)))


def pattern(expression, name="isolated"):
    return lambda: bpe_over_bytes(sequence(split(expression, name), byte_level(regex=False)))


KINDS = {
    "gpt2": lambda: bpe_over_bytes(byte_level()),
    "gpt2-lines": merges_as_lines,
    "prefix-space": lambda: bpe_over_bytes(byte_level(prefix=True), added=FLAGS[:3]),
    "llama3": lambda: bpe_over_bytes(sequence(split(LLAMA3), byte_level(regex=False)), ignore_merges=True),
    "qwen2": lambda: bpe_over_bytes(sequence(split(QWEN2), byte_level(regex=False)), normalizers.NFC(),
                                    [AddedToken("<tool>", normalized=False)]),
    "cl100k": lambda: bpe_over_bytes(sequence(split(CL100K, "removed", True), byte_level(regex=False))),
    "o200k": lambda: bpe_over_bytes(sequence(split(O200K), byte_level(regex=False)), ignore_merges=True),
    "deepseek": lambda: bpe_over_bytes(sequence(*map(split, DEEPSEEK), byte_level(regex=False))),
    "han-apart": lambda: bpe_over_bytes(sequence(split(HAN_APART), byte_level(regex=False))),
    "smollm": lambda: bpe_over_bytes(sequence(pre_tokenizers.Digits(True), byte_level())),
    "digits-punctuation": lambda: bpe_over_bytes(sequence(
        pre_tokenizers.Digits(False), pre_tokenizers.Punctuation("contiguous"), byte_level())),
    "punctuation-previous": lambda: bpe_over_bytes(sequence(
        pre_tokenizers.Punctuation("merged_with_previous"), byte_level(prefix=True, regex=False))),
    "neox": lambda: bpe_over_bytes(byte_level(), normalizers.NFC(), [AddedToken(" " * n) for n in range(2, 9)]),
    "flags": lambda: bpe_over_bytes(byte_level(), normalizers.NFC(), FLAGS),
    "flags-lowercase": lambda: bpe_over_bytes(byte_level(), normalizers.Lowercase(), FLAGS),
    "nfd-strip-lower": lambda: bpe_over_bytes(byte_level(), normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]), FLAGS),
    "nfkc": lambda: bpe_over_bytes(byte_level(), normalizers.NFKC()),
    "nfkd-strip-replace": lambda: bpe_over_bytes(byte_level(), normalizers.Sequence(
        [normalizers.NFKD(), normalizers.Strip(True, True), normalizers.Replace("’", "'"),
         normalizers.Replace(Regex(r" {2,}|\t"), " ")])),
    "nmt": lambda: bpe_over_bytes(byte_level(), normalizers.Nmt()),
    "spelled-then-split": words_with_spelled_bytes,
    "spelled-by-normalizer": spelled_by_normalizer,
    "missing-bytes": missing_bytes,
    "llama2": lambda: bpe_over_characters(
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=LLAMA2_DECODER, fuse_unk=True),
    "gemma": lambda: bpe_over_characters(
        pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), fuse_unk=True),
    "mistral": lambda: bpe_over_characters(pre_tokenizers.Metaspace("▁", "first", False), decoder=LLAMA2_DECODER,
                                           fuse_unk=True),
    "mistral-strip": lambda: bpe_over_characters(
        pre_tokenizers.Metaspace("▁", "first", True), normalizers.Strip(True, False), LLAMA2_DECODER),
    "metaspace-always": lambda: bpe_over_characters(pre_tokenizers.Metaspace("▁", "always", True), fallback=False,
                                                    decoder=decoders.Metaspace("▁", "always"), fuse_unk=True),
    "metaspace-never": lambda: bpe_over_characters(pre_tokenizers.Metaspace("▁", "never", True),
                                                   decoder=decoders.Metaspace("▁", "never")),
    "metaspace-old": old_metaspace,
    "blanks-in-tokens": lambda: bpe_over_characters(decoder=decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse()]), stage="with blanks"),
    "whitespace": lambda: bpe_over_characters(pre_tokenizers.Whitespace(), stage="whitespace", fallback=False),
    "whitespace-no-unk": lambda: bpe_over_characters(
        pre_tokenizers.Whitespace(), stage="whitespace", fallback=False, unk=None, lines=(PLAIN,)),
    "suffix": lambda: bpe_over_characters(
        pre_tokenizers.WhitespaceSplit(), normalizers.Lowercase(), decoders.BPEDecoder("</w>"), stage="blanks",
        fallback=False, end_of_word_suffix="</w>"),
    "prefix": lambda: bpe_over_characters(pre_tokenizers.Whitespace(), stage="whitespace", fallback=False,
                                          continuing_subword_prefix="##"),
    "delimiter": lambda: bpe_over_characters(pre_tokenizers.CharDelimiterSplit("e"), fuse_unk=True, fallback=False),
    "unigram": lambda: unigram(pre_tokenizers.Metaspace(), normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])),
    "unigram-unk": lambda: unigram(pre_tokenizers.Metaspace("▁", "first", True), fallback=False),
    "split-removed": behavior("removed", False),
    "split-removed-inverted": behavior("removed", True),
    "split-previous": behavior("merged_with_previous", False),
    "split-previous-inverted": behavior("merged_with_previous", True),
    "split-next": behavior("merged_with_next", False),
    "split-next-inverted": behavior("merged_with_next", True),
    "split-contiguous": behavior("contiguous", False),
    "split-contiguous-inverted": behavior("contiguous", True),
    "split-empty-matches": pattern(r"\d*|x?", "merged_with_next"),
    "split-literal": lambda: bpe_over_bytes(sequence(
        pre_tokenizers.Split("th", "contiguous"), pre_tokenizers.Split(".", "merged_with_previous"), byte_level())),
    "regex-word": pattern(r"\w+|\W"),
    "regex-edges": pattern(r"\b\w|\B\d|^.|.$|\h{2}"),
    "regex-posix": pattern(r"[[:alpha:]]+|[[:^ascii:]&&[^[:alpha:]]]+|[[:punct:][:digit:]]|[^\S\n]+"),
    "regex-repeats": pattern(r"[a-f]{,2}+-|\p{^L}{2}?|o{1,2}+(?:r|e)|(?<n>.)\k<n>|(?m:\n.)"),
    "regex-scripts": pattern(
        r"[\p{Han}\p{Hiragana}ー]+|\p{Cyrillic}+|\p{Greek}|\p{Arabic}+|\p{Thai}{1,2}|[\p{Latin}\d]+"),
    "regex-case": pattern(
        r"(?i:straße|k|[s-t]+)|(?<=\p{Lu})\p{Ll}|\p{Lowercase_Letter}+(?=\p{Nd})|\p{Sc}|[\w&&\D&&[^_]]+"),
}
