#!/usr/bin/env python3
"""Training speed and memory of train_gpt against PyTorch on the CPU, alternating, in one run. PyTorch at its best.

    dev/bench/cpu_vs_torch.py                                # all of it, about an hour
    dev/bench/cpu_vs_torch.py --quick                        # a rough look at the two faster shapes, some minutes
    dev/bench/cpu_vs_torch.py --shapes=mini --dtypes=fp32 --repeats=3

Needs ./train_gpt (or $TRAIN_GPT) and Debian's python3-torch (scripts/install_deps.sh --bench). Use a machine that does
nothing else. Exits with 1 if a target is missed.

  Settings   PyTorch's environment (BLAS library, its kernels, vector extension, allocator, OpenMP waiting), attention
             and AdamW variant are chosen first, for every shape and type, by timing a two-layer model.
  Speed      every measurement is a process of its own: tokens per step over the median step time after a warm-up; then
             the median over the repeats. Steps are whole: forward, backward, clipping by norm, AdamW.
  Memory     peak resident set of the process at the end of the last step. A faster but greedier allocator is not held
             against PyTorch: its memory is then measured again with the usual one.
  Roofline   6 (P - wpe) + 6 L C T FLOPs per token over the GEMM ceiling: the fastest sustained large product that
             PyTorch's BLAS or oneDNN reaches in this very run, before or after everything else.

Ours runs without validation, samples and checkpoints. Both pad the vocabulary to a multiple of 64, clip to norm 1 and
read random tokens. With checkpointing means torch.utils.checkpoint around every block, and our --recompute=1.
Writes cpu_vs_torch.json and .md to dev/bench/results (--quick: nowhere, unless --output-dir is given).
"""

import argparse
import array
import datetime
import glob
import json
import os
import pathlib
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from measure import enough, peak_bytes

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

    @property
    def Vp(self):
        return -(-self.V // 64) * 64


SHAPES = {
    "mini": Shape("gpt2-mini B=12 T=256", "gpt2-mini", B=12, T=256, L=6, NH=6, C=384, V=257, max_T=256),
    "gpt2-256": Shape("GPT-2 124M B=4 T=256", "gpt2", B=4, T=256, L=12, NH=12, C=768, V=50257, max_T=1024),
    "gpt2-1024": Shape("GPT-2 124M B=4 T=1024", "gpt2", B=4, T=1024, L=12, NH=12, C=768, V=50257, max_T=1024),
}

# When a measurement is long enough (see measure.py).
FULL = {"warmup": 2, "min_steps": 5, "min_seconds": 8, "max_seconds": 60}
QUICK = {"warmup": 1, "min_steps": 3, "min_seconds": 0, "max_seconds": 60}
TUNING = {"warmup": 1, "min_steps": 3, "min_seconds": 1.5, "max_seconds": 20}
MEMORY = {"warmup": 0, "min_steps": 2, "min_seconds": 0, "max_seconds": 0}

# The targets: how often PyTorch's speed, share of its memory, share of the fp32 roofline.
MEMORY_TARGET = 0.60
ROOFLINE_TARGET = 0.85


def speed_target(shape, dtype, checkpointing):
    fp32 = 1.5 if checkpointing else 1.3
    bf16 = 1.8 if shape.model == "gpt2" else 1.5 if checkpointing else 1.2
    return fp32 if dtype == "fp32" else bf16


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch

def cpu_flags():
    with open("/proc/cpuinfo") as cpuinfo:
        return next((line.split() for line in cpuinfo if line.startswith("flags")), [])


def environments():
    """Axes of PyTorch's environment: {axis: {choice: variables}}; the first choice of each is the default."""
    system = [os.path.realpath(library) for library in glob.glob("/usr/lib/*/libblas.so.3")]
    blas = {f"system ({os.path.basename(os.path.dirname(system[0]))})" if system else "system": {}}
    for library in sorted(glob.glob("/usr/lib/*/*/libblas.so.3")):
        name = os.path.basename(os.path.dirname(library))
        if name != "blas" and os.path.realpath(library) not in system:  # "blas" is the slow reference implementation
            blas[name] = {"LD_LIBRARY_PATH": os.path.dirname(library)}
    # An OpenBLAS older than the processor falls back to kernels for an older one, and ATen to AVX2.
    kernels, vectors = {"auto": {}}, {"auto": {}}
    if "avx512f" in cpu_flags():
        kernels["SkylakeX"] = {"OPENBLAS_CORETYPE": "SkylakeX"}
        vectors["avx512"] = {"ATEN_CPU_CAPABILITY": "avx512"}
    if "avx512_bf16" in cpu_flags():
        kernels["Cooperlake"] = {"OPENBLAS_CORETYPE": "Cooperlake"}
    keep = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}
    huge = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    return {
        "blas": blas,
        "kernels": kernels,
        "vectors": vectors,
        "allocator": {"auto": {}, "keep": keep, "huge pages": huge, "keep, huge pages": {**keep, **huge}},
        "waiting": {"auto": {}, "passive": {"OMP_WAIT_POLICY": "passive"}},
    }


