#!/usr/bin/env python3
"""LoRA on the CPU: train_gpt against PEFT and PyTorch, alternating, in one run.

    dev/bench/lora_vs_peft.py
    dev/bench/lora_vs_peft.py --repeats=1 --shapes=256 --sides=ours,eager

Needs ./train_gpt (or $TRAIN_GPT). PyTorch, transformers and PEFT are those of dev/bench/requirements.txt, in a virtual
environment which is made at the first run (torch_venv.py); --python names another.
GPT-2 124M with random weights from our own export, rank 16 on every linear layer, alpha 32, fp32 on both sides,
random tokens, AdamW without weight decay, clipping to norm 1. Sides: ours at --recompute=act, which repeats norms and
activation functions and no product; eager and compile (torch.compile of the whole model) as they come from PyPI;
tuned-eager and tuned-compile, for which PyTorch's environment (threads, MKL's kernels, allocator, OpenMP waiting) is
chosen first, by timing eager steps of the first shape. What fails or takes longer than --limit seconds is left out,
with the reason.

Every measurement is a process of its own, the sides take turns, and the medians are over the repeats. Speed is tokens
per step over the median step of a process after two; with --processor-time, for a machine that is busy, over the
processor's seconds of a step after the first: PEFT's median, and what a run of ours of --steps steps takes more than
one of a single step. That says something with --threads=1.
Memory is the peak resident set of the process, loading the model included; a part of it is the library's own code.
Exits with 1 if a target is missed: 1.4 x the faster of PEFT's speeds as installed, half of the smallest of its
memories. The ratio to the fastest of all is beside it: the frozen model's products are most of a step on either side,
and nobody runs them faster than the processor can (train_gpt --profile says what share of that ours reach).
Writes lora_vs_peft.json and .md to --output-dir.
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
import statistics
import subprocess
import sys
import tempfile
import time

import processes
import torch_venv
from torch_environment import axes_of, cpu_name, default_choice, environment_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPES = {"256": (4, 256), "1024": (1, 1024)}  # B, T
SIDES = ("ours", "eager", "compile", "tuned-eager", "tuned-compile")
AS_INSTALLED = ("eager", "compile")
TITLES = {"ours": "train_gpt", "eager": "PEFT", "compile": "PEFT, torch.compile", "tuned-eager": "PEFT, tuned",
          "tuned-compile": "PEFT, torch.compile, tuned"}
V, RANK, WARMUP = 50257, 16, 2
SPEED_TARGET, MEMORY_TARGET = 1.4, 0.5


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, limit, environment=None):
    """Of a program that succeeds: what it said on both outputs, and its use of the machine (getrusage)."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with processes.group(command, stdout=out, stderr=err, env=environment) as process:
            end = time.monotonic() + limit
            pid = 0
            while pid == 0 and time.monotonic() < end:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                time.sleep(0.05)
            if pid == 0:
                raise subprocess.TimeoutExpired(command, limit)
            process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    if process.returncode != 0:
        raise RuntimeError((texts[1].strip().splitlines() or ["no message"])[-1][:200])
    return *texts, usage


# ---------------------------------------------------------------------------------------------------------------------
# PEFT: this file is run again, by the Python that has it

