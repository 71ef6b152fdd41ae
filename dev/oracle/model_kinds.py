#!/usr/bin/env python3
"""Small models of every feature a config.json can say, with the loss and gradients of transformers.

    python3 model_kinds.py                    write tests/golden/kinds/* and tests/golden/families/*
    python3 model_kinds.py --compare A B      logits of two folders (a model, and our export of it); exits 1 if they
                                              differ

A folder has config.json and model.safetensors (bf16), as transformers writes them, and expected.safetensors: tokens and
targets I32 (B, T); loss F64 (1); grad.<tensor> F32, of the mean loss, and error F64 (tensors), for each of them in the
order of `names` (metadata) the L2 norm of transformers' own error in fp32: the largest of twelve runs that add in other
orders (two implementations of attention, with and without oneDNN, sequences together, swapped, and one by one), since
one run of a model so small may be right by luck.

A folder of families has a model as its family usually is, without what GGUF files cannot say; expected.safetensors has
tokens, targets, loss, and logits F32 (B, T, V) for other programs to compare theirs with.

The truth is transformers' model in fp64. Where its code goes through fp32 whatever the model's type (RMSNorm, rotary
angles), that part is written here in fp64, and checked against transformers' in fp32.
"""
import argparse
import json
import math
import pathlib
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

B, T = 2, 21
LLAMA = dict(hidden_size=8, intermediate_size=10, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=4, vocab_size=29, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
             bos_token_id=1, eos_token_id=2, pad_token_id=None)
GPT2 = dict(n_embd=8, n_head=2, n_layer=2, n_positions=24, vocab_size=29, bos_token_id=28, eos_token_id=28)

# name -> (model_type, fields, fields without the feature: another loss)
KINDS = {
    "gpt2_exact_gelu": ("gpt2", dict(GPT2, activation_function="gelu", tie_word_embeddings=False),
                        dict(activation_function="gelu_new")),
    "gpt2_score_scale": ("gpt2", dict(GPT2, n_layer=3, scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
                         dict(scale_attn_weights=True)),
    "llama_biases": ("llama", dict(LLAMA, attention_bias=True, mlp_bias=True, head_dim=6), None),
    "llama_dynamic": ("llama", dict(LLAMA, max_position_embeddings=8,
                                    rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0)),
                      dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
    "llama_yarn": ("llama", dict(LLAMA, head_dim=8,
                                 rope_parameters=dict(rope_type="yarn", factor=3.0, rope_theta=40.0, beta_fast=4.0,
                                                      original_max_position_embeddings=12, truncate=False,
                                                      attention_factor=1.3)),
                   dict(rope_parameters=dict(rope_type="default", rope_theta=40.0))),
    "mistral_window": ("mistral", dict(LLAMA, sliding_window=6), dict(sliding_window=None)),
    "qwen2_windows": ("qwen2", dict(LLAMA, num_hidden_layers=3, use_sliding_window=True, sliding_window=5,
                                    max_window_layers=1,
                                    rope_parameters=dict(rope_type="yarn", factor=2.0, rope_theta=100.0,
                                                         original_max_position_embeddings=16)),
                      dict(use_sliding_window=False)),
    "qwen3_norms": ("qwen3", dict(LLAMA, head_dim=6, tie_word_embeddings=True), None),
    "smollm3_no_rope": ("smollm3", dict(LLAMA, num_hidden_layers=3, no_rope_layers=[1, 0, 1], use_sliding_window=True,
                                        sliding_window=7, tie_word_embeddings=True,
                                        rope_parameters=dict(rope_type="default", rope_theta=50.0)),
                        dict(no_rope_layers=[1, 1, 1])),
    "phi3_long": ("phi3", dict(LLAMA, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                               head_dim=8, original_max_position_embeddings=12,
                               partial_rotary_factor=0.5, sliding_window=9, max_position_embeddings=48,
                               rope_scaling=dict(type="longrope", short_factor=[1.0, 1.3], long_factor=[1.6, 3.0])),
                  dict(rope_scaling=dict(type="longrope", short_factor=[1.0, 1.3], long_factor=[1.0, 1.3]))),
    "phi3_short": ("phi3", dict(LLAMA, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=48,
                                original_max_position_embeddings=24,
                                rope_scaling=dict(type="longrope", short_factor=[1.1, 1.5], long_factor=[2.0, 5.0])),
                   dict(rope_scaling=None)),
}

WIDE = dict(LLAMA, hidden_size=16)
YARN = dict(rope_type="yarn", factor=2.0, rope_theta=100.0, original_max_position_embeddings=16)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, rope_theta=500.0,
              original_max_position_embeddings=16)

