#!/usr/bin/env python3
"""Training speed and memory of train_gpt against PyTorch on the CPU, alternating, in one run. PyTorch at its best.

    dev/bench/cpu_vs_torch.py                                # all of it, about two hours
    dev/bench/cpu_vs_torch.py --quick                        # a rough look at the faster shapes, some minutes
    dev/bench/cpu_vs_torch.py --shapes=mini --dtypes=fp32 --repeats=3
    dev/bench/cpu_vs_torch.py --llmc=../llm.c                # beside it, llm.c's train_gpt2 (make train_gpt2 there)

Needs ./train_gpt (or $TRAIN_GPT). PyTorch is that of dev/bench/requirements.txt, in a virtual environment which is made
at the first run (torch_venv.py); --python names another. Use a machine that does nothing else. Exits with 1 if a target
is missed.

  Settings   PyTorch's environment (threads, MKL's kernels, allocator, OpenMP waiting), attention, AdamW variant and
             torch.compile are chosen first, for every shape and type, by timing a two-layer model.
  Speed      every measurement is a process of its own: tokens per step over the median step time after a warm-up; then
             the median over the repeats. Steps are whole: forward, backward, clipping by norm, AdamW.
  Memory     peak resident set of the process at the end of the last step; PyTorch's without what importing it took. A
             faster but greedier allocator is not held against PyTorch: its memory is then measured again with the usual
             one. Where parameters are most of it (124M, T = 256) the 16 bytes per parameter that both hold (weight,
             gradient, two moments) are taken off both sides.
  Roofline   6 (P - wpe) + 6 L C T FLOPs per token over the GEMM ceiling: the fastest sustained large product that
             PyTorch's MKL or oneDNN reaches in this very run, before or after everything else.

Ours runs without validation, samples and checkpoints. Both pad the vocabulary to a multiple of 64, clip to norm 1 and
read random tokens. With checkpointing means torch.utils.checkpoint around every block, and our --recompute=1.
Writes cpu_vs_torch_PROCESSOR.json and .md to dev/bench/results (--quick: nowhere, unless --output-dir is given).
"""

import argparse
import array
import datetime
import json
import os
import pathlib
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import torch_venv
from measure import enough, peak_bytes
from torch_environment import axes_of, cpu_flags, cpu_name, default_choice, environment_of

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MIB = 2**20


