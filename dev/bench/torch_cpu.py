"""Our presets in PyTorch on a CPU, written for speed: the peer of cpu_vs_torch.py, a process per measurement.

    python torch_cpu.py '{"task": "gemm", "dtype": "fp32", "seconds": 1}'

Its argument is a JSON object (cpu_vs_torch.py makes it), its output another. "train" times whole training steps
(forward, backward, clipping, AdamW) of torch_models.py and reports the peak resident set; "gemm" times large matrix
products; "products" those of given shapes. Threads, MKL's kernels and the allocator come from the environment.
"""

import json
import math
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

import torch_models
from measure import enough, peak_bytes


# ---------------------------------------------------------------------------------------------------------------------
# Causal attention by hand. q: (B, NH, T, HD), k and v: (B, NKV, T, HD); returns the shape of q.

def attention_plain(q, k, v):
    T = q.size(2)
    if q.size(1) != k.size(1):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    mask = torch.full((T, T), -math.inf, dtype=q.dtype).triu(1)
    return F.softmax((q @ k.transpose(-2, -1)) * (1 / math.sqrt(q.size(-1))) + mask, dim=-1) @ v


def make_optimizer(model, kind):
    return torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1,
                             foreach=kind == "foreach", fused=kind == "fused")


def train(s):
    base_bytes = peak_bytes()
    torch.manual_seed(1)
    if s["attention"] == "plain":
        torch_models.causal_attention = attention_plain
    config = torch_models.Config(**s["config"])
    model = torch_models.Transformer(config, s["checkpointing"])
    rope = model.rope(s["T"], "cpu")
    optimizer = make_optimizer(model, s["optimizer"])
    run = torch.compile(model) if s["compile"] else model
    step_ms, loss = [], None
    while not enough(step_ms, s):
        tokens, targets = torch.randint(config.V, (2, s["B"], s["T"]))
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=s["dtype"] == "bf16"):
            loss = run(tokens, targets, rope)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = loss.item()
        step_ms.append((time.perf_counter() - start) * 1e3)
    return {"step_ms": step_ms, "peak_bytes": peak_bytes(), "base_bytes": base_bytes, "loss": loss,
            "torch": torch.__version__, "threads": torch.get_num_threads()}


def dtype_of(name):
    return torch.bfloat16 if name == "bf16" else torch.float32


def gemm(s):
    """Sustained GFLOP/s (median over some time) of the fastest kind of product on friendly shapes."""
    rates = {}
    with torch.no_grad():
        for M, N, K in [(2048, 2048, 2048), (4096, 3072, 768), (1024, 3072, 768)]:
            x, w = (torch.randn(rows, K).to(dtype_of(s["dtype"])) for rows in (M, N))
            x_mkldnn, w_mkldnn = x.to_mkldnn(), w.to_mkldnn()
            products = {"mm": lambda: torch.mm(x, w.t()),
                        "oneDNN linear": lambda: torch._C._nn.mkldnn_linear(x_mkldnn, w_mkldnn, None)}
            for name, product in products.items():
                rates[f"{name} {M}x{N}x{K}"] = 2e-9 * M * N * K / median_seconds(product, s["seconds"])
    return rates


def products(s):
    """Median seconds of a layer's products for every (N, OC, IC) of s["shapes"]: forward, input and weight gradient."""
    dtype, result = dtype_of(s["dtype"]), []
    with torch.no_grad():
        for N, OC, IC in s["shapes"]:
            x, w, dy = (torch.randn(shape).to(dtype) for shape in ((N, IC), (OC, IC), (N, OC)))
            runs = {"forward": lambda: torch.mm(x, w.t()), "input": lambda: torch.mm(dy, w),
                    "weight": lambda: torch.mm(dy.t(), x)}
            result.append({name: median_seconds(run, s["seconds"], time.thread_time) for name, run in runs.items()})
    return {"seconds": result, "torch": torch.__version__}


def median_seconds(function, duration, clock=time.perf_counter):
    function()
    seconds, end = [], time.perf_counter() + duration
    while len(seconds) < 5 or time.perf_counter() < end:
        start = clock()
        function()
        seconds.append(clock() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    print(json.dumps({"train": train, "gemm": gemm, "products": products}[settings["task"]](settings)))
