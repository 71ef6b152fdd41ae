#!/usr/bin/env python3
"""How long `plan --what-fits` thinks: for every preset, one rank and four (with --zero=3), the fixed levels with the
other ways to train below them, and auto's row; and auto's search for 80 layers.

    make bench BENCH=what_fits
    dev/bench/what_fits.py [--quick] [--card=rtx4090] [--presets=gpt2,llama3-8b] [--against=OTHER_TRAIN_GPT]

Seconds are of the processor (user and system) of one run each, so that other work counts little; --against runs
another build in turn, and shows its seconds over ours. Prints a table and writes dev/bench/results/what_fits.md, but
with --quick (four presets). Exits with 1 where a target is missed: 2 s for the levels, 5 s for auto's row, 1 s for the
search.
"""

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

LEVELS = "--recompute=none,layer,sqrt,act,attn,offload"
QUICK = ["gpt2", "gpt2-xl", "llama3-8b", "llama3-70b"]
SEARCH = ["--model=llama3-70b", "--batch-size=1", "--seq-len=4096", "--ranks=4", "--zero=3", "--recompute=auto",
          "--offload=none"]
BUDGETS = ["330GiB", "300GiB", "290GiB"]


def run(binary, *arguments):
    """Seconds of the processor, and what was printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([binary, "plan", *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        sys.exit(f"what_fits: train_gpt plan {' '.join(arguments)}: {result.stderr.strip()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result.stdout


def presets(binary):
    result = subprocess.run([binary, "plan", "--model=none-of-them"], capture_output=True, text=True, check=False)
    names = re.search(r"architectures ([^,]*),", " ".join(result.stderr.split()))
    return names.group(1).split()


def processor():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--card", default="rtx4090")
    parser.add_argument("--presets", default="")
    parser.add_argument("--against", default="")
    options = parser.parse_args()
    binary = os.environ["TRAIN_GPT"]
    names = options.presets.split(",") if options.presets else QUICK if options.quick else presets(binary)
    other = options.against
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    lines = [f"# How long `plan --what-fits` thinks, {options.card}", "",
             f"{time.strftime('%Y-%m-%d')}, train_gpt {version}, {processor()}, load {os.getloadavg()[0]:.0f}; "
             "seconds of the processor, one run each.",
             "", "| preset | ranks | levels (2 s) | with auto's row | auto's row (5 s) |"
             + (" other build, with auto | times ours |" if other else ""),
             "|---|---:|---:|---:|---:|" + ("---:|---:|" if other else "")]
    missed = []
    for name in names:
        for ranks in (1, 4):
            where = [f"--model={name}", "--what-fits", f"--device-profile={options.card}", f"--ranks={ranks}"]
            where += ["--zero=3"] if ranks > 1 else []
            levels, whole = run(binary, *where, LEVELS)[0], run(binary, *where)[0]
            row = f"| {name} | {ranks} | {levels:.2f} | {whole:.2f} | {whole - levels:.2f} |"
            if other:
                theirs = run(other, *where)[0]
                row += f" {theirs:.2f} | {theirs / whole:.1f} |"
            lines.append(row)
            print(row, file=sys.stderr, flush=True)
            if levels > 2:
                missed.append(f"{name}, {ranks} ranks: levels {levels:.2f} s")
            if whole - levels > 5:
                missed.append(f"{name}, {ranks} ranks: auto's row {whole - levels:.2f} s")
    search = max(run(binary, *SEARCH, f"--memory-budget={budget}")[0] for budget in BUDGETS)
    row = (f"auto's search and plan for 80 layers (train_gpt plan {' '.join(SEARCH)}, the slowest of "
           f"--memory-budget={', '.join(BUDGETS)}): {search:.2f} s (target 1 s)")
    if search > 1:
        missed.append(f"the search: {search:.2f} s")
    lines += ["", row, "", "missed: " + "; ".join(missed) if missed else "All targets are met."]
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.quick:
        root = Path(__file__).resolve().parents[2]
        (root / "dev/bench/results/what_fits.md").write_text(text, encoding="utf-8")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
