"""GPT-2 and LLaMA in PyTorch 2, written for its compiler: the peers of our presets that torch_gpu.py trains on a GPU.

Same table of parameters and same operations as llmc/model/transformer.cpp: fused qkv and gate_up projections,
no dropout, the vocabulary padded to a multiple of 64. Dimension names are those of the C++ code: B batch, T tokens,
C channels, L layers, NH and NKV query and key/value heads of HD channels, F hidden channels of the MLP, V vocabulary,
Vp the same padded.
"""

import inspect
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Config:
    family: str  # gpt2 or llama
    L: int
    C: int
    NH: int
    NKV: int
    HD: int
    F: int
    V: int
    max_T: int  # rows of wpe, for GPT-2
    tied: bool = True

    @property
    def Vp(self):
        return -(-self.V // 64) * 64


HAS_GQA = "enable_gqa" in (inspect.getdoc(F.scaled_dot_product_attention) or "")


def causal_attention(q, k, v):
    """q: (B, NH, T, HD), k and v: (B, NKV, T, HD); returns (B, NH, T, HD)."""
    if q.size(1) == k.size(1):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if HAS_GQA:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def split_heads(qkv, c):
    """(B, T, (NH + 2 NKV) HD) -> q (B, NH, T, HD), k and v (B, NKV, T, HD)."""
    B, T, _ = qkv.shape
    return (x.view(B, T, -1, c.HD).transpose(1, 2)
            for x in qkv.split([c.NH * c.HD, c.NKV * c.HD, c.NKV * c.HD], dim=2))


def rotate(x, rope):
    """Rotary positions; rope is (cos, sin), each (T, HD / 2) in fp32."""
    cos, sin = rope
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).type_as(x)


class RmsNorm(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        gpt2 = c.family == "gpt2"
        norm = nn.LayerNorm if gpt2 else RmsNorm
        self.ln1, self.ln2 = norm(c.C), norm(c.C)
        self.qkv = nn.Linear(c.C, (c.NH + 2 * c.NKV) * c.HD, bias=gpt2)
        self.att_proj = nn.Linear(c.NH * c.HD, c.C, bias=gpt2)
        self.fc = nn.Linear(c.C, c.F if gpt2 else 2 * c.F, bias=gpt2)  # LLaMA: gate and up
        self.fc_proj = nn.Linear(c.F, c.C, bias=gpt2)

    def forward(self, x, rope):
        q, k, v = split_heads(self.qkv(self.ln1(x)), self.c)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        x = x + self.att_proj(causal_attention(q, k, v).transpose(1, 2).flatten(2))
        hidden = self.fc(self.ln2(x))
        if self.c.family == "gpt2":
            return x + self.fc_proj(F.gelu(hidden, approximate="tanh"))
        gate, up = hidden.chunk(2, dim=-1)
        return x + self.fc_proj(F.silu(gate) * up)


class Checkpointed(nn.Module):
    """Keeps a block's input and runs its forward again in the backward."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x, rope):
        return checkpoint(self.block, x, rope, use_reentrant=False, preserve_rng_state=False)


class Head(nn.Module):
    """Final norm, logits, mean cross-entropy. The softmax is fp32, as ours is; the compiler fuses the conversion."""

    def __init__(self, c, embedding):
        super().__init__()
        self.norm = (nn.LayerNorm if c.family == "gpt2" else RmsNorm)(c.C)
        self.logits = nn.Linear(c.C, c.Vp, bias=False)
        if c.tied:
            self.logits.weight = embedding.weight

    def forward(self, x, targets):
        return F.cross_entropy(self.logits(self.norm(x)).float().flatten(0, 1), targets.flatten())


class Transformer(nn.Module):
    def __init__(self, c, checkpointing):
        super().__init__()
        self.c = c
        self.wte = nn.Embedding(c.Vp, c.C)
        self.wpe = nn.Embedding(c.max_T, c.C) if c.family == "gpt2" else None
        self.blocks = nn.ModuleList(Checkpointed(Block(c)) if checkpointing else Block(c) for _ in range(c.L))
        self.head = Head(c, self.wte)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets, rope):
        x = self.wte(tokens)
        if self.wpe is not None:
            x = x + self.wpe.weight[:tokens.size(1)]
        for block in self.blocks:
            x = block(x, rope)
        return self.head(x, targets)

    def rope(self, T, device):
        """The argument `rope` for sequences of T tokens; None for GPT-2."""
        if self.c.family == "gpt2":
            return None
        frequencies = torch.exp(torch.arange(0, self.c.HD, 2, device=device) * (-math.log(5e5) / self.c.HD))
        angles = torch.arange(T, device=device).float().outer(frequencies)
        return angles.cos(), angles.sin()

    def parameter_count(self):
        """Without the padding of the vocabulary, as train_gpt counts."""
        padding = (self.c.Vp - self.c.V) * self.c.C * (1 if self.c.tied else 2)
        return sum(parameter.numel() for parameter in self.parameters()) - padding
