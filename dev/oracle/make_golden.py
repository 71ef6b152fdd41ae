#!/usr/bin/env python3
"""Trains three tiny models in PyTorch and writes what happened as golden files for the C++ tests.

Each model is trained twice from the same parameters on the same batches, in fp64 (the truth) and in fp32 on one thread.
The distance between the two says how much error an honest fp32 implementation makes, so a test needs no magic
tolerance: ours may be off by a small multiple of that. README.md beside this file lists the tensors.

    python3 dev/oracle/make_golden.py                       # writes tests/golden/*.safetensors
    python3 dev/oracle/make_golden.py --check-transformers  # also compares the models with Hugging Face's

The models are written out in plain differentiable operations; dimension names are those of the C++ code:
B batch, T tokens, C channels, L layers, NH heads, NKV key/value heads, HD head size, F feed-forward size, V vocabulary.
"""

import argparse
import json
import math
import pathlib
import struct
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

STEPS = 10
LEARNING_RATE = 1e-2
BETA1, BETA2, EPS = 0.9, 0.95, 1e-8
WEIGHT_DECAY = 0.1  # on tensors of two and more dimensions, embeddings included
GRAD_CLIP = 1.0


@dataclass(frozen=True)
class Config:
    family: str  # "gpt2" or "llama"
    L: int
    C: int
    NH: int
    NKV: int
    HD: int
    F: int
    V: int
    max_T: int
    T: int
    B: int
    tied: bool
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: str = "none"  # "none" or "llama3"; the four numbers below belong to "llama3"
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 1.0
    rope_original_max_T: int = 0


# name -> (seed, config). Sizes are odd on purpose, and small enough that a file stays below about 700 kB.
# A gradient entry that happens to be near zero makes AdamW's first steps chaotic: g / |g| turns rounding into a whole
# step. The seeds are three of thirty under which no entry does so, the key bias of GPT-2 apart (see README.md).
MODELS = {
    "gpt2_tiny": (10, Config("gpt2", L=3, C=24, NH=3, NKV=3, HD=8, F=96, V=61, max_T=17, T=13, B=3, tied=True)),
    # Three query heads per key/value head. With original_max_T = 128 the four RoPE frequencies meet all three cases of
    # the llama3 rule: one kept, one blended, two divided by the factor.
    "llama_tiny": (23, Config("llama", L=3, C=48, NH=6, NKV=2, HD=8, F=20, V=67, max_T=256, T=19, B=2, tied=False,
                              rope_theta=10000.0, rope_scaling="llama3", rope_factor=8.0, rope_low_freq_factor=1.0,
                              rope_high_freq_factor=4.0, rope_original_max_T=128)),
    # Head size not C / NH: queries are NH * HD = 48 wide in a model of 36 channels.
    "llama_tied_tiny": (20, Config("llama", L=2, C=36, NH=4, NKV=4, HD=12, F=64, V=53, max_T=16, T=11, B=2, tied=True,
                                   rope_theta=500000.0)),
}


# ---------------------------------------------------------------------------------------------------------------------
# Parameters

def parameter_shapes(c):
    """Name -> shape, in the order of the model. Weights are (out, in)."""
    gpt2 = c.family == "gpt2"
    shapes = {"wte": (c.V, c.C)}
    if gpt2:
        shapes["wpe"] = (c.max_T, c.C)

    def affine(weight_name, *shape):
        shapes[weight_name] = shape
        if gpt2:  # every GPT-2 matmul and norm has a bias, no LLaMA one does
            shapes[weight_name.replace("weight", "bias")] = shape[:1]

    for l in range(c.L):
        p = f"layers.{l}."
        affine(p + "ln1_weight", c.C)
        affine(p + "qkv_weight", (c.NH + 2 * c.NKV) * c.HD, c.C)  # rows: q, k, v
        affine(p + "att_proj_weight", c.C, c.NH * c.HD)
        affine(p + "ln2_weight", c.C)
        if gpt2:
            affine(p + "fc_weight", c.F, c.C)
        else:
            affine(p + "gate_up_weight", 2 * c.F, c.C)  # rows: gate, up
        affine(p + "fc_proj_weight", c.C, c.F)
    affine("lnf_weight", c.C)
    if not c.tied:
        shapes["lm_head"] = (c.V, c.C)
    return shapes


