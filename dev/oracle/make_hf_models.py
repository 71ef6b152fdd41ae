#!/usr/bin/env python3
"""Writes small random models as Hugging Face folders, with the loss that PyTorch computes for fixed tokens.

Each folder has config.json and safetensors as `transformers` would save them, and expected.json: tokens and targets
(B, T) and their mean cross-entropy in nats, computed in fp64 from the weights as stored. The C++ tests import a folder,
compare the loss, export it, and compare every tensor.

    python3 dev/oracle/make_hf_models.py                       # writes tests/golden/hf/*
    python3 dev/oracle/make_hf_models.py --check-transformers  # also opens them with transformers and compares losses
    python3 dev/oracle/make_hf_models.py --compare A B --vocab 61   # logits of two folders under transformers

The models are those of make_golden.py beside this file. Needs PyTorch, numpy and safetensors; see README.md.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

import make_golden as oracle

# name -> (seed, config, element type, number of files, whether older additions are in it)
# What they are together: every element type, one file and several, GQA and none, tied and not, both RoPE scalings, a
# head size that is not C / NH; and a GPT-2 as the first ones were published: without the prefix, with mask buffers.
MODELS = {
    "gpt2": (1, oracle.Config("gpt2", L=2, C=24, NH=3, NKV=3, HD=8, F=96, V=61, max_T=20, T=17, B=3, tied=True),
             torch.float32, 1, True),
    "gpt2_fp16": (2, oracle.Config("gpt2", L=3, C=32, NH=2, NKV=2, HD=16, F=128, V=130, max_T=16, T=16, B=2, tied=True),
                  torch.float16, 1, False),
    "llama": (3, oracle.Config("llama", L=3, C=48, NH=6, NKV=2, HD=8, F=20, V=67, max_T=256, T=19, B=2, tied=False,
                               norm_eps=1e-6, rope_theta=10000.0, rope_scaling="llama3", rope_factor=8.0,
                               rope_low_freq_factor=1.0, rope_high_freq_factor=4.0, rope_original_max_T=128),
              torch.float32, 3, False),
    "llama_tied_bf16": (4, oracle.Config("llama", L=2, C=36, NH=4, NKV=4, HD=12, F=64, V=53, max_T=16, T=11, B=2,
                                         tied=True, rope_theta=500000.0, rope_scaling="linear", rope_factor=2.0),
                        torch.bfloat16, 1, True),
}

TORCH_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def hf_config(c, dtype):
    """config.json as transformers writes it, in its essentials."""
    common = {"vocab_size": c.V, "tie_word_embeddings": c.tied, "torch_dtype": TORCH_NAMES[dtype], "use_cache": True,
              "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02}
    if c.family == "gpt2":
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": c.L, "n_head": c.NH,
                "n_embd": c.C, "n_inner": None, "n_positions": c.max_T, "n_ctx": c.max_T,
                "layer_norm_epsilon": c.norm_eps, "activation_function": "gelu_new", "resid_pdrop": 0.1,
                "summary_type": "cls_index", **common}
    scaling = None
    if c.rope_scaling == "linear":
        scaling = {"type": "linear", "factor": c.rope_factor}
    elif c.rope_scaling == "llama3":
        scaling = {"rope_type": "llama3", "factor": c.rope_factor, "low_freq_factor": c.rope_low_freq_factor,
                   "high_freq_factor": c.rope_high_freq_factor,
                   "original_max_position_embeddings": c.rope_original_max_T}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": c.L,
            "num_attention_heads": c.NH, "num_key_value_heads": c.NKV, "head_dim": c.HD, "hidden_size": c.C,
            "intermediate_size": c.F, "max_position_embeddings": c.max_T, "rms_norm_eps": c.norm_eps,
            "hidden_act": "silu", "rope_theta": c.rope_theta, "rope_scaling": scaling, "attention_bias": False,
            "mlp_bias": False, "pretraining_tp": 1, **common}


def old_additions(c, tensors):
    """What files from earlier versions have: no prefix and causal masks (GPT-2), rotary frequencies (LLaMA)."""
    if c.family == "gpt2":
        tensors = {name.replace("transformer.", ""): value for name, value in tensors.items()}
        for l in range(c.L):
            tensors[f"h.{l}.attn.bias"] = torch.ones(1, 1, c.max_T, c.max_T).tril()
            tensors[f"h.{l}.attn.masked_bias"] = torch.tensor(-1e4)
    else:
        for l in range(c.L):
            tensors[f"model.layers.{l}.self_attn.rotary_emb.inv_freq"] = oracle.rope_frequencies(c).float()
    return tensors


def forward(c, params, tokens):
    """oracle.forward() knows no linear scaling: positions divided by the factor are the same as frequencies divided."""
    if c.rope_scaling != "linear":
        return oracle.forward(c, params, tokens)
    plain = oracle.rope_frequencies
    oracle.rope_frequencies = lambda config: plain(config) / config.rope_factor
    try:
        return oracle.forward(c, params, tokens)
    finally:
        oracle.rope_frequencies = plain


def save_sharded(folder, tensors, count):
    names = list(tensors)
    shards = [names[i::count] for i in range(count)]
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        save_file({name: tensors[name] for name in shard}, str(folder / file), metadata={"format": "pt"})
        weight_map.update({name: file for name in shard})
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def write_model(folder, seed, c, dtype, files, old):
    rng = np.random.default_rng(seed)
    stored = {name: p.to(dtype) for name, p in oracle.initial_parameters(c, rng).items()}
    sequence = rng.integers(c.V, size=(c.B, c.T + 1))
    tokens, targets = torch.from_numpy(sequence[:, :-1].copy()), torch.from_numpy(sequence[:, 1:].copy())
    loss = oracle.loss_of(forward(c, {name: p.double() for name, p in stored.items()}, tokens), targets).item()

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.contiguous() for name, p in oracle.to_transformers(c, stored).items()}
    if old:
        tensors = old_additions(c, tensors)
    if files == 1:
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    else:
        save_sharded(folder, tensors, files)
    (folder / "config.json").write_text(json.dumps(hf_config(c, dtype), indent=2) + "\n")
    expected = {"tokens": tokens.tolist(), "targets": targets.tolist(), "loss": loss}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(f"{folder}: loss {loss:.6f}")


def open_with_transformers(folder):
    """The model in fp64. The old GPT-2 file's buffers make it warn, which is what is wanted."""
    import transformers
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()


