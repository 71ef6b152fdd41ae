#!/usr/bin/env python3
"""Instruction rows as tokens and marks, by other means than train_gpt's: texts of the families written out here by
hand, tokens and their places in the text by the tokenizers library. For tests/io/chat/test_chat_golden.cpp.

    chat_rows.py [--folder tests/golden/chat]

rows.json: tokenizers of three kinds with the families' special tokens; rows of every form; for each family and row the
text, the ids, and the runs of ids that are scored. spans.json: for every tokenizer of ../tokenizers/kinds.json a text
with stretches of characters, and which ids have a character in one. Needs tokenizers (tokenizers.txt).
"""
import argparse
import json
import pathlib
import random

from tokenizers import AddedToken, Tokenizer

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>",
           "<|end_header_id|>", "<|endoftext|>"]
ROWS = [
    {"messages": [{"role": "user", "content": "The quick fox?"}, {"role": "assistant", "content": "it's brown"}]},
    {"messages": [{"role": "system", "content": "Say little."}, {"role": "user", "content": "1 + 1"},
                  {"role": "assistant", "content": "2\n"}, {"role": "user", "content": "x2"},
                  {"role": "assistant", "content": "  4, I'm sure 😀"}], "source": "ours"},
    {"conversations": [{"from": "human", "value": "Grüße"}, {"from": "gpt", "value": "façade\n\n\tx"}]},
    {"instruction": "Add.", "input": "2 and 3", "output": "5"},
    {"instruction": "Say yes.", "input": "", "output": "Yes."},
    {"prompt": "The sky is", "completion": " blue"},
    {"prompt": [{"role": "user", "content": "Ping"}], "completion": [{"role": "assistant", "content": "Pong"}]},
    {"text": "One plain text, 中文"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                  {"role": "user", "content": "c"}]},
]
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def turns_of(row):
    """(role, content) of the turns; None for texts."""
    if "messages" in row:
        return [(m["role"], m["content"]) for m in row["messages"]]
    if "conversations" in row:
        return [({"human": "user", "gpt": "assistant"}[t["from"]], t["value"]) for t in row["conversations"]]
    if "instruction" in row:
        return [("user", "\n".join(filter(None, [row["instruction"], row["input"]]))), ("assistant", row["output"])]
    if isinstance(row.get("prompt"), list):
        return [(m["role"], m["content"]) for m in row["prompt"] + row["completion"]]
    return None


def chatml(turns):
    for role, text in turns:
        yield f"<|im_start|>{role}\n", False
        yield text + "<|im_end|>", role == "assistant"
        yield "\n", False


def qwen(turns):
    return chatml(turns if turns[0][0] == "system" else [("system", QWEN), *turns])


def zephyr(turns):
    for role, text in turns:
        yield f"<|{role}|>\n", False
        yield text + "</s>", role == "assistant"
        yield "\n", False


def llama3(turns):
    yield "<|begin_of_text|>", False
    for role, text in turns:
        yield f"<|start_header_id|>{role}<|end_header_id|>\n\n", False
        yield text.strip() + "<|eot_id|>", role == "assistant"


def with_system(turns, form):
    if turns[0][0] != "system":
        return turns
    return [("user", form.format(turns[0][1], turns[1][1])), *turns[2:]]


def llama2(turns):
    for role, text in with_system(turns, "<<SYS>>\n{}\n<</SYS>>\n\n{}"):
        if role == "user":
            yield f"<s>[INST] {text.strip()} [/INST]", False
        else:
            yield " ", False
            yield text.strip() + " </s>", True


def mistral(turns):
    yield "<s>", False
    for role, text in with_system(turns, "{}\n\n{}"):
        yield (f"[INST] {text} [/INST]", False) if role == "user" else (text + "</s>", True)


# Pieces, and the tokens around texts that no template is for.
FAMILIES = {"chatml": (chatml, "<s>", "<|im_end|>"), "qwen": (qwen, "", "<|im_end|>"),
            "zephyr": (zephyr, "<s>", "</s>"), "llama3": (llama3, "<|begin_of_text|>", "<|eot_id|>"),
            "llama2": (llama2, "<s>", "</s>"),
            "mistral": (mistral, "<s>", "</s>")}


def runs(flags):
    found, start = [], None
    for i, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = i
        if not flag and start is not None:
            found.append([start, i])
            start = None
    return found


def scored(tokenizer, pieces):
    """Ids of the whole text, and for each whether it has a character of a scored piece."""
    text, inside = "", []
    for piece, is_scored in pieces:
        inside += [is_scored] * len(piece)
        text += piece
    encoded = tokenizer.encode(text, add_special_tokens=False)
    return text, encoded.ids, [any(inside[first:last]) for first, last in encoded.offsets]


def expected(tokenizer, family, row):
    pieces, bos, eos = FAMILIES[family]
    turns = turns_of(row)
    if turns is not None:
        text, ids, flags = scored(tokenizer, pieces(turns))
    elif "text" in row:
        text, ids, flags = scored(tokenizer, [(bos, False), (row["text"] + eos, True)])
    else:
        text, ids, flags = scored(tokenizer, [(bos + row["prompt"], False)])
        more = scored(tokenizer, [(row["completion"] + eos, True)])
        text, ids, flags = text + more[0], ids + more[1], flags + more[2]
    return {"family": family, "text": text, "ids": ids, "scored": runs(flags)}


def with_specials(content):
    tokenizer = Tokenizer.from_str(content)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    return tokenizer


def span_cases(kinds):
    rng = random.Random(5)
    text = "<|im_start|>user\n The  Quick 12345 fox can't\n\n<|endoftext|>e\u0301 Grüße 中文 😀 x" \
        "<|im_start|> İs \n\n  done.\n"
    cases = {}
    for name, kind in kinds.items():
        tokenizer = Tokenizer.from_str(kind)
        encoded = tokenizer.encode(text, add_special_tokens=False)
        rows = []
        for _ in range(6):
            places = sorted(rng.sample(range(len(text) + 1), 4))
            stretches = [places[:2], places[2:]]
            flags = [any(first < end and begin < last for begin, end in stretches) for first, last in encoded.offsets]
            as_bytes = [[len(text[:p].encode()) for p in stretch] for stretch in stretches]
            rows.append({"stretches": as_bytes, "inside": runs(flags)})
        cases[name] = {"ids": encoded.ids, "rows": rows}
    return {"text": text, "kinds": cases}


def tokenizers_in(golden):
    """The tokenizer.json of each kind, as text."""
    made = {}
    for name, kind in golden["kinds"].items():
        kind["tokenizer"]["model"].update(golden["bases"][kind["base"]])
        made[name] = json.dumps(kind["tokenizer"])
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=pathlib.Path, default=HERE / "../../tests/golden/chat")
    folder = parser.parse_args().folder
    kinds = tokenizers_in(json.loads((HERE / "../../tests/golden/tokenizers/kinds.json").read_text()))
    tokenizers = {name: with_specials(kinds[name]) for name in ("gpt2", "llama2", "unigram")}
    cases = []
    for name, tokenizer in tokenizers.items():
        for family in FAMILIES:
            for i, row in enumerate(ROWS):
                cases.append({"tokenizer": name, "row": i, **expected(tokenizer, family, row)})
    files = {name: json.loads(tokenizer.to_str()) for name, tokenizer in tokenizers.items()}
    golden = {"rows": ROWS, "tokenizers": files, "cases": cases}
    (folder / "rows.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")
    (folder / "spans.json").write_text(json.dumps(span_cases(kinds), ensure_ascii=False) + "\n")


main()
