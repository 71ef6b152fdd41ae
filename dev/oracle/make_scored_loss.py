#!/usr/bin/env python3
"""The loss over chosen tokens of rows of unequal lengths, in PyTorch: tests/golden/scored_loss.json.

The models are those of make_golden.py, with the parameters of its files. Every row goes through the model by itself, in
fp64: nothing here knows of padding, packing, micro-batches or ranks. Right is the sum over all targets that count,
divided by their number; wrong is the mean of the micro-batches' means, which rows of unequal numbers tell from it.

    python3 dev/oracle/make_scored_loss.py      # after make_golden.py
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
from make_golden import MODELS, forward
from safetensors.torch import load_file

MICRO_BATCHES = [3, 1, 4]  # rows of each


def make_rows(c, rng):
    """Rows of at least two tokens, one of them of as many as a sequence has targets for; most begin with a prompt."""
    rows = []
    for number in range(sum(MICRO_BATCHES)):
        length = c.T + 1 if number == 2 else int(rng.integers(2, c.T + 1))
        prompt = int(rng.integers(0, length - 1))
        scored = [int(i > prompt and (i == length - 1 or rng.random() < 0.8)) for i in range(length)]
        rows.append({"ids": rng.integers(0, c.V, size=length).tolist(), "scored": scored})
    return rows


def loss_sum(c, params, row):
    """Of the targets that count, which are all tokens but the first; and how many they are."""
    ids = torch.tensor(row["ids"])
    counts = torch.tensor(row["scored"][1:], dtype=torch.float64)
    losses = -forward(c, params, ids[None, :-1])[0].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    return (losses * counts).sum(), int(counts.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden-dir", type=pathlib.Path, default="tests/golden")
    folder = parser.parse_args().golden_dir
    torch.set_num_threads(1)
    cases = {}
    for name, (seed, c) in MODELS.items():
        rng = np.random.default_rng(1000 + seed)
        rows = make_rows(c, rng)
        file = load_file(folder / f"{name}.safetensors")
        params = {key.removeprefix("param."): value.double().requires_grad_()
                  for key, value in file.items() if key.startswith("param.")}
        parts = [loss_sum(c, params, row) for row in rows]
        scored = sum(count for _, count in parts)
        right = sum(loss for loss, _ in parts) / scored
        right.backward()
        means, first = [], 0
        for size in MICRO_BATCHES:
            of_micro = parts[first:first + size]
            means.append((sum(loss for loss, _ in of_micro) / sum(count for _, count in of_micro)).item())
            first += size
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in params.values()))
        wrong = sum(means) / len(means)
        assert abs(wrong - right.item()) > 1e-3 * right.item(), "rows that do not tell right from wrong"
        cases[name] = {"rows": rows, "micro_batches": MICRO_BATCHES, "scored": scored, "loss": right.item(),
                       "mean_of_means": wrong, "grad_norm": norm}
    text = json.dumps(cases).replace('{"ids"', '\n{"ids"').replace('"micro_batches"', '\n"micro_batches"')
    (folder / "scored_loss.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
