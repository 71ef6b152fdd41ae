#!/usr/bin/env python3
"""GGUF exports read by the gguf package and run by llama.cpp.

    python3 -m venv /tmp/venv-gguf && /tmp/venv-gguf/bin/pip install -r dev/oracle/gguf.txt
    /tmp/venv-gguf/bin/python dev/oracle/gguf_check.py ./train_gpt

Trains five small models, exports each as safetensors and as GGUF in every type, and checks

 - tensors: fp32 the run's own; the other types byte for byte what the gguf package makes of the same fp32;
 - metadata and vocabulary, as the gguf package reads them;
 - losses of the golden models by llama.cpp, beside PyTorch's; of tests/golden/families and tests/golden/kinds those
   of transformers in fp64, and logits, or that the export is refused with the key that llama.cpp has nothing for;
 - ids: every kind of tests/golden/tokenizers/kinds.json is refused by the export, or gives the tokenizers library's
   ids in llama.cpp, on all its texts, with special tokens as text and as ids;
 - the same for SentencePiece's models, BPE over characters and a rank file, against `train_gpt tokenize`;
 - greedy text: llama.cpp's, with a cache of fp32, and `train_gpt generate --temperature=0`.

Without llama-cpp-python only the first two run. Exits 1 if anything differs.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import xxhash

TOP = pathlib.Path(__file__).resolve().parents[2]
TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8}
# Kinds whose ids llama.cpp is known to give differently on some text, as the export's warning says.
CAVEATS = {"qwen2": "NFC", "neox": "NFC", "flags": "NFC, lstrip and rstrip", "o200k": "case outside ASCII"}
# Models that llama.cpp has no architecture for, and the key of config.json that the refusal names.
REFUSED = {"gpt2_exact_gelu": "activation_function", "gpt2_score_scale": "scale_attn_weights",
           "llama_dynamic": "rope_type dynamic", "mistral_window": "sliding_window", "phi3_long": "sliding_window",
           "phi3_short": "rope_type longrope", "qwen2_windows": "sliding_window", "smollm3_no_rope": "sliding_window"}
# Architectures that are not called as the model_type.
ARCHITECTURES = {"mistral": "llama", "phi3": "llama", "qwen2_head_size": "llama", "qwen2_llama3": "llama"}
# Leads in logits that a type may turn.
CLOSE = {"f16": 0.003, "bf16": 0.02, "q8_0": 0.05}
SMALL = ["--layers=3", "--channels=64", "--heads=4", "--kv-heads=2", "--head-size=16", "--ffn-size=160"]
failures = 0


def report(name, good, why=""):
    global failures
    failures += not good
    print(f"{'ok' if good else 'NOT OK'} {name}{': ' + why if why else ''}", flush=True)


def train_gpt(*arguments):
    result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True)
    return result.returncode, result.stdout, result.stderr.decode(errors="replace")


def must(*arguments):
    code, out, err = train_gpt(*arguments)
    if code:
        sys.exit(f"failed: {arguments}\n{err}")
    return out


def read_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            raw = data[8 + size + begin : 8 + size + end]
            if entry["dtype"] == "BF16":
                raw = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                raw = np.frombuffer(raw, {"F32": np.float32, "F64": np.float64, "I32": np.int32}[entry["dtype"]])
            tensors[name] = raw.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(v.tobytes() for v in tensors.values()))


def interleave(weights, head):
    """Rows of heads whose halves become neighbours in pairs."""
    return np.concatenate([np.stack([h[: head // 2], h[head // 2 :]], 1).reshape(h.shape)
                           for h in np.split(weights, len(weights) // head)])


def split_rows(name, value, config):
    """Phi-3's fused projections as those of others; everything else as it is."""
    if "qkv_proj" in name:
        heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
        head = len(value) // (heads + 2 * shared)
        parts = np.split(value, [heads * head, (heads + shared) * head])
        return {name.replace("qkv_proj", f"{letter}_proj"): part for letter, part in zip("qkv", parts)}
    if "gate_up_proj" in name:
        return {name.replace("gate_up", kind): part for kind, part in zip(("gate", "up"), np.split(value, 2))}
    return {name: value}