# name -> (model_type, fields)
FAMILIES = {
    "gpt2_untied": ("gpt2", dict(GPT2, tie_word_embeddings=False)),
    "mistral": ("mistral", dict(LLAMA, sliding_window=None, head_dim=6)),
    "qwen2": ("qwen2", dict(WIDE, tie_word_embeddings=True)),
    "qwen2_yarn": ("qwen2", dict(WIDE, rope_parameters=YARN)),
    "qwen2_head_size": ("qwen2", dict(LLAMA, head_dim=6)),
    "qwen2_llama3": ("qwen2", dict(WIDE, rope_parameters=LLAMA3)),
    "qwen3_yarn": ("qwen3", dict(LLAMA, head_dim=6, rope_parameters=dict(YARN, beta_fast=4.0, attention_factor=1.4))),
    "smollm3": ("smollm3", dict(LLAMA, num_hidden_layers=5, head_dim=6, tie_word_embeddings=True)),
    "smollm3_yarn": ("smollm3", dict(WIDE, num_hidden_layers=4, rope_parameters=YARN)),
    "phi3": ("phi3", dict(WIDE, original_max_position_embeddings=32, sliding_window=None)),
}


def rotary(config, length):
    """Frequencies (fp64) and the factor of cosines and sines, from the papers' formulas."""
    rope = config.rope_parameters
    kind, base = rope["rope_type"], float(rope["rope_theta"])
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(head * rope.get("partial_rotary_factor", 1.0))
    pairs = np.arange(dim // 2, dtype=np.float64)
    if kind == "dynamic":
        limit = config.max_position_embeddings
        grown = rope["factor"] * max(length, limit) / limit - (rope["factor"] - 1)
        return (base * grown ** (dim / (dim - 2))) ** (-2 * pairs / dim), 1.0
    frequencies = base ** (-2 * pairs / dim)
    if kind == "yarn":
        original = rope["original_max_position_embeddings"]
        ends = [dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
                for turns in (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)]
        if rope.get("truncate", True):
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        low, high = max(ends[0], 0), min(ends[1], dim - 1)
        ramp = np.clip((pairs - low) / (high - low if high != low else 0.001), 0, 1)
        factor = rope.get("attention_factor") or 0.1 * math.log(rope["factor"]) + 1
        return frequencies * (1 - ramp) + frequencies / rope["factor"] * ramp, factor
    if kind == "longrope":
        original = rope["original_max_position_embeddings"]
        factors = rope["long_factor" if length > original else "short_factor"]
        factor = math.sqrt(1 + math.log(config.max_position_embeddings / original) / math.log(original))
        return frequencies / np.array(factors), factor
    if kind == "llama3":
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        keep = np.clip((turns - low) / (high - low), 0, 1)
        return keep * frequencies + (1 - keep) * frequencies / rope["factor"], 1.0
    assert kind == "default", kind
    return frequencies, 1.0


def in_fp64(model, length):
    """The model in fp64, everywhere."""
    model = model.double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            def norm(x, module=module):
                epsilon = getattr(module, "variance_epsilon", None)
                return module.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
            module.forward = norm
        if type(module).__name__.endswith("RotaryEmbedding"):
            frequencies, factor = rotary(model.config, length)
            theirs = module.forward(torch.zeros(1, length, 4), torch.arange(length)[None])
            angles = torch.arange(length, dtype=torch.float64)[:, None] * torch.from_numpy(frequencies)[None]
            angles = torch.cat([angles, angles], -1)[None]
            ours = angles.cos() * factor, angles.sin() * factor
            for a, b in zip(ours, theirs):
                assert torch.allclose(a.float(), b.float(), atol=3e-6), model.config.model_type
            module.forward = lambda x, position_ids, ours=ours: ours
    return model


def run(model, tokens, targets):
    model.zero_grad()
    logits = model(input_ids=tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long())
    loss.backward()
    return loss.item(), {name: p.grad.detach().double() for name, p in model.named_parameters()}


def honest_errors(model, tokens, targets, exact):
    """By tensor, the largest L2 norm of the error of a run in fp32."""
    worst = {name: 0.0 for name in exact}
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        for onednn in (True, False):
            for order in ([[0, 1]], [[1, 0]], [[0], [1]]):
                sums = {name: 0.0 for name in exact}
                with torch.backends.mkldnn.flags(enabled=onednn):
                    for rows in order:
                        gradients = run(model, tokens[rows], targets[rows])[1]
                        for name in exact:
                            sums[name] = sums[name] + (gradients[name] / len(order)).float()
                for name in exact:
                    worst[name] = max(worst[name], (sums[name].double() - exact[name]).norm().item())
    model.set_attn_implementation("sdpa")
    return worst


def built(model_type, fields, dtype=torch.float32):
    config = AutoConfig.for_model(model_type, **json.loads(json.dumps(fields)))
    config._attn_implementation = "sdpa"
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").eval()


def fill(model, seed):
    """Large weights, so that every detail shows; exactly what bf16 can say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            is_norm = "norm" in name or "ln_" in name
            values = 1 + 0.3 * noise if is_norm and name.endswith("weight") else 0.45 * noise
            p.copy_(values.bfloat16().float())


def draw_sequences(seed, vocabulary):
    sequence = torch.randint(vocabulary, (B, T + 1), generator=torch.Generator().manual_seed(100 + seed))
    return sequence[:, :-1].contiguous(), sequence[:, 1:].contiguous()


def store(folder, model_type, fields, state):
    folder.mkdir(parents=True, exist_ok=True)
    stored = built(model_type, fields, torch.bfloat16)
    stored.load_state_dict(state)
    stored.save_pretrained(folder)
    for extra in ("generation_config.json",):
        (folder / extra).unlink(missing_ok=True)


def write_family(folder, seed, model_type, fields):
    truth = built(model_type, fields)
    fill(truth, seed)
    store(folder, model_type, fields, truth.state_dict())
    tokens, targets = draw_sequences(seed, fields["vocab_size"])
    with torch.no_grad():
        logits = in_fp64(truth, T)(input_ids=tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    tensors = {"tokens": tokens.int(), "targets": targets.int(), "loss": loss.reshape(1), "logits": logits.float()}
    metadata = {"torch": torch.__version__, "transformers": transformers.__version__}
    save_file(tensors, str(folder / "expected.safetensors"), metadata=metadata)
    print(f"{folder.name}: loss {loss.item():.7f}, {sum(f.stat().st_size for f in folder.iterdir())} bytes")


def write_kind(folder, seed, model_type, fields, without):
    model = built(model_type, fields)
    fill(model, seed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    tokens, targets = draw_sequences(seed, fields["vocab_size"])
    truth = built(model_type, fields)
    truth.load_state_dict(state)
    loss, exact = run(in_fp64(truth, T), tokens, targets)
    errors = honest_errors(model, tokens, targets, exact)
    if without is not None:
        other = built(model_type, {**fields, **without})
        other.load_state_dict(state)
        assert abs(run(in_fp64(other, T), tokens, targets)[0] - loss) > 1e-5, f"{folder.name}: the feature does nothing"

    store(folder, model_type, fields, state)
    names = list(exact)
    tensors = {"grad." + name: exact[name].float().contiguous() for name in names}
    tensors.update(tokens=tokens.int(), targets=targets.int(), loss=torch.tensor([loss], dtype=torch.float64),
                   error=torch.tensor([errors[name] for name in names], dtype=torch.float64))
    metadata = {"names": " ".join(names), "torch": torch.__version__, "transformers": transformers.__version__}
    save_file(tensors, str(folder / "expected.safetensors"), metadata=metadata)
    print(f"{folder.name}: loss {loss:.7f}, {sum(f.stat().st_size for f in folder.iterdir())} bytes")


def compare(first, second):
    """Logits of both folders on the same tokens, in fp32; tensors bit by bit where both have them."""
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (first, second)]
    vocabulary = models[0].config.vocab_size
    tokens = torch.randint(vocabulary, (2, 20), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = [model(input_ids=tokens).logits for model in models]
    states = [model.state_dict() for model in models]
    same = states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    distance = (logits[0] - logits[1]).abs().max().item()
    print(f"{first} {second}: tensors {'the same bits' if same else 'DIFFER'}, logits differ by {distance:g}")
    return same and distance <= 1e-6 * logits[0].abs().max().item()


def main():
    root = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"))
    parser.add_argument("--output-dir", type=pathlib.Path, default=root)
    arguments = parser.parse_args()
    if arguments.compare:
        sys.exit(0 if compare(*arguments.compare) else 1)
    torch.set_num_threads(1)
    for seed, (name, kind) in enumerate(KINDS.items()):
        write_kind(arguments.output_dir / "kinds" / name, seed, *kind)
    for seed, (name, family) in enumerate(FAMILIES.items(), 50):
        write_family(arguments.output_dir / "families" / name, seed, *family)


if __name__ == "__main__":
    main()
