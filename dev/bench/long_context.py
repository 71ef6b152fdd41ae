#!/usr/bin/env python3
"""How long a sequence trains on one card, by plan: what tiles of tokens do to memory and predicted time, and the
longest context of llama3.2-1b and llama3-8b in 24 and 80 GB, with bytes on device and host.

    dev/bench/long_context.py [--out FOLDER]      or: make bench BENCH=long_context

Speeds are predictions: nothing here has run on such a card. Exits with 1 if tiles save less than two thirds of
llama3.2-1b's arena at 131,072 tokens under --recompute=offload, or cost more than 10 % of its predicted time. Standard
library only."""

import json
import os
import pathlib
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parents[2]
GIB = 1 << 30
RESERVE = GIB
# What the plan without tiles needed before there were any, rounded.
UNTILED_ARENA = 15.3e9
BLOCK = 8192
# Model, profile, GB of the card, options that its state needs there.
CASES = [
    ("llama3.2-1b", "rtx4090", 24, ["--offload=moments,masters,boundaries"]),
    ("llama3.2-1b", "h100", 80, []),
    ("llama3-8b", "rtx4090", 24, ["--offload=all"]),
    ("llama3-8b", "h100", 80, ["--offload=all"]),
]
GOALS = {("llama3.2-1b", 80): 1 << 20, ("llama3-8b", 80): 1 << 19}


def plan(program, model, profile, tokens, options):
    """The one plan of these options; None where they are refused."""
    done = subprocess.run(
        [program, "plan", "--json", "--log-level=error", f"--model={model}", "--batch-size=1", f"--seq-len={tokens}",
         f"--max-seq-len={tokens}", "--dtype=bf16", f"--device-profile={profile}", *options],
        capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    return json.loads(done.stdout)["plans"][0]


def gib(number):
    return f"{number / GIB:.1f}"


def tiles_table(program, lines):
    """llama3.2-1b at 131,072 tokens, tile by tile. Returns whether the targets are met."""
    lines += ["## llama3.2-1b at 131,072 tokens, --recompute=offload, h100", "",
              "| tiles | arena, GB | of 15.3 GB | predicted s a step | against none |", "|---:|---:|---:|---:|---:|"]
    before, good = None, False
    for tile in ["none", "65536", "32768", "16384", "8192"]:
        made = plan(program, "llama3.2-1b", "h100", 131072, ["--recompute=offload", f"--tile-tokens={tile}"])
        arena, seconds = made["arena_bytes"], made["predicted_step_ms"] / 1e3
        before = before or seconds
        lines.append(f"| {tile} | {arena / 1e9:.2f} | {arena / UNTILED_ARENA:.2f} | {seconds:.2f} | "
                     f"{100 * (seconds / before - 1):+.1f} % |")
        good = good or (arena <= UNTILED_ARENA / 3 and seconds <= 1.1 * before)
    return good


def longest(program, model, profile, size, options):
    """The longest sequence in whole blocks that fits; (tokens, its plan)."""
    budget = size * 10**9 - RESERVE

    def fits(blocks):
        made = plan(program, model, profile, blocks * BLOCK,
                    ["--recompute=layer", f"--tile-tokens={BLOCK}", f"--memory-budget={budget}B", *options])
        return made if made and made["total_bytes"] <= budget else None

    low, best = 0, None
    high = 1
    while high <= 512:
        made = fits(high)
        if made is None:
            break
        low, best, high = high, made, 2 * high
    while high - low > max(1, low // 32):
        middle = (low + high) // 2
        made = fits(middle)
        if made is None:
            high = middle
        else:
            low, best = middle, made
    return low * BLOCK, best


def context_table(program, lines):
    lines += ["", "## Longest context", "",
              "In whole blocks, found to 3 %; a GiB of the card is left to the driver. Level 1 with boundaries in host "
              "memory (`--offload` as named), tiles of 8,192.", "",
              "| model | card | --offload | tiles | tokens | goal | device, GiB | host, GiB | predicted s a step |",
              "|---|---|---|---|---:|---:|---:|---:|---:|"]
    for model, profile, size, options in CASES:
        offload = options or ["--offload=boundaries"]
        tokens, made = longest(program, model, profile, size, offload)
        goal = GOALS.get((model, size))
        row = f"| {model} | {profile}, {size} GB | {offload[0].split('=')[1]} | 8192 | "
        if made is None:
            lines.append(row + f"none | {goal or ''} | | | |")
            continue
        lines.append(row + f"{tokens:,} | {f'{goal:,}' if goal else ''} | {gib(made['total_bytes'])} | "
                     f"{gib(made['host_bytes'])} | {made['predicted_step_ms'] / 1e3:.0f} |")


def main():
    program = os.environ.get("TRAIN_GPT", str(root / "train_gpt"))
    out = sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else None
    lines = ["# Long context on one card, by plan", ""]
    good = tiles_table(program, lines)
    context_table(program, lines)
    text = "\n".join(lines) + "\n"
    print(text)
    if out:
        (pathlib.Path(out) / "long_context.md").write_text(text, encoding="utf-8")
    if not good:
        print("long_context.py: no tile meets both targets", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