def as_gguf(folder, architecture):
    """The tensors of a Hugging Face folder by their names in GGUF files, from the tables of the gguf package."""
    config = json.loads((folder / "config.json").read_text())
    is_gpt2 = architecture == "gpt2"
    layers = config["n_layer" if is_gpt2 else "num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], layers)
    tensors = {}
    for whole, fused in read_safetensors(folder / "model.safetensors").items():
        for name, value in split_rows(whole, fused, config).items():
            if is_gpt2 and value.ndim == 2 and ".h." in name:
                value = value.T
            if architecture in ("llama", "smollm3") and any(f".{letter}_proj." in name for letter in "qk"):
                value = interleave(value, config.get("head_dim") or
                                   config["hidden_size"] // config["num_attention_heads"])
            tensors[names.get_name(name, try_suffixes=(".weight", ".bias"))] = np.ascontiguousarray(value)
    return tensors


def check_tensors(name, folder, path, kind):
    reader = gguf.GGUFReader(path)
    expected = as_gguf(folder, reader.fields["general.architecture"].contents())
    got = {tensor.name: tensor for tensor in reader.tensors}
    extra = set(got) - set(expected)
    report(f"{name} {kind}: names", extra <= {"rope_freqs.weight"} and set(expected) <= set(got), str(extra or ""))
    wrong = []
    for key, value in expected.items():
        tensor = got[key]
        keeps = value.ndim == 1 or key == "position_embd.weight"
        wanted = gguf.GGMLQuantizationType(0 if keeps else TYPES[kind])
        made = gguf.quants.quantize(value, wanted)
        same = tensor.tensor_type == wanted and tensor.data.tobytes() == made.tobytes()
        if not same or list(tensor.shape) != list(value.shape[::-1]):
            wrong.append(key)
    report(f"{name} {kind}: {len(expected)} tensors, bit for bit", not wrong, " ".join(wrong[:3]))
    return reader


def check_metadata(name, reader, folder):
    def field(key):
        return reader.fields[key].contents()

    config = json.loads((folder / "config.json").read_text())
    arch = field("general.architecture")
    report(f"{name}: architecture", arch == config["model_type"], arch)
    pairs = {"block_count": ("n_layer", "num_hidden_layers"), "embedding_length": ("n_embd", "hidden_size"),
             "context_length": ("n_positions", "max_position_embeddings"), "attention.head_count":
             ("n_head", "num_attention_heads"), "vocab_size": ("vocab_size",)}
    for key, ours in pairs.items():
        wanted = next(config[o] for o in ours if o in config)
        report(f"{name}: {key}", field(f"{arch}.{key}") == wanted, str(wanted))
    tokens = field("tokenizer.ggml.tokens")
    report(f"{name}: a token for every row", len(tokens) == config["vocab_size"] == len(set(tokens)))
    vocab = json.loads((folder / "vocab.json").read_text())
    report(f"{name}: tokens by id", all(tokens[i] == t for t, i in vocab.items() if t != "<|endoftext|>"))
    merges = [l for l in (folder / "merges.txt").read_text().splitlines() if not l.startswith("#")]
    stored = field("tokenizer.ggml.merges") or []
    report(f"{name}: {len(merges)} merges", list(stored) == merges)


def lead_of_the_best(path, text):
    """By how much the likeliest next token leads the second, in logits of llama.cpp."""
    model = llama_cpp_model(path)
    last = llama_cpp_logits(model, [model.tokenize(text.encode())])[0, -1]
    second, first = np.sort(last)[-2:]
    return first - second


def check_greedy(name, run, path, kind, prompts):
    """In fp32 the same text. Rounded weights, and what llama.cpp rounds beside them, may turn a close choice."""
    from llama_cpp import Llama
    model = Llama(str(path), n_ctx=64, type_k=0, type_v=0, n_threads=2, verbose=False)
    for prompt in prompts:
        ours = must("generate", f"--run={run}", f"--prompt={prompt}", "--temperature=0", "--length=40", "--samples=1")
        theirs = model.create_completion(prompt, max_tokens=40, temperature=0, repeat_penalty=1.0)["choices"][0]["text"]
        ours = ours.decode(errors="replace")
        at = ours.find(prompt)
        ours = ours[at + len(prompt) :].rstrip("\n") if at >= 0 else ours
        theirs = theirs.rstrip("\n")
        title = f"{name} {kind}: greedy text after {prompt!r}"
        if ours == theirs:
            report(title, True, f"{len(ours)} characters")
            continue
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        lead = lead_of_the_best(path.with_name(f"{name}-f32.gguf"), prompt + ours[:same])
        report(title, kind != "f32" and lead < CLOSE[kind],
               f"equal for {same} only, where the best leads by {lead:.4f}: {ours!r} {theirs!r}")


def llama_cpp_model(path):
    """What the file says, not what the package's constructor would rather have of YaRN."""
    import llama_cpp
    return llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, logits_all=True, type_k=0, type_v=0, verbose=False,
                           yarn_attn_factor=-1.0, yarn_beta_fast=-1.0, yarn_beta_slow=-1.0)


def llama_cpp_logits(model, sequences):
    logits = []
    for tokens in sequences:
        model.reset()
        model.eval(list(map(int, tokens)))
        logits.append(np.array(model.scores[: len(tokens)], np.float64))
    return np.array(logits)


def mean_loss(logits, targets):
    top = logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, np.array(targets)[..., None], -1)
    return np.mean(top + np.log(np.exp(logits - top).sum(-1, keepdims=True)) - chosen)


