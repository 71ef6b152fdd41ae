#!/usr/bin/env python3
"""Predicted step times of a card beside those that were measured on it, for every file of measured steps.

    dev/bench/predict_card.py TRAIN_GPT [RESULTS.json ...]     (default: dev/bench/results/*_steps.json)

Asks `plan` for the time of each row and prints a table. The profile's efficiencies were fitted on the rows marked so;
the others test it. Exits with 1 if a row is more than 15 % off. Needs no card. Standard library only.
"""
import glob
import json
import os
import subprocess
import sys

ALLOWED = 0.15


def predicted_ms(train_gpt, profile, row):
    command = [train_gpt, "plan", "--json", "--device=cpu", "--dtype=bf16", f"--device-profile={profile}",
               f"--model={row['model']}", f"--batch-size={row['batch_size']}", f"--seq-len={row['seq_len']}",
               f"--recompute={row['recompute']}", f"--logits-chunk={row['logits_chunk']}"]
    if row["model"].startswith("llama"):  # Rotary positions go as far as one asks.
        command.append(f"--max-seq-len={max(131072, row['seq_len'])}")
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(text)["plans"][0]["predicted_step_ms"]


def table(train_gpt, path):
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    print(f"{results['device']}; {results['date']}, train_gpt {results['commit']}\n")
    print("| model | --recompute | chunk | predicted ms | measured ms | ratio | used for | within 15 % |")
    print("|---|---|---:|---:|---:|---:|---|---|")
    good = True
    for row in results["steps"]:
        predicted = predicted_ms(train_gpt, results["profile"], row)
        ratio = predicted / row["ms"]
        near = abs(ratio - 1) <= ALLOWED
        good = good and near
        print(f"| {row['title']} | {row['recompute']} | {row['logits_chunk']} | {predicted:,.1f} | {row['ms']:,} "
              f"| {ratio:.3f} | {'the fit' if row['fitted'] else 'a test'} | {'pass' if near else '**MISS**'} |")
    print()
    return good


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    here = os.path.dirname(os.path.abspath(__file__))
    files = sys.argv[2:] or sorted(glob.glob(os.path.join(here, "results", "*_steps.json")))
    results = [table(sys.argv[1], path) for path in files]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
