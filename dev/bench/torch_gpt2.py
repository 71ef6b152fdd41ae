"""GPT-2 in PyTorch on a CPU, written for speed: the peer that cpu_vs_torch.py measures, one process per measurement.

    python3 torch_gpt2.py '{"task": "gemm", "dtype": "fp32", "seconds": 1}'

Its argument is a JSON object (cpu_vs_torch.py makes it), its output another. "train" times whole training steps
(forward, backward, clipping, AdamW) and reports the peak resident set; "gemm" times large matrix products. Threads,
BLAS and allocator come from the environment. Dimension names are those of the C++ code: B batch, T tokens, C channels,
L layers, NH heads, V vocabulary, Vp the same padded to a multiple of 64.
"""

import json
import math
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from measure import enough, peak_bytes


# ---------------------------------------------------------------------------------------------------------------------
# Causal attention, three ways. q, k, v: (B, NH, T, HD); returns the same shape. `bias` is (T, T): 0, and -inf above
# the diagonal.

def attention_plain(q, k, v, bias):
    scores = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(q.size(-1)))
    return F.softmax(scores + bias.to(scores.dtype), dim=-1) @ v


def attention_baddbmm(q, k, v, bias):
    """Scale and mask ride along with the first product."""
    B, NH, T, HD = q.shape
    q, k, v = (x.reshape(B * NH, T, HD) for x in (q, k, v))
    scores = torch.baddbmm(bias.to(q.dtype), q, k.transpose(1, 2), alpha=1 / math.sqrt(HD))
    return torch.bmm(F.softmax(scores, dim=-1), v).view(B, NH, T, HD)


def attention_builtin(q, k, v, bias):
    """PyTorch 2's scaled_dot_product_attention; 1.13 has it under a private name, with a pair as its result."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F._scaled_dot_product_attention(q, k, v, None, 0.0, False, True)[0]


ATTENTION = {"plain": attention_plain, "baddbmm": attention_baddbmm, "builtin": attention_builtin}


# ---------------------------------------------------------------------------------------------------------------------
# The model

class Block(nn.Module):
    def __init__(self, C, NH, attention):
        super().__init__()
        self.NH = NH
        self.attention = attention
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.fc_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x, bias):
        B, T, C = x.shape
        q, k, v = (y.view(B, T, self.NH, C // self.NH).transpose(1, 2) for y in self.qkv(self.ln1(x)).split(C, dim=2))
        x = x + self.proj(self.attention(q, k, v, bias).transpose(1, 2).reshape(B, T, C))
        return x + self.fc_proj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, L, C, NH, Vp, T, attention, checkpointing):
        super().__init__()
        self.checkpointing = checkpointing
        self.wte, self.wpe = nn.Embedding(Vp, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block(C, NH, attention) for _ in range(L))
        self.ln_f = nn.LayerNorm(C)
        self.register_buffer("bias", torch.full((T, T), -math.inf).triu(1))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight
        for block in self.blocks:
            if self.checkpointing:
                x = checkpoint(block, x, self.bias, preserve_rng_state=False)
            else:
                x = block(x, self.bias)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


# ---------------------------------------------------------------------------------------------------------------------
# Measuring

def train(s):
    base_bytes = peak_bytes()
    torch.manual_seed(1)
    model = GPT2(s["L"], s["C"], s["NH"], s["Vp"], s["T"], ATTENTION[s["attention"]], s["checkpointing"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                  foreach=s["foreach"])
    step_ms, loss = [], None
    while not enough(step_ms, s):
        tokens, targets = torch.randint(s["V"], (2, s["B"], s["T"]))
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=s["dtype"] == "bf16"):
            loss = model(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = loss.item()
        step_ms.append((time.perf_counter() - start) * 1e3)
    return {"step_ms": step_ms, "peak_bytes": peak_bytes(), "base_bytes": base_bytes, "loss": loss,
            "torch": torch.__version__, "threads": torch.get_num_threads()}


def gemm(s):
    """Sustained GFLOP/s (median over a second) of the fastest kind of product on the friendliest shape."""
    dtype = torch.bfloat16 if s["dtype"] == "bf16" else torch.float32
    rates = {}
    with torch.no_grad():
        for M, N, K in [(2048, 2048, 2048), (4096, 3072, 768), (1024, 3072, 768)]:
            x, w = torch.randn(M, K).to(dtype), torch.randn(N, K).to(dtype)
            x_mkldnn, w_mkldnn = x.to_mkldnn(), w.to_mkldnn()
            products = {"mm": lambda: torch.mm(x, w.t()),
                        "oneDNN linear": lambda: torch._C._nn.mkldnn_linear(x_mkldnn, w_mkldnn, None)}
            for name, product in products.items():
                rates[f"{name} {M}x{N}x{K}"] = 2e-9 * M * N * K / median_seconds(product, s["seconds"])
    return rates


def median_seconds(function, duration):
    function()
    seconds, end = [], time.perf_counter() + duration
    while len(seconds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    print(json.dumps({"train": train, "gemm": gemm}[settings["task"]](settings)))
