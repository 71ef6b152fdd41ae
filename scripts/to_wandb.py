#!/usr/bin/env python3
"""Sends runs' metrics.jsonl, options and samples to Weights & Biases. Needs its package (pip install wandb).

    scripts/to_wandb.py RUN... [--project=NAME] [--offline]

--offline writes them into wandb/, for `wandb sync` later. What is sent is what the folder has now; a run that goes on
is sent again under the same id, which is that of the run folder.
"""

import argparse
import json
import os
import sys


def options_of(run):
    """The run's config.toml as a dictionary."""
    try:
        import tomllib
    except ImportError:
        return {}
    try:
        with open(os.path.join(run, "config.toml"), "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):
        return {}


def id_of(run):
    try:
        with open(os.path.join(run, "run.json"), encoding="utf-8") as file:
            return json.load(file).get("id")
    except (OSError, ValueError):
        return None


def lines_of(path):
    """The whole lines of a file that may be being written."""
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def steps_of(run):
    """What each step has, from all of its lines, in their order."""
    steps = {}
    for name in ("metrics.jsonl", "samples.jsonl"):
        for line in lines_of(os.path.join(run, name)):
            values = steps.setdefault(line["step"], {})
            values.update({key: value for key, value in line.items() if key != "step" and value is not None})
    return sorted(steps.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--project", default="train_gpt", metavar="NAME")
    parser.add_argument("--offline", action="store_true")
    arguments = parser.parse_args()
    for run in arguments.runs:
        if not os.path.isfile(os.path.join(run, "metrics.jsonl")):
            sys.exit(f"to_wandb: '{run}' has no metrics.jsonl; name a run folder, such as runs/NAME")
    try:
        import wandb
    except ImportError:
        sys.exit("to_wandb: Python has no package wandb; install it (pip install wandb), or see to_tensorboard.py")
    for run in arguments.runs:
        name = os.path.basename(os.path.normpath(os.path.abspath(run)))
        sent = wandb.init(project=arguments.project, name=name, id=id_of(run), resume="allow", config=options_of(run),
                          mode="offline" if arguments.offline else "online")
        for step, values in steps_of(run):
            sample = values.pop("sample", None)
            if sample is not None:
                values["sample"] = wandb.Html(f"<pre>{sample.replace('&', '&amp;').replace('<', '&lt;')}</pre>")
            sent.log(values, step=step)
        sent.finish()


if __name__ == "__main__":
    main()