def check_transformers(folder):
    expected = json.loads((folder / "expected.json").read_text())
    with torch.no_grad():
        logits = open_with_transformers(folder)(torch.tensor(expected["tokens"])).logits
    loss = oracle.loss_of(logits, torch.tensor(expected["targets"])).item()
    print(f"{folder}: relative distance of transformers' loss {abs(loss / expected['loss'] - 1):.1e}")
    assert abs(loss / expected["loss"] - 1) < 2e-6


def compare(a, b, vocab):
    tokens = torch.from_numpy(np.random.default_rng(0).integers(vocab, size=(2, 16)))
    with torch.no_grad():
        x, y = (open_with_transformers(folder)(tokens).logits for folder in (a, b))
    print(f"largest difference of the logits: {(x - y).abs().max().item():.3g}")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=pathlib.Path, default=root / "tests/golden/hf")
    parser.add_argument("--check-transformers", action="store_true")
    parser.add_argument("--compare", nargs=2, metavar="FOLDER")
    parser.add_argument("--vocab", type=int, default=50)
    args = parser.parse_args()
    if args.compare:
        return compare(*args.compare, args.vocab)
    for name, (seed, c, dtype, files, old) in MODELS.items():
        write_model(args.output_dir / name, seed, c, dtype, files, old)
        if args.check_transformers:
            check_transformers(args.output_dir / name)


if __name__ == "__main__":
    main()
