"""The two sides of gpu_vs_torch.py: PyTorch and train_gpt, each measurement a process of its own."""

import array
import dataclasses
import functools
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

import processes
from measure import enough

HERE = pathlib.Path(__file__).resolve().parent
NO_TIME = "no time was left"
SMOKE_VOCABULARY = 256
LONGEST_SECONDS = 90  # what takes longer hangs


class Failed(Exception):
    """A measurement that gave none; the message says why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def last_line(text, otherwise):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise


def not_done(program, seconds):
    """Out of time: the fault of the program only if it had enough."""
    return Failed(f"{program} was not done in {seconds:.0f} s" if seconds >= LONGEST_SECONDS else NO_TIME)


class Deadline:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch

class Torch:
    def __init__(self, python, device, rule):
        self.python, self.device, self.rule = python, device, rule
        self.backends = {}  # of scaled_dot_product_attention, by shape

    @functools.cached_property
    def _probed(self):
        """Its version, and whether it sees a GPU; "" if there is none. Importing it takes seconds."""
        probe = "import torch; print(torch.__version__, torch.cuda.is_available())"
        try:
            done = processes.run([self.python, "-c", probe], LONGEST_SECONDS, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired):
            return "", ""
        return (done.stdout.split()[-2:] + ["", ""])[:2] if done.returncode == 0 else ("", "")

    @property
    def version(self):
        return self._probed[0]

    @property
    def why_not(self):
        if not self.version:
            return f"{self.python} has no torch"
        if not re.match(r"[2-9]|\d\d", self.version):
            return f"PyTorch {self.version} is older than 2.0"
        if self.device == "cuda" and self._probed[1] != "True":
            return f"PyTorch {self.version} does not see the card"
        return ""

    def run(self, settings, seconds):
        if self.why_not:
            raise Failed(self.why_not)
        settings = {"device": self.device, **self.rule, **settings}
        command = [self.python, str(HERE / "torch_gpu.py"), json.dumps(settings)]
        try:
            done = processes.run(command, seconds, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except subprocess.TimeoutExpired:
            raise not_done("PyTorch", seconds) from None
        if done.returncode != 0:
            say(done.stderr)
            raise Failed("PyTorch failed: " + last_line(done.stderr, f"status {done.returncode}")[:200])
        try:
            result = json.loads(last_line(done.stdout, ""))
        except ValueError:
            raise Failed("PyTorch said nothing that can be read") from None
        if "error" in result:
            raise Failed(f"PyTorch: {result['error']}")
        return result

    def train(self, shape, checkpointing, seconds):
        ours = ("batches", "options")
        dimensions = {key: value for key, value in dataclasses.asdict(shape).items() if key not in ours}
        result = self.run({"task": "train", "checkpointing": checkpointing, "compile": True, **dimensions}, seconds)
        result["median_ms"] = statistics.median(result["step_ms"])
        return result

    def attention(self, shapes, seconds):
        listed = [{"title": shape.name, "B": shape.B, "T": shape.T, "NH": shape.NH, "NKV": shape.NKV, "HD": shape.HD}
                  for shape in shapes]
        result = self.run({"task": "attention", "shapes": listed}, seconds)
        self.backends = result.get("backends", {})
        return result["ms"]


# ---------------------------------------------------------------------------------------------------------------------
# train_gpt

class Ours:
    def __init__(self, binary, device, rule, smoke, folder):
        self.binary, self.device, self.rule, self.smoke = binary, device, rule, smoke
        self.folder = pathlib.Path(folder)

    @functools.cached_property
    def data(self):
        """Token files of llm.c, by family: magic, version, number of tokens, zeros; 16-bit or 32-bit ids."""
        files, numbers = {}, random.Random(1)
        for family, magic, version, item, V in (("gpt2", 20240520, 1, "H", 50257), ("llama", 20240801, 7, "I", 128256)):
            V = min(V, SMOKE_VOCABULARY) if self.smoke else V
            files[family] = self.folder / f"{family}.bin"
            with open(files[family], "wb") as file:
                array.array("i", [magic, version, 1 << 20] + [0] * 253).tofile(file)
                array.array(item, numbers.choices(range(V), k=1 << 20)).tofile(file)
        return files

    def options(self, shape, level, budget):
        options = [f"--model={shape.model}", f"--data={self.data[shape.family]}", f"--batch-size={shape.B}",
                   f"--seq-len={shape.T}", f"--device={self.device}", f"--recompute={level}",
                   f"--dtype={'auto' if self.smoke else 'bf16'}"]
        if self.smoke:
            options += [f"--layers={shape.L}", f"--channels={shape.C}", f"--heads={shape.NH}",
                        f"--kv-heads={shape.NKV}", f"--head-size={shape.HD}", f"--ffn-size={shape.F}",
                        f"--vocab-size={shape.V}"]
        return options + ([f"--memory-budget={budget}B"] if level == "auto" else []) + list(shape.options)

    @functools.lru_cache(maxsize=None)
    def plan(self, shape, level, budget=0):
        """Number of parameters, and what `plan --json` says of the level: total_bytes, predicted_step_ms, ..."""
        command = [self.binary, "plan", "--json", *self.options(shape, level, budget)]
        try:
            done = processes.run(command, LONGEST_SECONDS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if done.returncode != 0:
                raise Failed("train_gpt plan: " + last_line(done.stderr, f"status {done.returncode}"))
            plan = json.loads(done.stdout)
            return plan["parameters"], plan["plans"][0]
        except subprocess.TimeoutExpired:
            raise not_done("train_gpt plan", LONGEST_SECONDS) from None
        except (ValueError, LookupError):
            raise Failed("train_gpt plan: its JSON cannot be read") from None

    def budget(self, shape):
        """For auto: half-way between levels 0 and 1, in bytes."""
        return sum(self.plan(shape, level)[1]["total_bytes"] for level in ("none", "layer")) // 2

    def train(self, shape, level, budget, seconds, rule=None):
        """Trains until the rule is content, then ends the process: a checkpoint of gpt2-xl is 19 GB. The table of
        operations comes after two steps of warm-up, or from the last of the rule's `steps`."""
        deadline, rule = Deadline(seconds), rule or self.rule
        planned = self.plan(shape, level, budget)[1]
        with tempfile.TemporaryDirectory(dir=self.folder) as run:
            command = [self.binary, *self.options(shape, level, budget),
                       f"--steps={rule.get('steps', 100000)}",
                       "--val-every=0", "--sample-length=0", f"--output-dir={run}/run", f"--profile={run}/trace.json",
                       "--log-level=warn"]
            with open(f"{run}/out", "w") as out, open(f"{run}/log", "w") as log:
                with processes.group(command, stdout=out, stderr=log) as process:
                    steps = []
                    while not enough([step["step_ms"] for step in steps], rule):
                        if process.poll() is not None:
                            log_text = pathlib.Path(log.name).read_text()
                            raise Failed("train_gpt: " + last_line(log_text, f"ended with {process.returncode}"))
                        if deadline.left() < 0:
                            raise not_done("train_gpt", seconds)
                        time.sleep(0.02)
                        steps = read_metrics(f"{run}/run/metrics.jsonl")
            measured = [step["step_ms"] for step in steps[rule["warmup"]:]]
            return {"step_ms": measured, "median_ms": statistics.median(measured), "mfu": steps[-1]["mfu"],
                    "last_step_ms": steps[-1]["step_ms"], "peak_bytes": steps[-1]["memory_bytes"],
                    "planned_bytes": planned["total_bytes"], "predicted_ms": planned.get("predicted_step_ms"),
                    "losses": [steps[0]["loss"], steps[-1]["loss"]],
                    "profile": pathlib.Path(f"{run}/out").read_text()}


def read_metrics(path):
    """The whole lines of a metrics file that is being written."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def attention_ms(profile):
    """Milliseconds of one layer's attention, forward and backward, from a table of --profile; None without."""
    total = 0
    for direction in ("forward", "backward"):
        row = re.search(rf"^{direction} of att +(\d+) +([\d.]+) ", profile, re.MULTILINE)
        if not row:
            return None
        total += float(row[2]) / int(row[1])
    return total


def operations(profile):
    """The rows of a table of --profile: [{name, calls, ms, gbs, tflops, roofline}]; what has no value there is None."""
    rows = []
    for line in profile.splitlines():
        row = re.fullmatch(r"(\S.*?) +(\d+) +([\d.]+) +\S+% +(\S+) +(\S+) +(\S+) *", line)
        if row:
            figures = [float(figure) if re.fullmatch(r"[\d.]+", figure) else None
                       for figure in (*row.group(3, 4, 5), row[6].rstrip("%"))]
            names = ("name", "calls", "ms", "gbs", "tflops", "roofline")
            rows.append(dict(zip(names, (row[1], int(row[2]), *figures))))
    return rows


def card(field):
    """What nvidia-smi says of the first visible card; empty if it cannot."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", index]
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    except OSError:
        return ""
