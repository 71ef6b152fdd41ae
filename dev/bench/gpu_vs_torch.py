#!/usr/bin/env python3
"""Training speed and memory of train_gpt against PyTorch 2 on an NVIDIA card, alternating, in one run.

    dev/bench/gpu_vs_torch.py                      # GPT-2 124M, gpt2-xl, llama3.2-1b
    dev/bench/gpu_vs_torch.py --quick              # GPT-2 124M alone
    dev/bench/gpu_vs_torch.py --models=gpt2-xl --seconds=300

Needs ./train_gpt built with CUDA (or $TRAIN_GPT) and a python3 with PyTorch 2 and Triton (--python), which runs
torch_gpu.py; without PyTorch only our side is measured. Part of scripts/gpu_check.py. Exits with 1 if a target is
missed.

  Speed      every measurement is a process of its own: tokens per step over the median step time after a warm-up. Ours
             is measured before and after PyTorch at levels 0 and 1, at which the two are compared: level 0 with no
             checkpointing, level 1 with torch.utils.checkpoint around every block. auto has half of what lies between
             the memory of levels 0 and 1. Random tokens of the whole vocabulary; neither validation nor checkpoints.
  MFU        6 (P - wpe) + 6 L T (NH HD) FLOPs per token, nothing for repeated work, over the card's dense bf16 peak.
  Memory     ours: what is allocated, all of it before the first step; PyTorch: the peak of its allocated tensors. What
             CUDA itself takes (its context) is in neither.
  Attention  the rows "forward of att" and "backward of att" of --profile, per layer, against PyTorch's
             scaled_dot_product_attention at the same shape.

The batch is the largest listed one with which level 0 needs at most 65 % of the card, as PyTorch needs more. A
measurement for which no time is left (--seconds) is skipped. Writes gpu_vs_torch.json, .md, .tsv (the verdicts) and
profiles.txt (the tables of --profile) to --output-dir. --smoke --device=cpu goes through all of it with tiny models:
figures that mean nothing and miss no target.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from torch_report import holds, report
from torch_sides import (LONGEST_SECONDS, NO_TIME, SMOKE_VOCABULARY, Deadline, Failed, Ours, Torch, attention_ms, card,
                         say)

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Shape:
    title: str
    model: str  # our preset
    batches: tuple
    T: int
    family: str
    L: int
    C: int
    NH: int
    NKV: int
    HD: int
    F: int
    V: int
    max_T: int
    mfu_target: float = None  # at level 0
    speed_target: float = None  # times PyTorch
    tied: bool = True
    B: int = 0  # the one chosen of `batches`
    options: tuple = ()  # more of ours

    @property
    def name(self):
        return f"{self.title} B={self.B} T={self.T}"

    def flops_per_token(self, parameters):
        positions = self.max_T * self.C if self.family == "gpt2" else 0
        return 6 * (parameters - positions) + 6 * self.L * self.NH * self.HD * self.T


SHAPES = {
    "gpt2": Shape("GPT-2 124M", "gpt2", (32, 16, 8, 4), 1024, "gpt2", L=12, C=768, NH=12, NKV=12, HD=64, F=3072,
                  V=50257, max_T=1024, mfu_target=0.50, speed_target=1.1),
    "gpt2-xl": Shape("gpt2-xl", "gpt2-xl", (8, 4, 2, 1), 1024, "gpt2", L=48, C=1600, NH=25, NKV=25, HD=64, F=6400,
                     V=50257, max_T=1024, mfu_target=0.60, speed_target=1.1),
    "llama3.2-1b": Shape("llama3.2-1b", "llama3.2-1b", (4, 2, 1), 4096, "llama", L=16, C=2048, NH=32, NKV=8, HD=64,
                         F=8192, V=128256, max_T=131072),
}
SMOKE = {"gpt2": {"L": 2, "C": 32, "NH": 2, "NKV": 2, "HD": 16, "F": 64}, "llama": {"L": 2, "C": 32, "NH": 4, "NKV": 2,
         "HD": 8, "F": 48}}
SMOKE = {family: {**dimensions, "T": 32, "batches": (2,), "V": SMOKE_VOCABULARY}
         for family, dimensions in SMOKE.items()}

# Our level and PyTorch's checkpointing, in the order of measuring.
ORDER = [("ours", "none"), ("torch", False), ("ours", "none"), ("ours", "layer"), ("torch", True), ("ours", "layer"),
         ("ours", "sqrt"), ("ours", "auto"), ("ours", "offload")]
LEVELS = {"none": "0 none", "layer": "1 layer", "sqrt": "2 sqrt", "offload": "offload", "auto": "auto"}
PEER = {"none": False, "layer": True}
STEP_TARGETS = {"layer": 1.25, "sqrt": 1.5}  # times level 0
ATTENTION_TARGET = 0.7  # times the speed of PyTorch's

# When a measurement is long enough (see measure.py), and how long one takes before the first of its kind tells.
RULE = {"warmup": 4, "min_steps": 20, "min_seconds": 2.5, "max_seconds": 6}
SMOKE_RULE = {"warmup": 2, "min_steps": 1, "min_seconds": 0, "max_seconds": 1}
GUESS_SECONDS = {"ours": 10, "torch": 55}
REPEAT_BELOW_SECONDS = 20


# ---------------------------------------------------------------------------------------------------------------------
# Measuring

class Bench:
    def __init__(self, ours, torch, deadline, smoke):
        self.ours, self.torch, self.deadline, self.smoke = ours, torch, deadline, smoke
        self.runs, self.why = {}, {}  # by (name of the shape, side, setting): measurements; why there are none
        self.rows, self.checks, self.profiles = [], [], []

    def check(self, step, name, value, target, at_most=False, text="{:.2f}", why="not measured", failed=False):
        """A verdict. Without a value it is a miss if our side failed, else the check is skipped."""
        if value is None:
            verdict, figure = "miss" if failed else "skip", why
        else:
            verdict = "pass" if self.smoke or holds(value, target, at_most) else "miss"
            figure = f"{text.format(value)} (target: at {'most' if at_most else 'least'} {text.format(target)})"
        self.checks.append({"step": step, "name": name, "verdict": verdict, "figure": figure})

    def measure(self, shape):
        """All rows of a shape: one per level, with PyTorch's measurement where it has the same setting."""
        say(shape.name)
        expected = dict(GUESS_SECONDS)
        for side, setting in ORDER:
            key = shape.name, side, setting
            if key in self.why or (key in self.runs and expected[side] > REPEAT_BELOW_SECONDS):
                continue
            if self.deadline.left() < expected[side]:
                self.why.setdefault(key, NO_TIME)
                continue
            start = time.monotonic()
            if self.measure_one(shape, side, setting):
                expected[side] = 1.1 * (time.monotonic() - start)
        self.conclude(shape)

    def measure_one(self, shape, side, setting, rule=None):
        """One measurement: added to `runs` and returned; or None, and `why` says why. For PyTorch, `setting` is whether
        it checkpoints."""
        key, start = (shape.name, side, setting), time.monotonic()
        seconds = min(self.deadline.left(), 2 * LONGEST_SECONDS)
        try:
            if side == "ours":
                budget = self.ours.budget(shape) if setting == "auto" else 0
                run = self.ours.train(shape, setting, budget, seconds, rule)
                run["budget_bytes"] = budget or None
            else:
                run = self.torch.train(shape, setting, seconds)
                parameters = self.ours.plan(shape, "none")[0]
                if run["parameters"] != parameters:
                    raise Failed(f"PyTorch's model has {run['parameters']} parameters, ours {parameters}")
        except Failed as failure:
            self.why[key] = str(failure)
            say(f"    {side:5} {setting!s:6} {failure}")
            return None
        self.why.pop(key, None)
        self.runs.setdefault(key, []).append(run)
        say(f"    {side:5} {setting!s:6} {run['median_ms']:8.2f} ms a step, {time.monotonic() - start:.0f} s in all")
        return run

    def conclude(self, shape):
        """Rows and verdicts of what was measured of a shape."""
        parameters = self.ours.plan(shape, "none")[0]
        self.rows += [self.row(shape, level, parameters) for level in LEVELS]
        self.judge(shape)

    def of(self, shape):
        """Its part of `runs` and of `why`, by (side, setting)."""
        return ({key[1:]: value for key, value in kept.items() if key[0] == shape.name}
                for kept in (self.runs, self.why))

    def row(self, shape, level, parameters):
        runs, why = self.of(shape)
        budget = next((run["budget_bytes"] for run in runs.get(("ours", level), [])), None)
        row = {"shape": shape.name, "model": shape.model, "B": shape.B, "T": shape.T, "level": level,
               "label": LEVELS[level] + (f" in {budget / 2**30:.2f} GiB" if budget else ""),
               "parameters": parameters, "flops_per_token": shape.flops_per_token(parameters),
               "budget_bytes": budget, "step_target": STEP_TARGETS.get(level),
               "speed_target": shape.speed_target if level in PEER else None}
        peak = None
        for (side, setting), measured in runs.items():
            if side == "ours" and measured[-1]["mfu"]:  # What train_gpt takes for the card's peak.
                tokens_per_second = shape.B * shape.T / measured[-1]["last_step_ms"] * 1e3
                peak = row["flops_per_token"] * tokens_per_second / measured[-1]["mfu"]
        for side, setting in (("ours", level), ("torch", PEER.get(level))):
            measured = runs.get((side, setting))
            if not measured:
                row[side] = {"error": why[side, setting]} if (side, setting) in why else None
                continue
            median_ms = statistics.median(run["median_ms"] for run in measured)
            tokens_per_second = shape.B * shape.T / median_ms * 1e3
            row[side] = {"median_ms": median_ms, "tokens_per_second": tokens_per_second,
                         "mfu": row["flops_per_token"] * tokens_per_second / peak if peak else None,
                         "peak_bytes": measured[0].get("peak_bytes"), "runs": measured}
        for run in runs.get(("ours", level), [])[:1]:
            self.profiles.append(f"{shape.name}, --recompute={level}\n\n{run['profile']}")
        return row

    def judge(self, shape):
        why = list(self.of(shape))[1]
        rows = {row["level"]: row for row in self.rows if row["shape"] == shape.name}

        def figure(level, side, key):
            return (rows[level][side] or {}).get(key)

        def reason(level, side):
            return (rows[level][side] or {}).get("error") or "not measured"

        def failed(level):
            return ("ours", level) in why and why["ours", level] != NO_TIME

        for level, row in rows.items():
            ours, theirs = figure(level, "ours", "tokens_per_second"), figure(level, "torch", "tokens_per_second")
            row["speed_ratio"] = ours / theirs if ours and theirs else None
            ours, base = figure(level, "ours", "median_ms"), figure("none", "ours", "median_ms")
            row["step_ratio"] = ours / base if ours and base else None
        if shape.speed_target:
            for level in PEER:
                self.check("speed", f"{shape.name}, level {LEVELS[level]}: times PyTorch", rows[level]["speed_ratio"],
                           shape.speed_target, failed=failed(level),
                           why=reason(level, "torch" if figure(level, "ours", "median_ms") else "ours"))
        if shape.mfu_target:
            self.check("mfu", f"{shape.name}, level 0 none: MFU", figure("none", "ours", "mfu"), shape.mfu_target,
                       text="{:.1%}", failed=failed("none"),
                       why=reason("none", "ours") if not figure("none", "ours", "median_ms") else "unknown peak")
        for level, target in STEP_TARGETS.items():
            self.check("levels", f"{shape.name}, level {LEVELS[level]}: step time over level 0's",
                       rows[level]["step_ratio"], target, at_most=True, failed=failed(level) or failed("none"),
                       why=reason(level if failed(level) or ("ours", level) in why else "none", "ours"))

    def attention(self, shapes):
        """PyTorch's times now, {title: ms}; compared when ours are known."""
        try:
            return self.torch.attention(shapes, max(1, min(90, self.deadline.left())))
        except Failed as failure:
            say(f"attention: {failure}")
            return {"error": str(failure)}

    def compare_attention(self, shapes, theirs):
        compared = []
        for shape in shapes:
            row = next((row for row in self.rows if row["shape"] == shape.name and row["level"] == "none"), None)
            runs = (row["ours"] or {}).get("runs") if row else None
            ours_ms = attention_ms(runs[0]["profile"]) if runs else None
            torch_ms = theirs.get(shape.name)
            ratio = torch_ms / ours_ms if torch_ms and ours_ms else None
            compared.append({"shape": shape.name, "heads": shape.NH, "kv_heads": shape.NKV, "head_size": shape.HD,
                             "backend": self.torch.backends.get(shape.name),
                             "ours_ms": ours_ms, "torch_ms": torch_ms, "ratio": ratio, "target": ATTENTION_TARGET})
            self.check("attention", f"{shape.name}: attention, times the speed of PyTorch's", ratio, ATTENTION_TARGET,
                       why="ours was not measured" if not ours_ms else theirs.get("error", "not measured"))
        return compared