VARIANTS = {"attention": ["plain", "baddbmm", "builtin"], "foreach": [False, True]}


class Torch:
    """Runs torch_gpt2.py. A choice is {axis: name} over the environments and VARIANTS."""

    def __init__(self, python, threads):
        self.python = python
        self.threads = threads
        self.axes = environments()
        self.default = {**{axis: next(iter(names)) for axis, names in self.axes.items()},
                        **{axis: names[0] for axis, names in VARIANTS.items()}}

    def run(self, settings, choice):
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_", "ATEN_"))}
        env["OMP_NUM_THREADS"] = str(self.threads)
        for axis, names in self.axes.items():
            env.update(names[choice[axis]])
        command = [self.python, str(HERE / "torch_gpt2.py"), json.dumps(settings)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def train(self, shape, dtype, checkpointing, choice, rule, **changes):
        settings = {"task": "train", "B": shape.B, "T": shape.T, "L": shape.L, "NH": shape.NH, "C": shape.C,
                    "V": shape.V, "Vp": shape.Vp, "dtype": dtype, "checkpointing": checkpointing,
                    "attention": choice["attention"], "foreach": choice["foreach"], **rule, **changes}
        result = self.run(settings, choice)
        result["step_ms"] = statistics.median(result["step_ms"][rule["warmup"]:])
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
                ms = self.train(shape, dtype, False, choice, TUNING, L=2, V=257, Vp=320)["step_ms"]
                times[f"{axis}={name}"] = round(ms, 1)
                if best_ms is None or ms < 0.98 * best_ms:  # a difference worth leaving the default for
                    best, best_ms = choice, ms
        say(f"    PyTorch is fastest with {describe(best)}; ms: {times}")
        return best, times


def describe(choice):
    return ", ".join(f"{axis} {name}" for axis, name in choice.items())


def raise_ceilings(ceilings, torch, dtypes):
    """Puts the fastest sustained product over all BLAS libraries and kernels in, {dtype: {gflops, how}}, if faster."""
    for dtype in dtypes:
        fastest = {"gflops": 0}
        for blas in torch.axes["blas"]:
            for kernels in torch.axes["kernels"]:
                choice = {**torch.default, "blas": blas, "kernels": kernels}
                rates = torch.run({"task": "gemm", "dtype": dtype, "seconds": 0.7}, choice)
                product, rate = max(rates.items(), key=lambda item: item[1])
                if rate > fastest["gflops"]:
                    fastest = {"gflops": rate, "how": f"{product}, BLAS {blas}, kernels {kernels}"}
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
        self.data = {"gpt2-mini": self.folder / "text.txt", "gpt2": self.folder / "tokens.bin"}
        numbers = random.Random(1)
        self.data["gpt2-mini"].write_text("".join(numbers.choices("abcdefghijklmnopqrstuvwxyz \n", k=1 << 20)))
        with open(self.data["gpt2"], "wb") as file:  # a token file of llm.c
            array.array("i", [20240520, 1, 1 << 20] + [0] * 253).tofile(file)
            array.array("H", numbers.choices(range(50257), k=1 << 20)).tofile(file)

    def options(self, shape, dtype, level):
        return [f"--model={shape.model}", f"--data={self.data[shape.model]}", f"--batch-size={shape.B}",
                f"--seq-len={shape.T}", f"--dtype={dtype}", f"--recompute={level}", f"--threads={self.threads}"]

    def plan(self, shape, dtype, level):
        command = [self.binary, "plan", "--json", *self.options(shape, dtype, level)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    def train(self, shape, dtype, level, rule):
        """Trains until the rule is content, then ends the process: no checkpoint, no samples."""
        with tempfile.TemporaryDirectory(dir=self.folder) as run:
            command = [self.binary, *self.options(shape, dtype, level), "--steps=1000", "--val-every=0",
                       "--sample-length=0", f"--output-dir={run}/run", "--log-level=warn"]
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
            row[side] = {"tokens_per_second": statistics.median(speed(shape, run) for run in runs[side, level]),
                         "peak_bytes": statistics.median(run["peak_bytes"] for run in runs[side, level]),
                         "runs": runs[side, level]}
        if choice["allocator"] != "auto":
            usual = torch.train(shape, dtype, level == 1, {**choice, "allocator": "auto"}, MEMORY)["peak_bytes"]
            row["torch"]["peak_bytes"] = min(row["torch"]["peak_bytes"], usual)
        rows.append(row)
    return rows


def judge(row, ceiling):
    """Adds ratios and verdicts to a row. The FLOPs of repeated forwards do not count as work done."""
    row["speed_ratio"] = row["ours"]["tokens_per_second"] / row["torch"]["tokens_per_second"]
    row["memory_ratio"] = row["ours"]["peak_bytes"] / row["torch"]["peak_bytes"]
    row["roofline_tokens_per_second"] = ceiling * 1e9 / row["flops_per_token"]
    row["roofline_share"] = row["ours"]["tokens_per_second"] / row["roofline_tokens_per_second"]
    row["speed_target"] = speed_target(SHAPES[row["shape"]], row["dtype"], row["checkpointing"])
    row["speed_pass"] = row["speed_ratio"] >= row["speed_target"]
    row["memory_pass"] = row["memory_ratio"] <= MEMORY_TARGET
    has_roofline_target = row["dtype"] == "fp32" and not row["checkpointing"]
    row["roofline_pass"] = row["roofline_share"] >= ROOFLINE_TARGET if has_roofline_target else None


def table(rows):
    lines = ["| shape | type | checkpointing | ours tok/s | PyTorch tok/s | ratio (target) | ours MiB | PyTorch MiB "
             f"| memory (target {MEMORY_TARGET:.0%}) | of the roofline (target {ROOFLINE_TARGET:.0%}, fp32) |",
             "|---|---|---|---:|---:|---|---:|---:|---|---|"]

    def verdict(passed):
        return {True: " pass", False: " **MISS**", None: ""}[passed]

    for r in rows:
        ours, torch = r["ours"], r["torch"]
        lines.append(
            f"| {r['title']} | {r['dtype']} | {'yes' if r['checkpointing'] else 'no'} "
            f"| {ours['tokens_per_second']:.0f} | {torch['tokens_per_second']:.0f} "
            f"| {r['speed_ratio']:.2f} ({r['speed_target']}){verdict(r['speed_pass'])} "
            f"| {ours['peak_bytes'] / MIB:.0f} | {torch['peak_bytes'] / MIB:.0f} "
            f"| {r['memory_ratio']:.0%}{verdict(r['memory_pass'])} "
            f"| {r['roofline_share']:.0%} of {r['roofline_tokens_per_second']:.0f}{verdict(r['roofline_pass'])} |")
    return "\n".join(lines)


def report(result):
    about, ceilings = result["about"], result["gemm_ceilings"]
    settings = sorted({f"- {r['title']}, {r['dtype']}: {describe(r['torch_choice'])}" for r in result["rows"]})
    return "\n".join([
        "# train_gpt and PyTorch on the CPU",
        "",
        f"{about['date']}, {about['version']}, PyTorch {about['torch']}, {about['cpu']}, "
        f"{about['threads']} threads, {about['system']}. Median of {about['repeats']} alternating runs. Made by "
        f"`dev/bench/cpu_vs_torch.py{' --quick' if about['quick'] else ''}`, which says how things are measured.",
        "",
        table(result["rows"]),
        "",
        "GEMM ceiling: " + "; ".join(f"{dtype} {c['gflops']:.0f} GFLOP/s ({c['how']})" for dtype, c in ceilings.items())
        + ".",
        "",
        "PyTorch's settings, the fastest found:",
        "",
        *settings,
        ""])


def about_this_run(args, binary, torch):
    def output(command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
        return done.stdout.strip()

    def cpu_name():
        with open("/proc/cpuinfo") as cpuinfo:
            return next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "CPU")

    debian = output(["dpkg-query", "--showformat=${Version}", "--show", "python3-torch"])
    version = output([torch.python, "-c", "import torch; print(torch.__version__)"])
    return {"date": datetime.date.today().isoformat(),
            "version": output([binary, "--version"]).partition("\n")[0],
            "torch": version + (f" (python3-torch {debian})" if debian else ""),
            "cpu": cpu_name(), "threads": args.threads, "system": platform.platform(),
            "repeats": args.repeats, "quick": args.quick}


def conclude(result, folder):
    """Judges all rows by the ceilings known so far, and writes the files if there is a folder for them."""
    for row in result["rows"]:
        judge(row, result["gemm_ceilings"][row["dtype"]]["gflops"])
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu_vs_torch.json").write_text(json.dumps(result, indent=1) + "\n")
        (folder / "cpu_vs_torch.md").write_text(report(result))


def parse_arguments():
    def names(known):
        def parse(text):
            chosen = text.split(",")
            if not set(chosen) <= set(known):
                raise argparse.ArgumentTypeError(f"{text}: choose from {','.join(known)}")
            return chosen
        return parse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=names(SHAPES), help=f"default: {','.join(SHAPES)}; quick: the first two")
    parser.add_argument("--dtypes", type=names(["fp32", "bf16"]),
                        help="default: fp32,bf16; fp32 where the processor has no AVX512_BF16")
    parser.add_argument("--repeats", type=int, help="alternating runs of each side; default: 2, quick: 1")
    parser.add_argument("--quick", action="store_true", help="fewer shapes, steps and repeats")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all, %(default)s")
    parser.add_argument("--python", default="/usr/bin/python3", help="one with torch; default: %(default)s")
    parser.add_argument("--output-dir", type=pathlib.Path, help="default: dev/bench/results; quick: none")
    args = parser.parse_args()
    args.shapes = args.shapes or list(SHAPES)[:2 if args.quick else 3]
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
    if subprocess.run([args.python, "-c", "import torch"], stderr=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"cpu_vs_torch: {args.python} has no torch; run scripts/install_deps.sh --bench")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every clean-up
    torch = Torch(args.python, args.threads)
    result = {"about": about_this_run(args, binary, torch), "gemm_ceilings": {}, "rows": []}
    raise_ceilings(result["gemm_ceilings"], torch, args.dtypes)
    with tempfile.TemporaryDirectory(prefix="cpu_vs_torch.") as folder:
        ours = Ours(binary, args.threads, folder)
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
