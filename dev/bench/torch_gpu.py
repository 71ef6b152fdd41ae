"""PyTorch's side of gpu_vs_torch.py, at its best; a process of its own per measurement, so that memory is clean.

    python3 torch_gpu.py '{"task": "train", "device": "cuda", "family": "gpt2", ...}'

Its argument is a JSON object (gpu_vs_torch.py makes it), its last line of output another; out of memory is an answer.

"train" times whole training steps: forward, backward, clipping by norm, AdamW. Parameters and activations are bf16,
master weights and AdamW's moments fp32, as ours are, which takes less time and memory than autocast; scaled dot-product
attention, fused AdamW, torch.compile: of the whole model up to 12 layers, else of the block and the head, as deep
models are compiled in practice (the compiler needs minutes for 48 layers at once). "attention" times
scaled_dot_product_attention, forward and backward.

On a GPU no step waits for the one before it: times are between events in the stream.
"""

import json
import statistics
import sys
import time

import torch
from torch import nn

from measure import enough
from torch_models import HAS_GQA, Config, Transformer, causal_attention

DEEPEST_WHOLE = 12  # layers


class Stopwatch:
    """Milliseconds of calls. On a GPU they are queued in groups, and waited for group by group."""

    GROUP = 8

    def __init__(self, device):
        self.on_gpu = device.type == "cuda"

    def __call__(self, function, calls):
        """The times of `calls` consecutive calls."""
        if not self.on_gpu:
            times = []
            for _ in range(calls):
                start = time.perf_counter()
                function()
                times.append((time.perf_counter() - start) * 1e3)
            return times
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
        marks[0].record()
        for mark in marks[1:]:
            function()
            mark.record()
        marks[-1].synchronize()
        return [before.elapsed_time(after) for before, after in zip(marks, marks[1:])]

    def until_enough(self, function, rule):
        """All times, those of the warm-up first."""
        times = self(function, rule["warmup"])
        while not enough(times, rule):
            times += self(function, self.GROUP if self.on_gpu else 1)
        return times


class MasterAdamW:
    """AdamW on fp32 copies of bf16 parameters, with decay on matrices only, after clipping to norm 1."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.masters = [p.detach().float() for p in self.parameters]
        groups = [{"params": [m for m in self.masters if m.dim() > 1], "weight_decay": 0.1},
                  {"params": [m for m in self.masters if m.dim() <= 1], "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)

    @torch.no_grad()
    def step(self):
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        for master in self.masters:
            master.grad = torch.empty_like(master)
        torch._foreach_copy_([m.grad for m in self.masters], [p.grad for p in self.parameters])
        for parameter in self.parameters:
            parameter.grad = None
        self.adamw.step()
        for master in self.masters:
            master.grad = None
        torch._foreach_copy_(self.parameters, self.masters)


def compiled(model):
    """The model with torch.compile applied, and how."""
    version = tuple(int(number) for number in torch.__version__.split(".")[:2])
    if model.c.L <= DEEPEST_WHOLE or version < (2, 5):  # older ones compile every layer's block anew
        return torch.compile(model), "model"
    for block in model.blocks:
        block.compile(fullgraph=True)
    model.head.compile(fullgraph=True)
    return model, "block"


def attention_backend(q, k, v):
    """Which implementation scaled_dot_product_attention takes for these: FLASH_ATTENTION, CUDNN_ATTENTION, ..."""
    try:
        if q.size(1) == k.size(1) or not HAS_GQA:
            chosen = torch._fused_sdp_choice(q, k, v, is_causal=True)
        else:
            chosen = torch._fused_sdp_choice(q, k, v, is_causal=True, enable_gqa=True)
        return next(name for name, value in torch.nn.attention.SDPBackend.__members__.items() if int(value) == chosen)
    except Exception as error:  # a private function: whatever becomes of it costs a name, not a measurement
        return f"unknown ({type(error).__name__})"


def random_heads(s, device):
    """q, k, v as the fused projection leaves them, wanting gradients; s has B, T, NH, NKV, HD."""
    qkv = torch.randn(s["B"], s["T"], s["NH"] + 2 * s["NKV"], s["HD"], device=device, dtype=torch.bfloat16)
    return [x.transpose(1, 2).requires_grad_() for x in qkv.split([s["NH"], s["NKV"], s["NKV"]], dim=2)]


def train(s):
    device = torch.device(s["device"])
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    config = Config(*(s[key] for key in ("family", "L", "C", "NH", "NKV", "HD", "F", "V", "max_T", "tied")))
    with device:
        model = Transformer(config, s["checkpointing"]).bfloat16()
    optimizer = MasterAdamW(model.parameters())
    rope = model.rope(s["T"], device)
    batches = [torch.randint(s["V"], (2, s["B"], s["T"]), pin_memory=device.type == "cuda") for _ in range(8)]
    run, how = compiled(model) if s["compile"] else (model, "no")
    result = {"parameters": model.parameter_count(), "compile": how, "losses": [],
              "attention": attention_backend(*random_heads(s, device))}

    def step():
        tokens, targets = batches[len(result["losses"]) % len(batches)].to(device, non_blocking=True)
        loss = run(tokens, targets, rope)
        loss.backward()
        optimizer.step()
        result["losses"].append(loss.detach())

    start = time.perf_counter()
    watch = Stopwatch(device)
    watch(step, 2)  # compiles
    result["start_seconds"] = time.perf_counter() - start
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    result["step_ms"] = watch.until_enough(step, s)[s["warmup"]:]
    if device.type == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
        result["reserved_bytes"] = torch.cuda.max_memory_reserved()
    result["losses"] = [loss.item() for loss in result["losses"]]
    return result


def attention(s):
    """Milliseconds of a forward and its backward, {title: ms}, and which implementation was taken."""
    device = torch.device(s["device"])
    watch, times, backends = Stopwatch(device), {}, {}
    for shape in s["shapes"]:
        B, T, NH, HD = (shape[key] for key in ("B", "T", "NH", "HD"))
        q, k, v = random_heads(shape, device)
        gradient = torch.randn(B, T, NH, HD, device=device, dtype=torch.bfloat16).transpose(1, 2)

        def both():
            torch.autograd.grad(causal_attention(q, k, v), (q, k, v), gradient)

        times[shape["title"]] = statistics.median(watch.until_enough(both, s)[s["warmup"]:])
        backends[shape["title"]] = attention_backend(q, k, v)
    return {"ms": times, "backends": backends}


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    about = {"torch": torch.__version__}
    try:
        about |= {"train": train, "attention": attention, "about": lambda s: {}}[settings["task"]](settings)
    except torch.cuda.OutOfMemoryError:
        about |= {"error": "out of memory"}
    print(json.dumps(about))
