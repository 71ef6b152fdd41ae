"""The parts of gpu_check.py: each checks or measures one thing, in a minute or less, and returns what it found.

A part returns a dictionary with `checks` (the verdicts: see verdict()) and whatever else it knows. It raises NoTime
when the seconds it was given were not enough, and is then done by a later call.
"""

import functools
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from typing import Callable

import common
import gpu_machine  # noqa: F401 (finds dev/bench)
from gpu_machine import NoTime, last_line

import gpu_vs_torch
import processes
import torch_sides
from torch_sides import Failed

TOOLS = ("memcheck", "racecheck", "initcheck")
# Whole models take minutes under a sanitizer, and NCCL probes addresses that are not there when a communicator starts.
SMALL_TESTS = "-*Training*:*ModelKind*:*MoreHostMemory*:Nccl*"
DRY_TESTS = "CudaConvert.*:Nccl.OneRankMovesAndAddsNothing"
ONE_STEP = {"steps": 1, "warmup": 0, "min_steps": 1, "min_seconds": 0, "max_seconds": 0}
AGAIN = "again:gpt2:ours:none"
LONG_MODEL, LONG_TOKENS, DRY_LONG_TOKENS = "llama3.2-1b", 131072, 64


def verdict(step, name, result, figure=""):
    """`result`: pass, miss, or skip (it cannot be told here)."""
    return {"step": step, "name": name, "verdict": result, "figure": figure}


def mib(size):
    return f"{size / 2**20:.1f}"


@dataclass(frozen=True)
class Part:
    key: str         # its name among the results
    seconds: float   # what it took on an H100, about
    most: float      # what takes longer hangs
    run: Callable    # (seconds it may take) -> what was found


# ---- the kernels' tests, also under compute-sanitizer --------------------------------------------------------------

def tests_that(word, said):
    """The number in GoogleTest's last summary line of passed, failed or skipped tests; 0 if there is none."""
    found = re.findall(rf"^\[  {word} *\] (\d+) tests?[.,]", said, re.MULTILINE)
    return int(found[-1]) if found else 0


def last_test(said):
    return (re.findall(r"^\[ RUN      \] (\S+)", said, re.MULTILINE) or ["before the first"])[-1]


class KernelTests:
    def __init__(self, machine):
        self.machine = machine
        self.command = [machine.tests, "--gtest_color=no"]

    def tests(self, seconds):
        if not self.machine.tests:
            return {"checks": [verdict("tests", "gpu_tests", "skip" if self.machine.dry else "miss",
                                       "not there; make build/release/gpu_tests")]}
        command = self.command + ([f"--gtest_filter={DRY_TESTS}"] if self.machine.dry else [])
        code, said = self.machine.run(command, seconds, "tests")
        passed, failed, skipped = (tests_that(word, said) for word in ("PASSED", "FAILED", "SKIPPED"))
        if code == 0 and passed:
            row = "pass", f"{passed} passed" + (f", {skipped} skipped" if skipped else "")
        elif code == 0:
            row = "miss", "no test passed"
        else:
            names = re.findall(r"^\[  FAILED  \] ([^ ,]+\.[^ ,]+).* ms\)$", said, re.MULTILINE)
            why = " ".join(names[:5]) or f"status {code} in {last_test(said)}, {last_line(said)}"
            row = "miss", f"{passed} passed, {failed or '?'} failed: {why}"
        return {"checks": [verdict("tests", "gpu_tests", *row), self._nccl(said)], "passed": passed, "failed": failed}

    def _nccl(self, said):
        """One rank over NCCL, from the log of the tests."""
        if re.search(r"^\[       OK \] Nccl\.", said, re.MULTILINE):
            return verdict("tests", "NCCL, one rank", "pass", "reductions and gathers in order with the kernels")
        if re.search(r"^\[  FAILED  \] Nccl\.", said, re.MULTILINE):
            return verdict("tests", "NCCL, one rank", "miss", "the test failed")
        why = re.search(r"^\[ RUN +\] Nccl\..*\n(?:.*\n)??(.*NCCL.*)", said, re.MULTILINE)
        return verdict("tests", "NCCL, one rank", "skip", why[1].strip() if why else "no such test was run")

    def sanitizer(self, tool, seconds):
        if not self.machine.tests or not self.machine.sanitizer:
            why = "no compute-sanitizer" if self.machine.tests else "no gpu_tests"
            return {"checks": [verdict("sanitizer", tool, "skip", why)]}
        tests = os.environ.get("SANITIZER_FILTER") or (DRY_TESTS + ":-Nccl.*" if self.machine.dry else SMALL_TESTS)
        code, said = self.machine.run([self.machine.sanitizer, "--tool", tool, "--error-exitcode", "99", *self.command,
                                       f"--gtest_filter={tests}"], seconds, tool)
        summary = re.findall(r"^=+ *([A-Z]+ SUMMARY:.*)", said, re.MULTILINE)
        passed, failed = tests_that("PASSED", said), tests_that("FAILED", said)
        if not summary:
            row = "skip", f"compute-sanitizer cannot run here: {last_line(said)}"
        elif code == 0 and passed:
            row = "pass", f"{summary[-1]}, {passed} tests"
        else:
            row = "miss", f"{summary[-1]}, status {code}, {failed or 'no'} tests failed"
        return {"checks": [verdict("sanitizer", tool, *row)]}