@dataclass(frozen=True)
class Shape:
    title: str
    model: str   # our preset
    B: int
    T: int
    L: int
    NH: int
    C: int
    V: int
    max_T: int   # rows of wpe in our model
    NKV: int = 0
    F: int = 0

    @property
    def family(self):
        return "llama" if self.model.startswith("llama") else "gpt2"

    @property
    def config(self):
        """As torch_models.Config has it."""
        return {"family": self.family, "L": self.L, "C": self.C, "NH": self.NH, "NKV": self.NKV or self.NH,
                "HD": self.C // self.NH, "F": self.F or 4 * self.C, "V": self.V, "max_T": self.max_T}


SHAPES = {
    "nano": Shape("gpt2-nano B=4 T=64", "gpt2-nano", B=4, T=64, L=4, NH=4, C=128, V=257, max_T=64),
    "mini": Shape("gpt2-mini B=12 T=256", "gpt2-mini", B=12, T=256, L=6, NH=6, C=384, V=257, max_T=256),
    "llama-mini": Shape("llama-mini B=12 T=256", "llama-mini", B=12, T=256, L=6, NH=6, NKV=2, C=384, F=1024, V=257,
                        max_T=0),
    "gpt2-256": Shape("GPT-2 124M B=4 T=256", "gpt2", B=4, T=256, L=12, NH=12, C=768, V=50257, max_T=1024),
    "gpt2-1024": Shape("GPT-2 124M B=4 T=1024", "gpt2", B=4, T=1024, L=12, NH=12, C=768, V=50257, max_T=1024),
}

# When a measurement is long enough (see measure.py).
FULL = {"warmup": 2, "min_steps": 5, "min_seconds": 8, "max_seconds": 60}
QUICK = {"warmup": 1, "min_steps": 3, "min_seconds": 0, "max_seconds": 60}
TUNING = {"warmup": 1, "min_steps": 3, "min_seconds": 1.5, "max_seconds": 20}
MEMORY = {"warmup": 0, "min_steps": 2, "min_seconds": 0, "max_seconds": 0}

# The targets: how often PyTorch's speed, share of its memory, share of the fp32 roofline. None: no target.
MEMORY_TARGET = 0.60
SHARED_BYTES = 16  # per parameter, on both sides


def speed_target(shape, dtype, checkpointing):
    if shape.model == "gpt2-nano":
        return None
    if dtype == "bf16":
        return 1.6
    large = shape.model == "gpt2"
    return (1.8 if large else 1.6) if checkpointing else (2.0 if large else 1.4)


def roofline_target(shape, dtype, checkpointing):
    if dtype != "fp32" or checkpointing or shape.model == "gpt2-nano":
        return None
    return 0.85 if shape.model == "gpt2" else 0.80


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch

VARIANTS = {"attention": ["sdpa", "plain"], "optimizer": ["foreach", "fused", "loop"], "compile": [False, True]}


class Torch:
    """Runs torch_cpu.py. A choice is {axis: name} over the environments and VARIANTS."""

    def __init__(self, python, threads):
        self.python = python
        self.threads = threads
        self.axes = axes_of(threads)
        self.default = {**default_choice(self.axes), **{axis: names[0] for axis, names in VARIANTS.items()}}

    def run(self, settings, choice):
        command = [self.python, str(HERE / "torch_cpu.py"), json.dumps(settings)]
        env = environment_of(self.axes, choice, self.threads)
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def train(self, shape, dtype, checkpointing, choice, rule, **changes):
        settings = {"task": "train", "B": shape.B, "T": shape.T, "config": {**shape.config, **changes}, "dtype": dtype,
                    "checkpointing": checkpointing, **{axis: choice[axis] for axis in VARIANTS}, **rule}
        result = self.run(settings, choice)
        result["step_ms"] = statistics.median(result["step_ms"][rule["warmup"]:])
        result["peak_bytes"] -= result["base_bytes"]
        return result

    def choose(self, shape, dtype):
        """The fastest choice for a shape, one axis after the other, by steps of a model of two layers."""
        best, best_ms = dict(self.default), None
        times = {}
        for axis, names in {**{axis: list(names) for axis, names in self.axes.items()}, **VARIANTS}.items():
            for name in names:
                choice = {**best, axis: name}
                if choice == best and best_ms is not None:
                    continue
                ms = self.train(shape, dtype, False, choice, TUNING, L=2, V=257)["step_ms"]
                times[f"{axis}={name}"] = round(ms, 1)
                if best_ms is None or ms < 0.98 * best_ms:  # a difference worth leaving the default for
                    best, best_ms = choice, ms
        say(f"    PyTorch is fastest with {describe(best)}; ms: {times}")
        return best, times


def describe(choice):
    return ", ".join(f"{axis} {name}" for axis, name in choice.items())


def raise_ceilings(ceilings, torch, dtypes):
    """Puts the fastest sustained product over MKL's kernels in, {dtype: {gflops, how}}, if faster."""
    for dtype in dtypes:
        fastest = {"gflops": 0}
        for mkl in torch.axes["mkl"]:
            rates = torch.run({"task": "gemm", "dtype": dtype, "seconds": 0.7}, {**torch.default, "mkl": mkl})
            product, rate = max(rates.items(), key=lambda item: item[1])
            if rate > fastest["gflops"]:
                fastest = {"gflops": rate, "how": f"{product}, MKL {mkl}"}
        say(f"    GEMM ceiling {dtype}: {fastest['gflops']:.0f} GFLOP/s ({fastest['how']})")
        if fastest["gflops"] > ceilings.get(dtype, {"gflops": 0})["gflops"]:
            ceilings[dtype] = fastest


# ---------------------------------------------------------------------------------------------------------------------
# train_gpt

class Ours:
    def __init__(self, binary, threads, folder):
        self.binary = binary
        self.threads = threads
        self.folder = pathlib.Path(folder)
        self.text, self.tokens = self.folder / "text.txt", self.folder / "tokens.bin"
        numbers = random.Random(1)
        self.text.write_text("".join(numbers.choices("abcdefghijklmnopqrstuvwxyz \n", k=1 << 20)))
        with open(self.tokens, "wb") as file:  # a token file of llm.c
            array.array("i", [20240520, 1, 1 << 20] + [0] * 253).tofile(file)
            array.array("H", numbers.choices(range(50257), k=1 << 20)).tofile(file)

    def options(self, shape, dtype, level):
        data = self.tokens if shape.model == "gpt2" else self.text
        return [f"--model={shape.model}", f"--data={data}", f"--batch-size={shape.B}",
                f"--seq-len={shape.T}", f"--dtype={dtype}", f"--recompute={level}", f"--threads={self.threads}"]

    def plan(self, shape, dtype, level):
        command = [self.binary, "plan", "--json", *self.options(shape, dtype, level)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    def train(self, shape, dtype, level, rule):
        """Trains until the rule is content, then ends the process: no checkpoint, no samples."""
        with tempfile.TemporaryDirectory(dir=self.folder) as run:
            command = [self.binary, *self.options(shape, dtype, level), "--steps=100000",
                       "--val-every=0", "--sample-length=0", f"--output-dir={run}/run", "--log-level=warn"]
            process = subprocess.Popen(command)
            try:
                steps = []
                while not enough([step["step_ms"] for step in steps], rule):
                    if process.poll() is not None:
                        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
                    time.sleep(0.05)
                    steps = read_metrics(f"{run}/run/metrics.jsonl")
                peak = peak_bytes(process.pid)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        return {"step_ms": statistics.median(step["step_ms"] for step in steps[rule["warmup"]:]), "peak_bytes": peak,
                "loss": steps[-1]["loss"]}


class LlmC:
    """llm.c's CPU trainer, at the one shape it has: GPT-2 124M, 4 x 64 tokens, fp32."""

    SHAPE = Shape("GPT-2 124M B=4 T=64", "gpt2", B=4, T=64, L=12, NH=12, C=768, V=50257, max_T=1024)
    STEPS = 12

    def __init__(self, folder, ours):
        self.program = (folder / "train_gpt2").resolve()
        if not os.access(self.program, os.X_OK):
            sys.exit(f"cpu_vs_torch: no {self.program}; run make train_gpt2 in {folder}")
        self.work = ours.folder / "llm.c"
        data = self.work / "dev/data/tinyshakespeare"
        data.mkdir(parents=True)
        for part in ("train", "val"):
            os.symlink(ours.tokens, data / f"tiny_shakespeare_{part}.bin")
        run = self.work / "run"
        subprocess.run([ours.binary, "--model=gpt2", f"--data={ours.tokens}", "--batch-size=1", "--seq-len=64",
                        "--steps=1", "--val-every=0", "--sample-length=0", f"--output-dir={run}", "--log-level=warn"],
                       check=True)
        subprocess.run([ours.binary, "export", f"--run={run}", "--format=llmc", f"--out={self.work}/gpt2_124M.bin",
                        "--log-level=warn"], check=True)

    def train(self, threads):
        """Median step in ms."""
        command = ["stdbuf", "-oL", str(self.program)]
        with subprocess.Popen(command, cwd=self.work, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                              stdout=subprocess.PIPE, text=True) as process:
            steps = []
            for line in process.stdout:
                took = re.search(r"took ([0-9.]+) ms", line)
                steps += [float(took.group(1))] if took else []
                if len(steps) > self.STEPS:
                    break
            process.send_signal(signal.SIGKILL)
        return {"step_ms": statistics.median(steps[1:])}


def compare_llmc(ours, llmc, repeats, rule):
    """Tokens per second of both, the median of alternating runs."""
    runs = {"ours": [], "llm.c": []}
    for _ in range(repeats):
        runs["ours"].append(speed(LlmC.SHAPE, ours.train(LlmC.SHAPE, "fp32", 0, rule)))
        runs["llm.c"].append(speed(LlmC.SHAPE, llmc.train(ours.threads)))
        say(f"    llm.c, {LlmC.SHAPE.title}: ours {runs['ours'][-1]:.0f}, llm.c {runs['llm.c'][-1]:.0f} tokens/s")
    return {side: statistics.median(speeds) for side, speeds in runs.items()}


def read_metrics(path):
    """The whole lines of a metrics file that is being written."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


# ---------------------------------------------------------------------------------------------------------------------
# Comparing

def speed(shape, run):
    """Tokens per second."""
    return shape.B * shape.T / run["step_ms"] * 1e3


def compare(ours, torch, name, dtype, repeats, rule):
    """The two rows of a shape and type: without and with checkpointing."""
    shape = SHAPES[name]
    say(f"{shape.title}, {dtype}")
    choice, tuning = torch.choose(shape, dtype)
    sides = {"ours": lambda level: ours.train(shape, dtype, level, rule),
             "torch": lambda level: torch.train(shape, dtype, level == 1, choice, rule)}
    runs = {(side, level): [] for level in (0, 1) for side in sides}
    for repeat in range(repeats):
        for level in (0, 1):
            for side in list(sides)[::1 if repeat % 2 == 0 else -1]:
                run = sides[side](level)
                runs[side, level].append(run)
                say(f"    {side:5} {'checkpointed' if level else 'plain':12} {speed(shape, run):8.0f} tokens/s "
                    f"{run['peak_bytes'] / MIB:7.0f} MiB")
    rows = []
    for level in (0, 1):
        plan = ours.plan(shape, dtype, level)
        row = {"shape": name, "title": shape.title, "dtype": dtype, "checkpointing": level == 1,
               "torch_choice": choice, "torch_tuning_ms": tuning,
               "parameters": plan["parameters"], "predicted_bytes": plan["plans"][0]["total_bytes"],
               "flops_per_token": 6 * (plan["parameters"] - shape.max_T * shape.C) + 6 * shape.L * shape.C * shape.T}
        for side in sides:
            speeds = sorted(speed(shape, run) for run in runs[side, level])
            row[side] = {"tokens_per_second": statistics.median(speeds), "slowest": speeds[0], "fastest": speeds[-1],
                         "peak_bytes": statistics.median(run["peak_bytes"] for run in runs[side, level]),
                         "runs": runs[side, level]}
        if choice["allocator"] != "auto":
            usual = torch.train(shape, dtype, level == 1, {**choice, "allocator": "auto"}, MEMORY)["peak_bytes"]
            row["torch"]["peak_bytes"] = min(row["torch"]["peak_bytes"], usual)
        rows.append(row)
    return rows


def judge(row, ceiling):
    """Adds ratios and verdicts to a row. The FLOPs of repeated forwards do not count as work done."""
    shape, dtype, checkpointing = SHAPES[row["shape"]], row["dtype"], row["checkpointing"]
    row["speed_ratio"] = row["ours"]["tokens_per_second"] / row["torch"]["tokens_per_second"]
    both = SHARED_BYTES * row["parameters"] if row["shape"] == "gpt2-256" else 0
    row["memory_ratio"] = (row["ours"]["peak_bytes"] - both) / (row["torch"]["peak_bytes"] - both)
    row["roofline_tokens_per_second"] = ceiling * 1e9 / row["flops_per_token"]
    row["roofline_share"] = row["ours"]["tokens_per_second"] / row["roofline_tokens_per_second"]
    row["speed_target"] = speed_target(shape, dtype, checkpointing)
    row["speed_pass"] = row["speed_target"] and row["speed_ratio"] >= row["speed_target"]
    row["memory_pass"] = row["memory_ratio"] <= MEMORY_TARGET if shape.model != "gpt2-nano" else None
    row["roofline_target"] = roofline_target(shape, dtype, checkpointing)
    row["roofline_pass"] = row["roofline_target"] and row["roofline_share"] >= row["roofline_target"]


def table(rows):
    lines = ["| shape | type | checkpointing | ours tok/s | PyTorch tok/s | ratio (target) | ours MiB | PyTorch MiB "
             f"| memory (target {MEMORY_TARGET:.0%}) | of the roofline (target) |",
             "|---|---|---|---:|---:|---|---:|---:|---|---|"]

    def verdict(passed):
        return {True: " pass", False: " **MISS**", None: ""}[passed]

    def rate(side):
        return f"{side['tokens_per_second']:.0f} ({side['slowest']:.0f}–{side['fastest']:.0f})"

    for r in rows:
        ours, torch = r["ours"], r["torch"]
        speed_aim = f" ({r['speed_target']})" if r["speed_target"] else ""
        roof_aim = f" ({r['roofline_target']:.0%})" if r["roofline_target"] else ""
        lines.append(
            f"| {r['title']} | {r['dtype']} | {'yes' if r['checkpointing'] else 'no'} "
            f"| {rate(ours)} | {rate(torch)} "
            f"| {r['speed_ratio']:.2f}{speed_aim}{verdict(r['speed_pass'])} "
            f"| {ours['peak_bytes'] / MIB:.0f} | {torch['peak_bytes'] / MIB:.0f} "
            f"| {r['memory_ratio']:.0%}{verdict(r['memory_pass'])} "
            f"| {r['roofline_share']:.0%} of {r['roofline_tokens_per_second']:.0f}{roof_aim}"
            f"{verdict(r['roofline_pass'])} |")
    return "\n".join(lines)


def report(result):
    about, ceilings = result["about"], result["gemm_ceilings"]
    settings = sorted({f"- {r['title']}, {r['dtype']}: {describe(r['torch_choice'])}" for r in result["rows"]})
    return "\n".join([
        "# train_gpt and PyTorch on the CPU",
        "",
        f"{about['date']}, {about['version']}, PyTorch {about['torch']}, {about['cpu']}, "
        f"{about['threads']} threads, {about['system']}. Median of {about['repeats']} alternating runs. Made by "
        f"`dev/bench/cpu_vs_torch.py{' --quick' if about['quick'] else ''}`, which says how things are measured; in "
        "brackets the slowest and the fastest run."
        + (f" Load of the machine at the beginning: {about['load']:.1f}." if about["load"] > 0.5 else ""),
        "",
        table(result["rows"]),
        "",
        "GEMM ceiling: " + "; ".join(f"{dtype} {c['gflops']:.0f} GFLOP/s ({c['how']})" for dtype, c in ceilings.items())
        + ".",
        "",
        *([f"llm.c's train_gpt2, {LlmC.SHAPE.title}, fp32: {result['llm.c']['llm.c']:.0f} tokens/s; ours "
           f"{result['llm.c']['ours']:.0f}, "
           f"{result['llm.c']['ours'] / result['llm.c']['llm.c']:.1f} times as fast.", ""]
          if "llm.c" in result else []),
        "PyTorch's settings, the fastest found:",
        "",
        *settings,
        ""])


def about_this_run(args, binary, torch):
    def output(command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
        return done.stdout.strip()

    version = output([torch.python, "-c", "import torch; print(torch.__version__)"])
    return {"date": datetime.date.today().isoformat(),
            "version": output([binary, "--version"]).partition("\n")[0],
            "torch": version,
            "cpu": cpu_name(), "threads": args.threads, "system": platform.platform(),
            "repeats": args.repeats, "quick": args.quick, "load": os.getloadavg()[0]}


def conclude(result, folder):
    """Judges all rows by the ceilings known so far, and writes the files if there is a folder for them."""
    for row in result["rows"]:
        judge(row, result["gemm_ceilings"][row["dtype"]]["gflops"])
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        name = "cpu_vs_torch_" + re.sub(r"[^a-z0-9]+", "_", result["about"]["cpu"].lower()).strip("_")
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        (folder / f"{name}.md").write_text(report(result))


def parse_arguments():
    def names(known):
        def parse(text):
            chosen = text.split(",")
            if not set(chosen) <= set(known):
                raise argparse.ArgumentTypeError(f"{text}: choose from {','.join(known)}")
            return chosen
        return parse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=names(SHAPES), help=f"default: {','.join(SHAPES)}; quick: the first three")
    parser.add_argument("--dtypes", type=names(["fp32", "bf16"]),
                        help="default: fp32,bf16; fp32 where the processor has no AVX512_BF16")
    parser.add_argument("--repeats", type=int, help="alternating runs of each side; default: 2, quick: 1")
    parser.add_argument("--quick", action="store_true", help="fewer shapes, steps and repeats")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all, %(default)s")
    parser.add_argument("--python", help="one with torch; default: dev/bench/requirements.txt, installed for it")
    parser.add_argument("--llmc", type=pathlib.Path, help="llm.c's folder, with train_gpt2 made: its speed, too")
    parser.add_argument("--output-dir", type=pathlib.Path, help="default: dev/bench/results; quick: none")
    args = parser.parse_args()
    args.shapes = args.shapes or list(SHAPES)[:3 if args.quick else 5]
    args.dtypes = args.dtypes or (["fp32", "bf16"] if "avx512_bf16" in cpu_flags() else ["fp32"])
    args.repeats = args.repeats or (1 if args.quick else 2)
    args.output_dir = args.output_dir or (None if args.quick else HERE / "results")
    return args


def main():
    args = parse_arguments()
    rule = QUICK if args.quick else FULL
    binary = os.path.abspath(os.environ.get("TRAIN_GPT", ROOT / "train_gpt"))
    if not os.access(binary, os.X_OK):
        sys.exit(f"cpu_vs_torch: no {binary}; run make first")
    args.python = args.python or torch_venv.python()
    if subprocess.run([args.python, "-c", "import torch"], stderr=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"cpu_vs_torch: {args.python} has no torch; leave --python out, and one is installed")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every clean-up
    torch = Torch(args.python, args.threads)
    result = {"about": about_this_run(args, binary, torch), "gemm_ceilings": {}, "rows": []}
    raise_ceilings(result["gemm_ceilings"], torch, args.dtypes)
    with tempfile.TemporaryDirectory(prefix="cpu_vs_torch.") as folder:
        ours = Ours(binary, args.threads, folder)
        if args.llmc:
            result["llm.c"] = compare_llmc(ours, LlmC(args.llmc, ours), args.repeats, rule)
        for name in args.shapes:
            for dtype in args.dtypes:
                result["rows"] += compare(ours, torch, name, dtype, args.repeats, rule)
                conclude(result, args.output_dir)
    raise_ceilings(result["gemm_ceilings"], torch, args.dtypes)
    conclude(result, args.output_dir)
    print(report(result))
    missed = any(row[key] is False for row in result["rows"] for key in ("speed_pass", "memory_pass", "roofline_pass"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
