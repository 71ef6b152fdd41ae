#!/usr/bin/env python3
"""Writes tests/golden/nf4: what bitsandbytes makes of numbers, and of small models.

    python3 -m venv VENV && VENV/bin/pip install -r dev/oracle/nf4.txt
    VENV/bin/python dev/oracle/make_nf4.py
    VENV/bin/python dev/oracle/make_nf4.py --compare PLAIN EXPORTED    # a folder of ours with one made from PLAIN

cases.safetensors has codes and scales of tensors whose elements are a formula (element() here, and in the test).
Folders: two plain models in bf16, and the same quantised, with the mean loss of transformers in fp32 on fixed tokens,
with the weights that the library dequantises (with int8 it also quantises activations, which is no part of them).
"""
import argparse
import json
import pathlib
import shutil

import bitsandbytes.functional as bnb
import numpy
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig
from transformers import LlamaForCausalLM

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/nf4"
VOCABULARY = 24
CASES = {  # name: shape, type, double
    "single_f32": ((3, 100), torch.float32, False),
    "single_bf16": ((5, 64), torch.bfloat16, False),
    "odd_f32": ((7, 33), torch.float32, False),
    "double_f32": ((9, 111), torch.float32, True),
    "double_bf16": ((265, 64), torch.bfloat16, True),
    "zeros_f32": ((2, 96), torch.float32, False),
    "equal_double_f32": ((4, 64), torch.float32, True),
}
QUANTISED = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "nf4_double": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                       bnb_4bit_compute_dtype=torch.float32),
    "int8": dict(load_in_8bit=True),
}


def elements(name, count):
    """Numbers of 24 bits, times 1 to 7 by block of 64; some cases are zero or of one magnitude instead."""
    index = numpy.arange(count, dtype=numpy.uint64)
    x = (index * 2654435761) % 2**32
    x = ((x ^ (x >> 15)) * 2246822519) % 2**32
    x ^= x >> 13
    values = ((x >> 8).astype(numpy.float64) - 2**23) * 2.0**-27 * (1 + index // 64 % 7)
    if name.startswith("zeros"):
        values[index >= 64] = 0
    if name.startswith("equal"):
        values[:] = 0.25
    return torch.from_numpy(values.astype(numpy.float32))


def write_cases():
    tensors = {}
    for name, (shape, dtype, double) in CASES.items():
        weight = elements(name, shape[0] * shape[1]).reshape(shape).to(dtype)
        packed, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type="nf4")
        tensors[name + ".codes"] = packed.flatten()
        tensors[name + ".absmax"] = state.absmax
        if double:
            tensors[name + ".nested_absmax"] = state.state2.absmax
            tensors[name + ".offset"] = state.offset.reshape(1)
    save_file({key: value.contiguous() for key, value in tensors.items()}, OUT / "cases.safetensors")


def plain_model(family):
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=36, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=False, bos_token_id=0,
            eos_token_id=1))
    else:
        model = GPT2LMHeadModel(GPT2Config(
            vocab_size=VOCABULARY, n_positions=16, n_embd=20, n_layer=1, n_head=4, bos_token_id=0, eos_token_id=1,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            is_scale = name.endswith("weight") and parameter.dim() == 1
            parameter.copy_((1 if is_scale else 0) + 0.15 * torch.randn(parameter.shape))
    return model.to(torch.bfloat16)


def mean_loss(model, tokens):
    logits = model.eval()(input_ids=tokens[:, :-1]).logits.double()
    return F.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1)).item()