# ---- the same bits at every level, and the memory they take --------------------------------------------------------

class Levels:
    """Three steps of GPT-2 124M at every level: what must not depend on how a step is computed, and the memory."""

    def __init__(self, machine):
        self.machine = machine
        self.text = os.path.join(machine.folder, "text.txt")
        with open(self.text, "w") as file:  # text that no model can learn; the vocabulary is larger than its bytes
            file.write("".join(f"{byte:02x}{' ' if byte % 7 else chr(10)}" for byte in os.urandom(1 << 18)))
        self.model = ["--model=gpt2", "--vocab-size=50257", "--batch-size=4", "--seq-len=1024", "--dtype=bf16"]
        if machine.dry:
            self.model = ["--model=gpt2-nano", "--layers=2", "--channels=32", "--heads=2", "--batch-size=2",
                          "--seq-len=32"]
        self.model += [f"--data={self.text}", f"--device={machine.device}"]

    def plan(self, *options):
        """{level: total bytes}"""
        command = [self.machine.binary, "plan", "--json", *self.model, *options, "--log-level=error"]
        code, said = self.machine.run(command, 60, "plan")
        try:
            return {plan["recompute"]: plan["total_bytes"] for plan in json.loads(said)["plans"]} if code == 0 else {}
        except (ValueError, LookupError):
            return {}

    def options(self, level):
        """Of a level, and its name: auto has half of what lies between the first two."""
        if level != "auto":
            return [f"--recompute={level}"], level
        budget = sum(list(self.plan().values())[:2]) // 2
        return ["--recompute=auto", f"--memory-budget={budget}B"], f"auto in {mib(budget)} MiB"

    def part(self, level, reference, seconds):
        """`reference`: the curve of the first level that was run, "" if this is the first."""
        options, label = self.options(level)
        predicted = next(iter(self.plan(*options).values()), None)
        before = self.machine.used_mib()
        name = f"{label}: loss and gradient norm of 3 steps"
        lines, why, peak = self._three_steps(options, seconds)
        self._settle(before)
        if not lines:
            return {"checks": [verdict("bits", name, "miss", why)]}
        curve = "\n".join(line.partition(',"step_ms"')[0] for line in lines)
        last = json.loads(lines[-1])
        if not reference:
            checks = [verdict("bits", name, "pass", f"the reference: loss {last['loss']}")]
        elif curve == reference:
            checks = [verdict("bits", name, "pass", "equal to the last bit")]
        else:
            checks = [verdict("bits", name, "miss", f"loss {last['loss']}, norm {last.get('grad_norm')}: not the same")]
        allocated = last["memory_bytes"]
        told = verdict("memory", f"{label}: allocated as predicted", "pass", f"{mib(allocated)} MiB")
        if allocated != predicted:
            told |= {"verdict": "miss", "figure": f"predicted {predicted or 'nothing'}, allocated {allocated} bytes"}
        overhead = round(peak - before - allocated / 2**20, 1) if peak else None
        return {"checks": [*checks, told], "curve": curve, "memory": {
            "level": label, "predicted_bytes": predicted, "memory_bytes": allocated, "nvidia_smi_before_mib": before,
            "nvidia_smi_peak_mib": peak, "overhead_mib": overhead}}

    def _three_steps(self, options, seconds):
        """The first three lines of metrics.jsonl (none: and why), and the most that nvidia-smi showed in use. Ends the
        process then, without a checkpoint."""
        folder, log = os.path.join(self.machine.folder, "run"), os.path.join(self.machine.folder, "run.log")
        end, peak, lines = time.monotonic() + seconds, 0, []
        command = [self.machine.binary, *self.model, *options, "--steps=1000", "--val-every=0", "--sample-length=0",
                   f"--output-dir={folder}", "--log-level=warn"]
        removed(folder)
        with open(log, "wb") as file, \
                processes.group(command, stdout=file, stderr=file, env=self.machine.ours) as process:
            while len(lines) < 3 and process.poll() is None:
                if time.monotonic() > end:
                    raise NoTime("no third step")
                time.sleep(0.1)
                peak = max(peak, self.machine.used_mib())
                lines = common.read(os.path.join(folder, "metrics.jsonl")).split("\n")[:-1]
            peak = max(peak, self.machine.used_mib())  # once more: modules are loaded when they are first used
        said = common.read(log)
        self.machine.note(f"==== three steps {' '.join(options)}\n{said}")
        removed(folder)
        return (lines[:3] if len(lines) >= 3 else []), last_line(said, "it ended without a word"), peak

    def _settle(self, before):
        """Waits until the card is back at so much in use, as the driver frees what a killed process held."""
        for _ in range(30):
            if self.machine.used_mib() <= before + 8:
                return
            time.sleep(0.1)