def loss_bound(folder):
    """GELU of a GPT-2 comes from a table of halves in llama.cpp."""
    return 2e-5 if folder.name.startswith("gpt2") else 1e-6


def check_golden(work):
    """Losses of the golden models, by llama.cpp, beside PyTorch's: llama3 frequencies, own head sizes, both heads."""
    for folder in sorted((TOP / "tests/golden/hf").iterdir()):
        golden = json.loads((folder / "expected.json").read_text())
        path = work / f"golden-{folder.name}.gguf"
        must("export", f"--run={folder}", "--format=gguf", "--gguf-type=f32", f"--out={path}")
        logits = llama_cpp_logits(llama_cpp_model(path), golden["tokens"])
        distance = abs(mean_loss(logits, golden["targets"]) / golden["loss"] - 1)
        report(f"golden {folder.name}: loss", distance < loss_bound(folder), f"relative distance {distance:.1e}")


def check_models(work):
    """Families and kinds of models beside transformers' loss, and logits where they are stored; or refused by name."""
    for folder in sorted([*(TOP / "tests/golden/families").iterdir(), *(TOP / "tests/golden/kinds").iterdir()]):
        path = work / f"model-{folder.name}.gguf"
        code, _, err = train_gpt("export", f"--run={folder}", "--format=gguf", "--gguf-type=f32", f"--out={path}")
        if folder.name in REFUSED:
            line = err.strip().splitlines()[-1]
            good = code == 2 and REFUSED[folder.name] in line and not path.exists()
            report(f"{folder.parent.name} {folder.name}: refused", good, line)
            continue
        if code:
            report(f"{folder.parent.name} {folder.name}", False, err)
            continue
        golden = read_safetensors(folder / "expected.safetensors")
        model = llama_cpp_model(path)
        architecture = model.metadata["general.architecture"]
        wanted = ARCHITECTURES.get(folder.name, json.loads((folder / "config.json").read_text())["model_type"])
        logits = llama_cpp_logits(model, golden["tokens"])
        distance = abs(mean_loss(logits, golden["targets"]) / golden["loss"][0] - 1)
        text = f"{architecture}, relative distance {distance:.1e}"
        check_tensors(f"{folder.parent.name} {folder.name}", folder, path, "f32")
        good = architecture == wanted and distance < loss_bound(folder)
        if "logits" in golden:
            apart = np.abs(logits - golden["logits"]).max() / np.abs(golden["logits"]).max()
            text += f", of logits {apart:.1e}"
            good = good and apart < (1e-3 if folder.name.startswith("gpt2") else 1e-5)
        report(f"{folder.parent.name} {folder.name}: loss", good, text)