def open_plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def dequantised(file, name):
    weight = file.get_tensor(name)
    if weight.dtype == torch.int8:
        return weight.float() * file.get_tensor(name[:-6] + "SCB")[:, None] / 127
    parts = {key[len(name) + 1:]: file.get_tensor(key) for key in file.keys() if key.startswith(name + ".")}
    state = bnb.QuantState.from_dict(parts, torch.device("cpu"))
    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
    # Not by dequantize_4bit(): on CPUs with AVX-512 version 0.50.2 gives wrong scales to matrices whose columns are a
    # multiple of 16 but not of 64 (it takes columns // 64 blocks for a row).
    packed = weight.flatten().long()
    values = state.code[torch.stack([packed >> 4, packed & 15], 1).flatten()][:state.shape.numel()]
    return (values * absmax.repeat_interleave(64)[:values.numel()]).reshape(state.shape).to(state.dtype).float()


def loss_of(plain, quantised, tokens):
    """With every quantised matrix dequantised in the plain model."""
    model = open_plain(plain)
    state = model.state_dict()
    replaced = 0
    with safe_open(quantised / "model.safetensors", "pt") as file:
        for name in file.keys():
            if not name.endswith("weight") or file.get_tensor(name).dtype not in (torch.int8, torch.uint8):
                continue
            weight = dequantised(file, name)
            is_conv1d = any(part in name for part in ("c_attn", "c_fc", "c_proj"))
            state[name].copy_(weight.T if is_conv1d else weight)
            replaced += 1
    assert replaced == (4 if "gpt2" in plain.name else 7)
    return mean_loss(model, tokens)


def write_folders():
    tokens = torch.randint(0, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(2))
    report = {"tokens": tokens.tolist(), "losses": {}}
    for family, kinds in (("llama", ("nf4_double", "int8")), ("gpt2", ("nf4",))):
        plain = OUT / family
        plain_model(family).save_pretrained(plain)
        for kind in kinds:
            folder = OUT / f"{family}_{kind}"
            quantise(plain, kind, folder)
            report["losses"][folder.name] = loss_of(plain, folder, tokens)
    for extra in OUT.glob("*/generation_config.json"):
        extra.unlink()
    for file in OUT.glob("**/*.safetensors"):
        file.chmod(0o644)
    (OUT / "expected.json").write_text(json.dumps(report, indent=1) + "\n")


def quantise(plain, kind, folder, dtype=torch.bfloat16, **compute):
    model = AutoModelForCausalLM.from_pretrained(
        plain, dtype=dtype, device_map="cpu", quantization_config=BitsAndBytesConfig(**QUANTISED[kind] | compute))
    model.save_pretrained(folder)


def compare(plain, exported):
    """Every tensor of an export against what transformers and bitsandbytes make of the same plain model; both load."""
    fields = json.loads((exported / "config.json").read_text())
    quantisation = fields["quantization_config"]
    kind = "nf4_double" if quantisation["bnb_4bit_use_double_quant"] else "nf4"
    dtype = getattr(torch, fields.get("dtype") or fields["torch_dtype"])
    theirs = exported.with_name(exported.name + "-by-bitsandbytes")
    quantise(plain, kind, theirs, dtype, bnb_4bit_compute_dtype=dtype)
    with safe_open(exported / "model.safetensors", "pt") as a, safe_open(theirs / "model.safetensors", "pt") as b:
        assert sorted(a.keys()) == sorted(b.keys()), set(a.keys()) ^ set(b.keys())
        names = list(a.keys())
        for name in names:
            ours, expected = a.get_tensor(name), b.get_tensor(name)
            assert ours.dtype == expected.dtype and torch.equal(ours, expected), name
    tokens = torch.arange(2, 12)[None] % fields["vocab_size"]
    losses = []
    for folder in (exported, theirs):
        model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", attn_implementation="eager")
        logits = model.eval()(input_ids=tokens[:, :-1]).logits.double()
        losses.append(F.cross_entropy(logits[0], tokens[0, 1:]).item())
    print(f"{len(names)} tensors equal, {kind} of {dtype}; losses {losses[0]} and {losses[1]}")
    assert losses[0] == losses[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", nargs=2, metavar=("PLAIN", "EXPORTED"), type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.compare:
        compare(*arguments.compare)
        return
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    write_cases()
    write_folders()


main()