# ---------------------------------------------------------------------------------------------------------------------
# Telling

def conclude(bench, about, compared, folder):
    result = {"about": about, "rows": bench.rows, "attention": compared, "checks": bench.checks}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu_vs_torch.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "gpu_vs_torch.md").write_text(report(result))
    (folder / "gpu_vs_torch.tsv").write_text("".join(
        "\t".join(check[key] for key in ("step", "name", "verdict", "figure")) + "\n" for check in bench.checks))
    (folder / "profiles.txt").write_text("\n".join(bench.profiles))
    return result


def shapes_for(models, smoke):
    shapes = [SHAPES[name] for name in models]
    return [dataclasses.replace(shape, **SMOKE[shape.family]) for shape in shapes] if smoke else shapes


def resized(shape, B, T):
    return dataclasses.replace(shape, B=B, T=T)


def with_batch(ours, shape, card_bytes):
    """The shape with the largest batch that leaves enough room."""
    for B in shape.batches:
        chosen = dataclasses.replace(shape, B=B)
        if not card_bytes or ours.plan(chosen, "none")[1]["total_bytes"] <= 0.65 * card_bytes:
            break
    return chosen


def parse_arguments():
    def names(text):
        chosen = text.split(",")
        if not set(chosen) <= set(SHAPES):
            raise argparse.ArgumentTypeError(f"{text}: choose from {','.join(SHAPES)}")
        return chosen

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=names, help=f"default: {','.join(SHAPES)}; quick: the first")
    parser.add_argument("--quick", action="store_true", help="the first model only")
    parser.add_argument("--seconds", type=float, default=900, help="time for all of it; default: %(default)s")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: with --smoke only")
    parser.add_argument("--smoke", action="store_true", help="tiny models, no targets, to test this script")
    parser.add_argument("--python", default=sys.executable, help="one with torch; default: %(default)s")
    parser.add_argument("--output-dir", type=pathlib.Path, default=HERE / "results", help="default: %(default)s")
    args = parser.parse_args()
    if args.device == "cpu" and not args.smoke:
        parser.error("--device=cpu: is for --smoke; cpu_vs_torch.py compares on a CPU")
    args.models = args.models or list(SHAPES)[:1 if args.quick else None]
    return args