def removed(folder):
    shutil.rmtree(folder, ignore_errors=True)


# ---- generation ----------------------------------------------------------------------------------------------------

class Generation:
    """Tokens per second of one text of the same GPT-2: what the longer of two texts takes more."""

    def __init__(self, machine, levels):
        self.machine, self.levels = machine, levels
        self.lengths = (4, 12) if machine.dry else (64, 832)

    def part(self, seconds):
        end, run = time.monotonic() + seconds, os.path.join(self.machine.folder, "generate")
        removed(run)
        code, said = self.machine.run(
            [self.machine.binary, *self.levels.model, "--steps=1", "--warmup=0", "--val-every=0", "--sample-length=0",
             f"--output-dir={run}", "--log-level=warn"], seconds, "a model to generate with")
        times = {}
        for length in 2 * self.lengths:
            if code:
                break
            start = time.monotonic()
            code, said = self.machine.run(
                [self.machine.binary, "generate", f"--run={run}", f"--device={self.machine.device}", "--prompt=ab",
                 "--ignore-eos", f"--length={length}", "--log-level=warn"], end - start, f"generate {length}")
            times.setdefault(length, []).append(time.monotonic() - start)
        removed(run)
        if code:
            return {"checks": [verdict("generate", "one text", "miss", last_line(said, f"status {code}"))]}
        short, long = (min(times[length]) for length in self.lengths)
        rate = (self.lengths[1] - self.lengths[0]) / (long - short) if long > short else None
        figure = f"{rate:.0f} tokens/s" if rate else "too fast to tell"
        name = f"one text, tokens {self.lengths[0]} to {self.lengths[1]}"
        return {"checks": [verdict("generate", name, "pass", figure)], "tokens_per_second": rate}


# ---- speed ---------------------------------------------------------------------------------------------------------

