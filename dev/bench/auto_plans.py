#!/usr/bin/env python3
"""Plans of --recompute=auto, without running them: beside a bound that no plan beats, beside the fixed levels, and
beside the `auto` of an older program.

    OLD_TRAIN_GPT=PROGRAM dev/bench/auto_plans.py [--out FOLDER]      or: make bench BENCH=auto, at its end

$OLD_TRAIN_GPT is a train_gpt of commit 3e66bb4 (git worktree add FOLDER 3e66bb4; make -C FOLDER CUDA=0); without one
its column is empty. Both plan for the card that was "h100" in that program, with the same rates. Budgets lie between
the smallest plan that the older program finds and what level 0 takes. Exits with 1 if `auto` is slower than it, or than
a fixed level in the budget. Standard library only."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / "scripts"))
import common  # noqa: E402  (from scripts/)

SHAPES = [("gpt2", 8, 1024), ("gpt2-xl", 8, 1024), ("llama3.2-1b", 4, 2048), ("llama3-8b", 1, 4096), ("d72", 4, 1024)]
SHARES = [0.0, 0.1, 0.25, 0.5, 0.75, 0.95]
# What "h100" was in 3e66bb4: everything at 0.6 of the peak, no allowance for kernels.
OLD_H100 = """name = "h100 of 3e66bb4"
kind = "sm_90"
memory-gib = 10000
reserve-gib = 0
fp32-tflops = 67
bf16-tflops = 989
bandwidth-gbs = 3350
launch-us = 4
matmul-efficiency = 0.6
attention-forward = 0.6
attention-backward = 0.6
attention-products = 5
attention-tokens = 0
bandwidth-efficiency = 1
link-gbs = 25
"""


def plans_of(program, options):
    done = subprocess.run([program, "plan", "--json", "--log-level=error", *options], capture_output=True, text=True,
                          check=False)
    return {plan["recompute"]: plan for plan in json.loads(done.stdout)["plans"]} if done.returncode == 0 else {}


def smallest(program, options, low, high):
    """The smallest budget with which auto finds a plan, to a hundredth of what lies between."""
    step = (high - low) / 100
    while high - low > step:
        middle = (low + high) // 2
        if plans_of(program, [*options, "--recompute=auto", f"--memory-budget={middle}B"]):
            high = middle
        else:
            low = middle
    return high


def rows_of(new, old, profile, model, batch, seq_len):
    # The same chunk of the classifier: the older program chose smaller ones, which took less memory and more time.
    options = [f"--model={model}", f"--batch-size={batch}", f"--seq-len={seq_len}", "--dtype=bf16",
               "--logits-chunk=256"]
    of_new, of_old = [*options, f"--device-profile={profile}"], [*options, "--device-profile=h100"]
    levels = plans_of(new, [*of_new, "--recompute=0,1,2,act,attn"])
    least = min(plan["total_bytes"] for plan in levels.values())
    least = smallest(old or new, of_old if old else of_new, least // 2, least)
    for share in SHARES:
        budget = int(least + share * (levels["none"]["total_bytes"] - least))
        ours = plans_of(new, [*of_new, "--recompute=auto", f"--memory-budget={budget}B"]).get("auto")
        theirs = plans_of(old, [*of_old, "--recompute=auto", f"--memory-budget={budget}B"]).get("auto") if old else None
        fitting = [plan["predicted_step_ms"] for plan in levels.values() if plan["total_bytes"] <= budget]
        yield {"model": model, "batch_size": batch, "seq_len": seq_len, "budget_bytes": budget, "share": share,
               "none_ms": levels["none"]["predicted_step_ms"],
               "auto_ms": ours and ours["predicted_step_ms"],
               "auto_extra_flops": ours and ours["extra_flops_ratio"],
               "above_bound": ours and ours["above_bound_ratio"],
               "level_ms": min(fitting) if fitting else None,
               "old_none_ms": plans_of(old, [*of_old, "--recompute=0"])["none"]["predicted_step_ms"] if old else None,
               "old_auto_ms": theirs and theirs["predicted_step_ms"],
               "old_extra_flops": theirs and theirs["extra_flops_ratio"]}


def line_of(row):
    def over(value, base):
        return f"+{value - base:.2f}" if value else "none"
    old = over(row["old_auto_ms"], row["old_none_ms"]) if row["old_none_ms"] else "not there"
    level = over(row["level_ms"], row["none_ms"])
    return (f"| {row['model']} {row['batch_size']} x {row['seq_len']} | {row['budget_bytes'] / (1 << 30):.2f} "
            f"| {100 * row['share']:.0f} % | {over(row['auto_ms'], row['none_ms'])} | {level} | {old} "
            f"| {100 * row['above_bound']:.2f} % |")


def miss_of(row):
    if row["auto_ms"] is None:
        return "finds nothing"
    if row["level_ms"] and row["auto_ms"] > row["level_ms"] * (1 + 1e-9):
        return "slower than a fixed level"
    # Of two programs what is added to level 0: what an update takes beside the micro-batch is not priced alike. Their
    # workspaces differ by some KB, so that a budget may have room for one small tensor less.
    added, old_added = row["auto_ms"] - row["none_ms"], (row["old_auto_ms"] or 0) - (row["old_none_ms"] or 0)
    if row["old_auto_ms"] and added > old_added + 0.0025 * row["old_none_ms"]:
        return "slower than the older program"
    return None


def main():
    parser = common.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(root / "dev/bench/results"), metavar="FOLDER")
    options = parser.parse_args()
    new = os.environ.get("TRAIN_GPT", str(root / "train_gpt"))
    old = os.environ.get("OLD_TRAIN_GPT", "")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        profile = pathlib.Path(folder) / "old_h100.toml"
        profile.write_text(OLD_H100)
        for model, batch, seq_len in SHAPES:
            for row in rows_of(new, old, profile, model, batch, seq_len):
                rows.append(row)
                common.say(line_of(row) if row["auto_ms"] else str(row))
    version = subprocess.run([new, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()[0]
    text = (f"# Plans of auto\n\n{version}; `dev/bench/auto_plans.py`, which runs nothing. Predicted\n"
            "milliseconds of a step over those of level 0, on the card that was \"h100\" in 3e66bb4. *Share*: 0 % is "
            "the smallest\nbudget with which 3e66bb4 finds a plan, 100 % what level 0 takes. *Above the bound*: by how "
            "much\nat most another plan could be faster (`llmc/plan/relaxation.h`).\n\n"
            "| model | budget, GiB | share | auto | best level that fits | auto of 3e66bb4 | above the bound |\n"
            "|---|---:|---:|---:|---:|---:|---:|\n" + "".join(line_of(row) + "\n" for row in rows if row["auto_ms"]))
    print(text, end="")
    common.write(os.path.join(options.out, "auto_plans.md"), text)
    common.write(os.path.join(options.out, "auto_plans.json"), json.dumps(rows, indent=1) + "\n")
    misses = [(row, miss_of(row)) for row in rows if miss_of(row)]
    for row, words in misses:
        common.say(f"{row['model']}, {row['budget_bytes']} B: {words}")
    return 1 if misses else 0


common.run(main)