def initial_parameters(c, rng):
    """fp32 values, large enough that attention, norms and biases all matter: weights and biases N(0, 0.2²), norms
    around 1."""
    params = {}
    for name, shape in parameter_shapes(c).items():
        value = 0.2 * rng.standard_normal(shape)
        if name.split(".")[-1] in ("ln1_weight", "ln2_weight", "lnf_weight"):
            value += 1.0
        params[name] = torch.from_numpy(value.astype(np.float32))
    return params


# ---------------------------------------------------------------------------------------------------------------------
# Models

def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * weight + bias


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def gelu(x):
    """The tanh form, https://arxiv.org/abs/1606.08415."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x ** 3)))


def silu(x):
    return x * torch.sigmoid(x)


def rope_frequencies(c):
    """Radians per position for each of the HD/2 pairs, in double precision.

    "llama3" is the rule of Llama 3.1: wavelengths above original_max_T / low_freq_factor are stretched by `factor`,
    those below original_max_T / high_freq_factor are kept, and the ones between are blended linearly in 1/wavelength.
    """
    frequencies = []
    for i in range(c.HD // 2):
        frequency = c.rope_theta ** (-2.0 * i / c.HD)
        if c.rope_scaling == "llama3":
            turns = c.rope_original_max_T * frequency / (2.0 * math.pi)  # original_max_T / wavelength
            keep = (turns - c.rope_low_freq_factor) / (c.rope_high_freq_factor - c.rope_low_freq_factor)
            keep = min(1.0, max(0.0, keep))
            frequency *= keep + (1.0 - keep) / c.rope_factor
        frequencies.append(frequency)
    return torch.tensor(frequencies, dtype=torch.float64)


def rope(x, frequencies):
    """x (B, heads, T, HD). Rotate-half form: element i is paired with element i + HD/2."""
    T, HD = x.shape[-2:]
    angles = torch.arange(T, dtype=torch.float64)[:, None] * frequencies  # (T, HD/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :HD // 2], x[..., HD // 2:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(c, qkv):
    """qkv (B, T, (NH + 2 NKV) HD) -> (B, T, NH HD). Causal; query head h reads key/value head h // (NH / NKV)."""
    B, T, _ = qkv.shape
    q, k, v = qkv.view(B, T, -1, c.HD).transpose(1, 2).split((c.NH, c.NKV, c.NKV), dim=1)  # (B, heads, T, HD)
    if c.family == "llama":
        frequencies = rope_frequencies(c)
        q, k = rope(q, frequencies), rope(k, frequencies)
    k, v = (x.repeat_interleave(c.NH // c.NKV, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(c.HD)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    probabilities = scores.masked_fill(future, -math.inf).softmax(-1)
    return (probabilities @ v).transpose(1, 2).reshape(B, T, c.NH * c.HD)


def forward(c, params, tokens):
    """tokens (B, T) -> logits (B, T, V)."""
    def norm(x, name):
        weight = params[name + "_weight"]
        if c.family == "gpt2":
            return layer_norm(x, weight, params[name + "_bias"], c.norm_eps)
        return rms_norm(x, weight, c.norm_eps)

    def linear(x, name):
        out = x @ params[name + "_weight"].t()
        return out + params[name + "_bias"] if c.family == "gpt2" else out

    x = params["wte"][tokens]
    if c.family == "gpt2":
        x = x + params["wpe"][:tokens.shape[1]]
    for l in range(c.L):
        p = f"layers.{l}."
        x = x + linear(attention(c, linear(norm(x, p + "ln1"), p + "qkv")), p + "att_proj")
        ln2_out = norm(x, p + "ln2")
        if c.family == "gpt2":
            act_out = gelu(linear(ln2_out, p + "fc"))
        else:
            gate, up = linear(ln2_out, p + "gate_up").split(c.F, dim=-1)
            act_out = silu(gate) * up
        x = x + linear(act_out, p + "fc_proj")
    return norm(x, "lnf") @ params["wte" if c.tied else "lm_head"].t()


def loss_of(logits, targets):
    """Mean cross-entropy in nats per token."""
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


def loss_and_gradients(c, params, tokens, targets):
    """-> loss (float), {name: gradient}, logits"""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    logits = forward(c, leaves, tokens)
    loss = loss_of(logits, targets)
    loss.backward()
    return loss.item(), {name: leaf.grad for name, leaf in leaves.items()}, logits.detach()


# ---------------------------------------------------------------------------------------------------------------------
# Training

def clip(grads):
    """-> (gradients scaled so that their global norm is at most GRAD_CLIP, the norm before)."""
    norm = math.sqrt(sum(g.square().sum() for g in grads.values()).item())
    scale = GRAD_CLIP / norm if norm > GRAD_CLIP else 1.0
    return {name: g * scale for name, g in grads.items()}, norm


class AdamW:
    """Decoupled weight decay, https://arxiv.org/abs/1711.05101, in the order of operations of torch.optim.AdamW."""

    def __init__(self, params):
        self.step_count = 0
        self.m = {name: torch.zeros_like(p) for name, p in params.items()}
        self.v = {name: torch.zeros_like(p) for name, p in params.items()}

    def step(self, params, grads):
        self.step_count += 1
        m_correction = 1.0 - BETA1 ** self.step_count
        v_correction = 1.0 - BETA2 ** self.step_count
        for name, g in grads.items():
            p, m, v = params[name], self.m[name], self.v[name]
            if p.dim() >= 2:
                p.mul_(1.0 - LEARNING_RATE * WEIGHT_DECAY)
            m.mul_(BETA1).add_((1.0 - BETA1) * g)
            v.mul_(BETA2).add_((1.0 - BETA2) * g.square())
            p.sub_(LEARNING_RATE / m_correction * m / (v.sqrt() / math.sqrt(v_correction) + EPS))


class TorchAdamW:
    """torch.optim.AdamW on a copy of the parameters, fed the same gradients: what our AdamW must agree with."""

    def __init__(self, params):
        self.params = {name: p.clone().requires_grad_() for name, p in params.items()}
        decay = [p for p in self.params.values() if p.dim() >= 2]
        no_decay = [p for p in self.params.values() if p.dim() < 2]
        groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": no_decay, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPS)

    def step(self, grads):
        for name, g in grads.items():
            self.params[name].grad = g.clone()
        self.optimizer.step()

    def check(self, params):
        worst = max((self.params[name] - p).abs().max().item() for name, p in params.items())
        assert worst <= 1e-12, f"AdamW differs from torch.optim.AdamW by {worst:.3g}"


@dataclass
class Run:
    losses: list       # before each update
    grad_norms: list   # before clipping
    logits: torch.Tensor  # of the first batch
    first_grads: dict  # of the first batch, before clipping
    final: dict        # parameters after the last update


def train(c, initial, tokens, targets, dtype):
    """tokens, targets (STEPS, B, T): one batch per step."""
    params = {name: p.to(dtype, copy=True) for name, p in initial.items()}
    optimizer, reference = AdamW(params), TorchAdamW(params)
    run = Run([], [], None, None, params)
    for step in range(STEPS):
        loss, grads, logits = loss_and_gradients(c, params, tokens[step], targets[step])
        clipped, norm = clip(grads)
        optimizer.step(params, clipped)
        reference.step(clipped)
        run.losses.append(loss)
        run.grad_norms.append(norm)
        if step == 0:
            run.logits, run.first_grads = logits, grads
    if dtype == torch.float64:
        reference.check(params)
    return run


# ---------------------------------------------------------------------------------------------------------------------
# Checks of the oracle itself

def check_finite_differences(c, initial, tokens, targets, grads, rng):
    """Central differences in fp64, per tensor along one random direction and for its largest and two random entries."""
    params = {name: p.double() for name, p in initial.items()}
    step = 1e-5

    def loss_at(name, shift):
        return loss_of(forward(c, {**params, name: params[name] + shift}, tokens), targets).item()

    for name, g in grads.items():
        directions = [torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal(g.numel())), dim=0).view_as(g)]
        for entry in (g.abs().argmax().item(), *rng.integers(g.numel(), size=2)):
            one_hot = torch.zeros_like(g)
            one_hot.view(-1)[entry] = 1.0
            directions.append(one_hot)
        for direction in directions:
            measured = (loss_at(name, step * direction) - loss_at(name, -step * direction)) / (2.0 * step)
            expected = (g * direction).sum().item()
            assert abs(measured - expected) <= 1e-8 + 1e-6 * abs(expected), \
                f"{name}: finite difference {measured!r}, gradient {expected!r}"