class Speed:
    """dev/bench/gpu_vs_torch.py, one measurement at a time. `found` are the parts of earlier calls."""

    def __init__(self, machine, found):
        self.machine, self.found = machine, found
        rule = gpu_vs_torch.SMOKE_RULE if machine.dry else gpu_vs_torch.RULE
        self.deadline = torch_sides.Deadline(0)
        self.torch = torch_sides.Torch(machine.python, machine.device, rule)
        self.ours = torch_sides.Ours(machine.wrapper(), machine.device, rule, machine.dry, machine.folder)
        self.bench = gpu_vs_torch.Bench(self.ours, self.torch, self.deadline, machine.dry)

    @functools.cached_property
    def shapes(self):
        """{model: its shape, of a batch that the card has room for}"""
        total = self.machine.card("memory.total")
        card_bytes = int(total) << 20 if total.isdigit() and not self.machine.dry else 0
        return {shape.model: gpu_vs_torch.with_batch(self.ours, shape, card_bytes)
                for shape in gpu_vs_torch.shapes_for(gpu_vs_torch.SHAPES, self.machine.dry)}

    def shape(self, model, long=False):
        shape = self.shapes[model]
        return gpu_vs_torch.resized(shape, 1, DRY_LONG_TOKENS if self.machine.dry else LONG_TOKENS) if long else shape

    def measure(self, model, side, setting, seconds, long=False):
        """A part: one measurement; of the long context one step tells."""
        self.deadline.end = time.monotonic() + seconds
        try:
            shape = self.shape(model, long)
        except Failed as failure:
            return {"checks": [verdict("speed", f"{model}, {setting}", "miss", str(failure))], "why": str(failure)}
        rule = ONE_STEP if long else None
        run = self.bench.measure_one(shape, side, setting_of(side, setting), rule)
        if run is None:
            why = self.bench.why[shape.name, side, setting_of(side, setting)]
            if why == torch_sides.NO_TIME:
                raise NoTime(why)
            name = f"{shape.name}, {'PyTorch, ' * (side == 'torch')}{setting}"
            return {"checks": [verdict("speed", name, "miss" if side == "ours" else "skip", why)], "why": why}
        checks = []
        if side == "ours" and run["peak_bytes"] != run["planned_bytes"]:
            checks.append(verdict("memory", f"{shape.name}, {setting}: allocated as predicted", "miss",
                                  f"predicted {run['planned_bytes']}, allocated {run['peak_bytes']} bytes"))
        return {"checks": checks, "run": run}

    def attention(self, seconds):
        """A part: PyTorch's attention alone."""
        try:
            times = self.torch.attention(list(self.shapes.values()), seconds)
        except Failed as failure:
            if str(failure) == torch_sides.NO_TIME:
                raise NoTime(str(failure)) from None
            return {"checks": [verdict("attention", "PyTorch's", "skip", str(failure))], "error": str(failure)}
        return {"checks": [], "ms": times, "backends": self.torch.backends}

    def conclude(self):
        """Everything that was measured, in this call or earlier ones, as gpu_vs_torch.py tells it."""
        if not any("run" in found for found in self.found.values()):
            return None
        bench, attention = self.bench, self.found.get("attention", {})
        bench.rows, bench.checks, bench.profiles, bench.runs, bench.why = [], [], [], {}, {}
        for shape, side, setting, key in self._keys():
            found = self.found.get(key, {})
            if "run" in found:
                bench.runs.setdefault((shape.name, side, setting), []).append(found["run"])
            else:
                bench.why.setdefault((shape.name, side, setting), found.get("why", torch_sides.NO_TIME))
        measured = [shape for shape in self.shapes.values() if any(key[0] == shape.name for key in bench.runs)]
        for shape in measured:
            bench.conclude(shape)
        long = self.shape(LONG_MODEL, long=True)
        if (long.name, "ours", "sqrt") in bench.runs:
            row = bench.row(long, "sqrt", self.ours.plan(long, "sqrt")[0])
            bench.rows.append(row | dict.fromkeys(("speed_target", "step_target", "speed_ratio", "step_ratio")))
        self.torch.backends = attention.get("backends", {})
        compared = bench.compare_attention(measured, attention.get("ms") or {
            "error": attention.get("error", torch_sides.NO_TIME)})
        versions = [run["torch"] for runs in bench.runs.values() for run in runs if "torch" in run]
        operations = {f"{shape}, {setting}": torch_sides.operations(runs[0]["profile"])
                      for (shape, side, setting), runs in bench.runs.items() if side == "ours"}
        return {"about": {"torch": f"PyTorch {versions[0]}" if versions else "PyTorch was not measured"},
                "rows": bench.rows, "attention": compared, "checks": bench.checks, "operations": operations}

    def _keys(self):
        """(shape, side, setting, key) of every measurement."""
        for key in measurements():
            stage, model, side, setting = key.split(":")
            yield self.shape(model, stage == "long"), side, setting_of(side, setting), key


def setting_of(side, word):
    """As Bench.measure_one takes it."""
    return word == "checkpointed" if side == "torch" else word


def measurements():
    """The keys of all measurements, "stage:model:side:setting", the most important first."""
    keys = []
    for model in gpu_vs_torch.SHAPES:
        keys += [f"speed:{model}:ours:none", f"speed:{model}:torch:plain"]
        keys += [f"speed:{model}:ours:{level}" for level in ("layer", "sqrt", "auto")]
    keys.append(f"long:{LONG_MODEL}:ours:sqrt")
    keys += [f"speed:{model}:ours:offload" for model in gpu_vs_torch.SHAPES]
    keys += [f"speed:{model}:torch:checkpointed" for model in gpu_vs_torch.SHAPES]
    return keys + [AGAIN]