def train_with_peft(settings):
    import peft
    import torch
    import transformers

    torch.manual_seed(1)
    torch.set_num_threads(settings["threads"])
    base = transformers.AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=torch.float32)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["c_attn", "c_fc", "c_proj"],
                             fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config).train()
    for module in model.modules():  # GPT-2's own dropout; ours has none
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=2e-4, betas=(0.9, 0.95), weight_decay=0.0)
    forward = torch.compile(model) if settings["compile"] else model
    step_ms, processor_ms = [], []
    for _ in range(settings["steps"]):
        tokens = torch.randint(0, V, (settings["B"], settings["T"]))
        start, processor_start = time.perf_counter(), time.process_time()
        optimiser.zero_grad(set_to_none=True)
        loss = forward(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        loss.item()
        step_ms.append(1e3 * (time.perf_counter() - start))
        processor_ms.append(1e3 * (time.process_time() - processor_start))
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    print(json.dumps({"step_ms": step_ms, "processor_ms": processor_ms, "peak_bytes": own_peak_bytes(),
                      "versions": versions, "trained": sum(parameter.numel() for parameter in trained)}))


def own_peak_bytes():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024


def choose_environment(options, folder):
    """The fastest one of PyTorch, one axis after the other; a default is left for a gain of 2 %."""
    axes = axes_of(options.threads)
    options.installed = environment_of(axes, default_choice(axes), options.threads)
    best, best_ms, times = default_choice(axes), None, {}
    for axis, names in axes.items():
        for name in names:
            choice = {**best, axis: name}
            if choice == best and best_ms is not None:
                continue
            environment = environment_of(axes, choice, options.threads)
            kind = "processor_ms" if options.processor_time else "step_ms"
            result = peft_side(options, environment, folder, options.shapes[0], compiles=False, steps=4)
            ms = statistics.median(result[kind][1:])
            times[f"{axis} {name}"] = round(ms)
            if best_ms is None or ms < 0.98 * best_ms:
                best, best_ms = choice, ms
    options.choice = ", ".join(f"{axis} {name}" for axis, name in best.items())
    options.tuned = environment_of(axes, best, options.threads)
    say(f"PyTorch is fastest with {options.choice}; ms: {times}")


def peft_side(options, environment, folder, shape, compiles, steps):
    B, T = SHAPES[shape]
    settings = {"folder": str(folder / "hf"), "B": B, "T": T, "steps": steps, "threads": options.threads,
                "compile": compiles}
    out, _, _ = run([options.python, __file__, "--peft", json.dumps(settings)], options.limit,
                    {**environment, "HF_HUB_OFFLINE": "1"})
    return json.loads(out.strip().splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# Ours

def write_tokens(path, count=1 << 18):
    """A token file of llm.c: magic, version, number of tokens, zeros; 16-bit ids."""
    with open(path, "wb") as file:
        array.array("i", [20240520, 1, count] + [0] * 253).tofile(file)
        array.array("H", random.Random(1).choices(range(V), k=count)).tofile(file)


def make_model(options, folder):
    write_tokens(folder / "tokens.bin")
    common = [options.train_gpt, "--model=gpt2", f"--data={folder / 'tokens.bin'}", "--tokenizer=none"]
    for command in ([*common, "--batch-size=1", "--seq-len=16", "--steps=1", "--val-every=0", "--sample-length=0",
                     f"--output-dir={folder / 'base'}"],
                    [options.train_gpt, "export", f"--run={folder / 'base'}", f"--out={folder / 'hf'}"]):
        run(command, 600)


def our_side(options, folder, shape, steps):
    B, T = SHAPES[shape]
    with tempfile.TemporaryDirectory(dir=folder) as output:
        command = [options.train_gpt, f"--model={folder / 'hf'}", f"--lora={RANK}", f"--data={folder / 'tokens.bin'}",
                   "--tokenizer=none", f"--batch-size={B}", f"--seq-len={T}", f"--steps={steps}",
                   "--val-every=0", "--sample-length=0", "--warmup=0", "--dtype=fp32", "--device=cpu",
                   f"--threads={options.threads}", "--recompute=act", f"--output-dir={output}/run"]
        _, log, usage = run(command, options.limit)
        with open(f"{output}/run/metrics.jsonl") as metrics:
            rows = [json.loads(line) for line in metrics]
    trained = re.search(r"trains +([0-9,]+) of", log)
    return {"step_ms": [row["step_ms"] for row in rows if "step_ms" in row], "peak_bytes": usage.ru_maxrss * 1024,
            "planned_bytes": rows[-1]["memory_bytes"], "trained": int(trained[1].replace(",", "")),
            "processor_s": usage.ru_utime + usage.ru_stime}


# ---------------------------------------------------------------------------------------------------------------------

def measure(options, folder, side, shape):
    def once(steps):
        if side == "ours":
            return our_side(options, folder, shape, steps)
        environment = options.tuned if side.startswith("tuned") else options.installed
        return peft_side(options, environment, folder, shape, side.endswith("compile"), steps)

    result, (B, T) = once(options.steps), SHAPES[shape]
    if options.processor_time and side != "ours":
        seconds = statistics.median(result["processor_ms"][1:]) / 1e3
    elif options.processor_time:
        seconds = (result["processor_s"] - once(1)["processor_s"]) / (options.steps - 1)
    else:
        seconds = statistics.median(result["step_ms"][WARMUP:]) / 1e3
    result["tokens_per_second"] = B * T / seconds
    return result


def measure_all(options, folder):
    """After every repeat {shape: {side: [result, ...]}}, and {(shape, side): why it was left out}."""
    results, failures = {shape: {} for shape in options.shapes}, {}
    for repeat in range(options.repeats):
        for shape in options.shapes:
            for side in options.sides:
                if (shape, side) in failures or (side.endswith("compile") and repeat >= options.compile_repeats):
                    continue
                try:
                    result = measure(options, folder, side, shape)
                except subprocess.TimeoutExpired:
                    failures[shape, side] = f"took more than {options.limit} s"
                except RuntimeError as error:
                    failures[shape, side] = str(error)
                else:
                    results[shape].setdefault(side, []).append(result)
                    say(f"T={shape} {side} {repeat + 1}: {result['tokens_per_second']:.0f} tok/s, "
                        f"{result['peak_bytes'] / 2**20:.0f} MiB, load {os.getloadavg()[0]:.1f}")
                if (shape, side) in failures:
                    say(f"T={shape} {side}: {failures[shape, side]}")
        yield results, failures


def summary(runs):
    speeds = [run["tokens_per_second"] for run in runs]
    return {"tokens_per_second": statistics.median(speeds), "slowest": min(speeds), "fastest": max(speeds),
            "peak_bytes": statistics.median(run["peak_bytes"] for run in runs), "repeats": len(runs)}


def judge(results):
    rows, passed = [], True
    for shape, sides in results.items():
        summaries = {side: summary(runs) for side, runs in sides.items()}
        others = [summaries[side] for side in SIDES[1:] if side in summaries]
        installed = [summaries[side] for side in AS_INSTALLED if side in summaries]
        row = {"B": SHAPES[shape][0], "T": SHAPES[shape][1], "sides": summaries}
        if installed and "ours" in summaries:
            ours = summaries["ours"]
            row["speed_ratio"] = ours["tokens_per_second"] / max(other["tokens_per_second"] for other in installed)
            row["tuned_ratio"] = ours["tokens_per_second"] / max(other["tokens_per_second"] for other in others)
            row["memory_ratio"] = ours["peak_bytes"] / min(other["peak_bytes"] for other in others)
            passed = passed and row["speed_ratio"] >= SPEED_TARGET and row["memory_ratio"] <= MEMORY_TARGET
        rows.append(row)
    return rows, passed


def cell(summaries, side):
    if side not in summaries:
        return "–"
    of = summaries[side]
    return (f"{of['tokens_per_second']:.0f} ({of['slowest']:.0f}–{of['fastest']:.0f}), "
            f"{of['peak_bytes'] / 2**20:.0f} MiB")


def table(rows):
    lines = ["| | " + " | ".join(f"B={row['B']} T={row['T']}" for row in rows) + " |", "|---|" + "---|" * len(rows)]

    def add(title, of_row):
        lines.append(f"| {title} | " + " | ".join(of_row(row) for row in rows) + " |")

    def judged(text, passed):
        return f"{text} {'pass' if passed else '**MISS**'}"

    for side in SIDES:
        add(TITLES[side], lambda row, side=side: cell(row["sides"], side))
    if all("speed_ratio" in row for row in rows):
        add(f"speed against PEFT as installed (target {SPEED_TARGET})",
            lambda row: judged(f"{row['speed_ratio']:.2f} ×", row["speed_ratio"] >= SPEED_TARGET))
        add("speed against the fastest of PEFT", lambda row: f"{row['tuned_ratio']:.2f} ×")
        add("memory of the smallest of PEFT (target 50 %)",
            lambda row: judged(f"{100 * row['memory_ratio']:.0f} %", row["memory_ratio"] <= MEMORY_TARGET))
    return "\n".join(lines)


def report(options, results, failures):
    rows, passed = judge(results)
    versions = next((runs[0]["versions"] for sides in results.values() for side, runs in sides.items()
                     if side != "ours"), {})
    ours = subprocess.run([options.train_gpt, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    about = (f"{datetime.date.today()}, {ours.splitlines()[0]}, "
             f"{', '.join(f'{name} {version}' for name, version in versions.items())}, {cpu_name()}, "
             f"{options.threads} threads, {platform.platform()}. Tuned: {options.choice}. {options.note}").strip()
    left_out = [f"T={shape}, {side}: {why}" for (shape, side), why in failures.items()]
    of_processor = " of the processor's time" if options.processor_time else ""
    folder = pathlib.Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lora_vs_peft.json").write_text(json.dumps({"about": about, "rows": rows, "left_out": left_out,
                                                          "runs": results}, indent=1) + "\n")
    text = (f"# LoRA: train_gpt, and PEFT with PyTorch, on the CPU\n\n{about} Made by `dev/bench/lora_vs_peft.py`, "
            f"which says how things are measured. Tokens per second{of_processor}: median of the repeats "
            f"(slowest–fastest); peak resident set. GPT-2 124M, rank {RANK} on every linear layer, fp32.\n\n"
            f"{table(rows)}\n")
    text += "".join(f"\nLeft out: {why}.\n" for why in left_out)
    (folder / "lora_vs_peft.md").write_text(text)
    print(text, flush=True)
    return passed


def listed(choices):
    def parse(text):
        unknown = [item for item in text.split(",") if item not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(choices)}")
        return text.split(",")
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a Python that has torch, transformers and peft; default: one made for it")
    parser.add_argument("--train-gpt", default=os.environ.get("TRAIN_GPT", str(ROOT / "train_gpt")))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile-repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--processor-time", action="store_true", help="speed by the processor's time, not the clock's")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=int, default=600, help="seconds that a process may take")
    parser.add_argument("--shapes", type=listed(SHAPES), default=list(SHAPES))
    parser.add_argument("--sides", type=listed(SIDES), default=list(SIDES))
    parser.add_argument("--note", default="", help="what else the machine did, for the report")
    parser.add_argument("--output-dir", default=str(ROOT / "dev/bench/results"))
    parser.add_argument("--peft", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peft:
        return train_with_peft(json.loads(options.peft))
    options.python = options.python or torch_venv.python()
    with tempfile.TemporaryDirectory() as folder:
        make_model(options, pathlib.Path(folder))
        choose_environment(options, pathlib.Path(folder))
        for results, failures in measure_all(options, pathlib.Path(folder)):
            passed = report(options, results, failures)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