def to_transformers(c, tensors):
    """Our parameters or their gradients under Hugging Face's names and layouts."""
    out = {}
    if c.family == "gpt2":
        out["transformer.wte.weight"], out["transformer.wpe.weight"] = tensors["wte"], tensors["wpe"]
        names = {"ln1": "ln_1", "qkv": "attn.c_attn", "att_proj": "attn.c_proj", "ln2": "ln_2", "fc": "mlp.c_fc",
                 "fc_proj": "mlp.c_proj"}
        for l in range(c.L):
            for ours, theirs in names.items():
                weight, bias = (tensors[f"layers.{l}.{ours}_{kind}"] for kind in ("weight", "bias"))
                out[f"transformer.h.{l}.{theirs}.weight"] = weight.t()  # Conv1D is (in, out); a no-op for norms
                out[f"transformer.h.{l}.{theirs}.bias"] = bias
        out["transformer.ln_f.weight"], out["transformer.ln_f.bias"] = tensors["lnf_weight"], tensors["lnf_bias"]
        return out
    out["model.embed_tokens.weight"] = tensors["wte"]
    for l in range(c.L):
        ours, theirs = f"layers.{l}.", f"model.layers.{l}."
        q, k, v = tensors[ours + "qkv_weight"].split((c.NH * c.HD, c.NKV * c.HD, c.NKV * c.HD))
        gate, up = tensors[ours + "gate_up_weight"].split(c.F)
        out.update({
            theirs + "input_layernorm.weight": tensors[ours + "ln1_weight"],
            theirs + "self_attn.q_proj.weight": q,
            theirs + "self_attn.k_proj.weight": k,
            theirs + "self_attn.v_proj.weight": v,
            theirs + "self_attn.o_proj.weight": tensors[ours + "att_proj_weight"],
            theirs + "post_attention_layernorm.weight": tensors[ours + "ln2_weight"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight": tensors[ours + "fc_proj_weight"],
        })
    out["model.norm.weight"] = tensors["lnf_weight"]
    if not c.tied:
        out["lm_head.weight"] = tensors["lm_head"]
    return out


def transformers_model(c):
    """A randomly initialised Hugging Face model of this configuration, nothing downloaded."""
    import transformers
    if c.family == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=c.V, n_positions=c.max_T, n_embd=c.C, n_layer=c.L, n_head=c.NH, n_inner=c.F,
            activation_function="gelu_new", layer_norm_epsilon=c.norm_eps, tie_word_embeddings=c.tied,
            attn_implementation="eager"))
    scaling = None
    if c.rope_scaling == "llama3":
        scaling = {"rope_type": "llama3", "factor": c.rope_factor, "low_freq_factor": c.rope_low_freq_factor,
                   "high_freq_factor": c.rope_high_freq_factor,
                   "original_max_position_embeddings": c.rope_original_max_T}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=c.V, hidden_size=c.C, intermediate_size=c.F, num_hidden_layers=c.L, num_attention_heads=c.NH,
        num_key_value_heads=c.NKV, head_dim=c.HD, max_position_embeddings=c.max_T, rms_norm_eps=c.norm_eps,
        rope_theta=c.rope_theta, rope_scaling=scaling, tie_word_embeddings=c.tied, attn_implementation="eager"))