def tiny_folder(folder, vocabulary):
    """A llama of one layer with random weights, to carry a tokenizer."""
    random = np.random.default_rng(1)
    C, F, HD = 32, 32, 16
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": C,
              "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": HD, "intermediate_size": F,
              "vocab_size": vocabulary, "max_position_embeddings": 64, "tie_word_embeddings": True}
    shapes = {"embed_tokens.weight": (vocabulary, C), "norm.weight": (C,), "layers.0.input_layernorm.weight": (C,),
              "layers.0.post_attention_layernorm.weight": (C,), "layers.0.self_attn.q_proj.weight": (32, C),
              "layers.0.self_attn.k_proj.weight": (HD, C), "layers.0.self_attn.v_proj.weight": (HD, C),
              "layers.0.self_attn.o_proj.weight": (C, 32), "layers.0.mlp.gate_proj.weight": (F, C),
              "layers.0.mlp.up_proj.weight": (F, C), "layers.0.mlp.down_proj.weight": (C, F)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors",
                      {f"model.{n}": random.standard_normal(s).astype(np.float32) for n, s in shapes.items()})


def checksum(ids):
    return f"{xxhash.xxh3_64_intdigest(np.array(ids, np.int32).tobytes()):016x}"


def check_kinds(work):
    import llama_cpp
    golden = json.loads((TOP / "tests/golden/tokenizers/kinds.json").read_text())
    refused = []
    for name, kind in golden["kinds"].items():
        tokenizer = kind["tokenizer"]
        tokenizer["model"].update(golden["bases"][kind["base"]])
        folder, path = work / f"kind-{name}", work / f"{name}.gguf"
        tiny_folder(folder, 700)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        code, _, err = train_gpt("export", f"--run={folder}", "--format=gguf", f"--out={path}")
        if code:
            refused.append(f"{name} ({err.strip().splitlines()[-1].split(' has ')[-1].split(', which')[0][:60]})")
            continue
        model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        wrong = 0
        for text, (count, as_text, as_ids, _) in zip(golden["texts"], kind["expected"]):
            if "\0" in text:
                continue
            for special, wanted in ((False, as_text), (True, as_ids)):
                ids = model.tokenize(text.encode(), add_bos=False, special=special)
                wrong += checksum(ids) != wanted
        total = 2 * len(golden["texts"])
        allowed = CAVEATS.get(name, "")
        report(f"ids of {name}: {total - wrong} of {total}", wrong == 0 or bool(allowed), allowed)
    print(f"refused: {', '.join(refused)}")


def our_ids(work, folder, text):
    """What `tokenize` makes of a text, without the token in front."""
    (work / "text.txt").write_text(text, newline="")
    for old in work.glob("ids_*.bin"):
        old.unlink()
    shutil.rmtree(work / "ids_tokenizer", ignore_errors=True)
    must("tokenize", f"--tokenizer={folder}", f"--out={work}/ids", "--val-fraction=0", work / "text.txt")
    data = next(work.glob("ids_train_*.bin")).read_bytes()
    kind = np.uint16 if int.from_bytes(data[:4], "little") == 20240520 else np.uint32
    return np.frombuffer(data[1024:], kind).tolist()


def check_ids(work, name, folder, texts):
    import llama_cpp
    path = work / f"{name}.gguf"
    must("export", f"--run={folder}", "--format=gguf", f"--out={path}")
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    wrong = 0
    for text in texts:
        ours = our_ids(work, folder, text)
        theirs = model.tokenize(text.encode(), add_bos=False, special=False)
        wrong += theirs not in (ours, ours[1:])
    report(f"ids of {name}: {len(texts) - wrong} of {len(texts)}", wrong == 0)


def all_pairs(model):
    """Merges as those made of a SentencePiece model: all pairs that make a token, one token after the other."""
    merges, made = [], set()
    for merge in model["merges"]:
        name = "".join(merge) if isinstance(merge, list) else merge.replace(" ", "")
        if name not in made:
            made.add(name)
            merges += [[name[:i], name[i:]] for i in range(1, len(name))
                       if name[:i] in model["vocab"] and name[i:] in model["vocab"]]
    return merges