def main():
    args = parse_arguments()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # nvidia-smi's
    binary = os.path.abspath(os.environ.get("TRAIN_GPT", ROOT / "train_gpt"))
    if not os.access(binary, os.X_OK):
        sys.exit(f"gpu_vs_torch: no {binary}; run make first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every clean-up
    deadline = Deadline(args.seconds)
    rule = SMOKE_RULE if args.smoke else RULE
    torch = Torch(args.python, args.device, rule)
    version = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    about = {"date": datetime.date.today().isoformat(), "version": version,
             "torch": torch.why_not or f"PyTorch {torch.version}", "card": card("name") or args.device,
             "driver": card("driver_version"), "smoke": args.smoke}
    with tempfile.TemporaryDirectory(prefix="gpu_vs_torch.") as folder:
        ours = Ours(binary, args.device, rule, args.smoke, folder)
        bench = Bench(ours, torch, deadline, args.smoke)
        memory = card("memory.total")  # MiB
        card_bytes = int(memory) << 20 if memory.isdigit() else 0
        shapes = shapes_for(args.models, args.smoke)
        try:
            shapes = [with_batch(ours, shape, card_bytes) for shape in shapes]
            theirs = bench.attention(shapes)
            for shape in shapes:
                bench.measure(shape)
                conclude(bench, about, [], args.output_dir)
        except Failed as failure:
            sys.exit(f"gpu_vs_torch: {failure}")
    compared = bench.compare_attention(shapes, theirs)
    print(report(conclude(bench, about, compared, args.output_dir)))
    return 1 if any(check["verdict"] == "miss" for check in bench.checks) else 0


if __name__ == "__main__":
    sys.exit(main())