def check_transformers(name, c, initial, tokens, targets):
    """Logits and every gradient of the first batch against transformers' model in fp64.

    Hugging Face computes RMSNorm, softmax and the RoPE angles of LLaMA in fp32 whatever the model's dtype, hence its
    wider tolerance. A wrong RoPE scaling would be far outside it, which is checked too.
    """
    model = transformers_model(c).double().eval()
    params = {key: p.double() for key, p in initial.items()}
    missing, unexpected = model.load_state_dict(to_transformers(c, params), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()

    logits = model(tokens).logits
    loss_of(logits, targets).backward()
    _, grads, our_logits = loss_and_gradients(c, params, tokens, targets)

    def distance(ours, theirs):
        return ((ours - theirs).norm() / theirs.norm()).item()

    ours, theirs = to_transformers(c, grads), dict(model.named_parameters())
    assert set(ours) == set(theirs), set(ours) ^ set(theirs)
    logits_error = distance(our_logits, logits.detach())
    # By norm of the whole tensor: the gradient of GPT-2's key bias is zero but for rounding.
    gradient_error = max(distance(ours[key], theirs[key].grad) for key in ours)
    tolerance = 1e-12 if c.family == "gpt2" else 2e-6
    print(f"{name}: relative distance to transformers: logits {logits_error:.1e}, worst gradient {gradient_error:.1e}")
    assert logits_error <= tolerance and gradient_error <= tolerance
    if c.rope_scaling != "none":
        unscaled = forward(replace(c, rope_scaling="none"), params, tokens)
        print(f"{name}: without RoPE scaling the logits' distance would be {distance(unscaled, logits.detach()):.1e}")
        assert distance(unscaled, logits.detach()) > 1000 * tolerance


# ---------------------------------------------------------------------------------------------------------------------
# Files

def write_safetensors(path, tensors, metadata):
    """tensors: {name: numpy array}; metadata: {string: string}. Largest items first, so that all data is aligned."""
    dtypes = {np.dtype("<f8"): "F64", np.dtype("<f4"): "F32", np.dtype("<i4"): "I32"}
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    header, end = {"__metadata__": metadata}, 0
    for name in order:
        array = tensors[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": dtypes[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def metadata_of(c):
    def text(value):
        return str(value).lower() if isinstance(value, bool) else str(value)

    optimizer = {"learning_rate": LEARNING_RATE, "beta1": BETA1, "beta2": BETA2, "eps": EPS,
                 "weight_decay": WEIGHT_DECAY, "grad_clip": GRAD_CLIP, "steps": STEPS}
    values = {**asdict(c), **optimizer, "torch_version": torch.__version__}
    return {key: text(value) for key, value in values.items()}


def golden_tensors(initial, tokens, targets, fp64, fp32):
    """What the README lists."""
    def error(single, double):
        return np.array([(single.double() - double).norm().item()])

    def without_k(qkv_bias):
        q, _, v = qkv_bias.chunk(3)
        return torch.cat((q, v))

    tensors = {
        "tokens": tokens.numpy().astype(np.int32),
        "targets": targets.numpy().astype(np.int32),
        "loss": np.array(fp64.losses),
        "loss_fp32": np.array(fp32.losses),
        "grad_norm": np.array(fp64.grad_norms),
        "grad_norm_fp32": np.array(fp32.grad_norms),
        "logits": fp64.logits.numpy(),
        "logits_error": error(fp32.logits, fp64.logits),
    }
    for name, value in initial.items():
        tensors["param." + name] = value.numpy()
        tensors["grad." + name] = fp64.first_grads[name].numpy()
        tensors["grad_error." + name] = error(fp32.first_grads[name], fp64.first_grads[name])
        tensors["final." + name] = fp64.final[name].numpy()
        tensors["final_error." + name] = error(fp32.final[name], fp64.final[name])
        if name.endswith("qkv_bias"):
            tensors["final_error_without_k." + name] = error(without_k(fp32.final[name]), without_k(fp64.final[name]))
    return tensors


def make(name, folder, with_transformers):
    seed, c = MODELS[name]
    rng = np.random.default_rng(seed)
    initial = initial_parameters(c, rng)
    tokens, targets = torch.from_numpy(rng.integers(c.V, size=(2, STEPS, c.B, c.T)))

    fp64 = train(c, initial, tokens, targets, torch.float64)
    fp32 = train(c, initial, tokens, targets, torch.float32)
    check_finite_differences(c, initial, tokens[0], targets[0], fp64.first_grads, rng)
    if with_transformers:
        check_transformers(name, c, initial, tokens[0], targets[0])

    path = folder / f"{name}.safetensors"
    write_safetensors(path, golden_tensors(initial, tokens, targets, fp64, fp32), metadata_of(c))
    loss_error = max(abs(a - b) for a, b in zip(fp64.losses, fp32.losses))
    print(f"{path}: {path.stat().st_size} bytes, {sum(p.numel() for p in initial.values())} parameters, "
          f"loss {fp64.losses[0]:.4f} .. {fp64.losses[-1]:.4f} (fp32 within {loss_error:.1e}), "
          f"gradient norm {min(fp64.grad_norms):.3f} .. {max(fp64.grad_norms):.3f}")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=pathlib.Path, default=root / "tests" / "golden",
                        help="default: %(default)s")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all")
    parser.add_argument("--check-transformers", action="store_true",
                        help="compare with the package transformers, which must be installed (see README.md)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        make(name, args.output_dir, args.check_transformers)


if __name__ == "__main__":
    main()