def check_other_files(work):
    """Tokenizers that are no byte-level tokenizer.json, on pieces of the demo text."""
    import sentencepiece
    demo = (TOP / "data/demo.txt").read_text()
    texts = [demo[i : i + 300] for i in range(0, 60000, 3000)]
    texts += ["h\u00e9llo  w\u00f6rld \U0001f600!", " two  blanks", "a"]
    golden = json.loads((TOP / "tests/golden/tokenizers/kinds.json").read_text())
    for name in ("llama2", "mistral"):
        kind = golden["kinds"][name]
        tokenizer = kind["tokenizer"]
        tokenizer["model"].update(golden["bases"][kind["base"]])
        tokenizer["model"]["merges"] = all_pairs(tokenizer["model"])
        tiny_folder(work / f"pairs-{name}", 700)
        (work / f"pairs-{name}" / "tokenizer.json").write_text(json.dumps(tokenizer))
        # Metaspace puts no blank in front of a blank, which llama.cpp does, as the export's warning says.
        plain = [text.lstrip(" ") for text in texts] if name == "mistral" else texts
        check_ids(work, f"{name}, all pairs", work / f"pairs-{name}", plain)
    (work / "demo.txt").write_text(demo[:300000])
    for kind in ("bpe", "unigram"):
        folder = work / f"sentencepiece-{kind}"
        tiny_folder(folder, 700)
        sentencepiece.SentencePieceTrainer.train(
            input=str(work / "demo.txt"), model_prefix=str(work / kind), vocab_size=600, model_type=kind,
            normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=kind == "bpe",
            character_coverage=1.0, minloglevel=2)
        (folder / "tokenizer.model").write_bytes((work / f"{kind}.model").read_bytes())
        check_ids(work, f"SentencePiece {kind}", folder, texts[:-3] if kind == "unigram" else texts)
    folder = work / "ranks"
    tiny_folder(folder, 700)
    (folder / "tokenizer.model").write_bytes((TOP / "tests/golden/tokenizers/ranks.tiktoken").read_bytes())
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    (folder / "train_gpt_tokenizer.json").write_text(json.dumps({"pattern": pattern}))
    check_ids(work, "a rank file", folder, texts)


def main():
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        text = str(TOP / "data/demo.txt")
        must("tokenize", "--train-bpe", "--vocab-size=1000", f"--out={work}/bpe", text)
        common = [f"--data={text}", "--val-every=0", "--batch-size=16", "--seq-len=64", "--steps=300"]
        runs = {"gpt2-bytes": ["--model=gpt2-nano"], "llama-bytes": ["--model=llama-nano"],
                "llama-bpe": ["--model=llama-nano", f"--tokenizer={work}/bpe"],
                "qwen2-bytes": ["--model=qwen2.5-0.5b", *SMALL], "qwen3-bytes": ["--model=qwen3-0.6b", *SMALL]}
        try:
            import llama_cpp
            print(f"gguf {gguf.__version__ if hasattr(gguf, '__version__') else ''}, "
                  f"llama-cpp-python {llama_cpp.__version__}")
        except ImportError:
            llama_cpp = None
        for name, arguments in runs.items():
            run, folder = work / name, work / f"{name}-hf"
            must(*arguments, *common, f"--output-dir={run}")
            must("export", f"--run={run}", "--format=hf", f"--out={folder}")
            for kind in TYPES:
                path = work / f"{name}-{kind}.gguf"
                must("export", f"--run={run}", "--format=gguf", f"--gguf-type={kind}", f"--out={path}")
                reader = check_tensors(name, folder, path, kind)
                if kind == "f32":
                    check_metadata(name, reader, folder)
                if llama_cpp:
                    check_greedy(name, run, path, kind, ["And it came ", "The "])
        if llama_cpp:
            check_golden(work)
            check_models(work)
            check_kinds(work)
            check_other_files(work)
    sys.exit(failures > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    PROGRAM = str(pathlib.Path(sys.argv[1]).resolve())
    main()
