#!/usr/bin/python3
"""Draws training runs, and what scripts/sweep.py measured, as PNG and SVG.

    scripts/plot.py RUN                    loss, learning rate, gradient norm, speed and memory of a run folder
    scripts/plot.py RUN RUN...             the same of several runs, on top of one another
    scripts/plot.py SWEEP                  memory, speed, overhead and loss curves of a folder with a sweep.csv

Files go to --out FOLDER, else to the one folder that was named, else to the current one: curves.png, or memory.png,
time.png, speed.png, overhead.png and loss.png, and an .svg beside each. Lines differ in dashes and markers, bars in
hatches, so that they can be told apart in black and white. Needs Debian's package python3-matplotlib.
"""

import argparse
import csv
import io
import json
import math
import os
import pathlib
import sys
import tomllib
import warnings
from itertools import groupby
from statistics import median

sys.dont_write_bytecode = True
import common  # noqa: E402
from common import shown  # noqa: E402

MIB = 2**20
# Of a line: grey to black as well as coloured, dashes, markers.
COLOURS = ["#000000", "#c44e00", "#0060a8", "#7a7a7a", "#7b2d8b", "#2e7d32", "#a06a00"]
DASHES = ["-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 2)), (0, (3, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
PREDICTED = {"facecolor": "white", "edgecolor": "black", "hatch": "///"}
MEASURED = {"facecolor": "#8fb3d9", "edgecolor": "black"}


def fail(text):
    common.fail(1, text)


def label(kind, name):
    """Of a run's line. Matplotlib leaves out labels that begin with an underscore, as a name may, and takes what is
    between dollar signs for a formula."""
    return f"{kind}: {shown(name)}".replace("$", r"\$")


# ---------------------------------------------------------------------------------------------------------------------
# Reading

def read_metrics(folder):
    """The steps and the validations of a run. A last line without its end is being written, and left out."""
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        fail(f"{path}: cannot be read ({error.strerror}); name a run folder of train_gpt, or one of scripts/sweep.py")
    steps, validations = [], []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            values = {key: math.nan if entry[key] is None else float(entry[key]) for key in entry if key != "skipped"}
            (validations if "val_loss" in values else steps).append(values)
            needed = ["val_loss"] if "val_loss" in values else [key for key, *_ in PANELS]
            missing = [key for key in ["step", *needed] if key not in values]
        except (ValueError, TypeError, UnicodeDecodeError):
            fail(f"{path}:{number}: is not a line of metrics (JSON object of numbers); the file is damaged")
        if missing:
            fail(f"{path}:{number}: has no {missing[0]}; the file is damaged, or not of train_gpt")
    if not steps:
        fail(f"{path}: has no step yet; wait for the run's first one")
    return steps, validations


def flat(config):
    """Options by name, whatever sections they are in."""
    options = {}
    for key, value in config.items():
        options.update(flat(value) if isinstance(value, dict) else {key: value})
    return options


def tokens_per_step(folder):
    path = folder / "config.toml"
    try:
        # Its strings may have names in them that are not UTF-8; the numbers have none.
        config = flat(tomllib.loads(path.read_bytes().decode("utf-8", "replace")))
        return config.get("total-batch-size") or config["batch-size"] * config["seq-len"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{path}: does not tell the tokens of a step ({error}); leave --x=tokens out")


def read_sweep(path):
    """The rows of a sweep.csv, numbers as numbers, None where there is none."""
    numbers = ["predicted_bytes", "measured_bytes", "predicted_step_ms", "step_ms", "tokens_per_second", "overhead"]
    rows = []
    reader = csv.DictReader(io.StringIO(os.fsdecode(path.read_bytes()), newline=""))
    try:
        for row in reader:
            row.update({key: float(row[key]) if row[key] else None for key in numbers})
            rows.append({**row, "batch_size": int(row["batch_size"]), "curve": row["curve"] or "",
                         "level": row["recompute"], "folder": path.parent / row["run"],
                         "setting": row.get("setting") or "", "repeat": row.get("repeat") or "1"})
    except (ValueError, KeyError, TypeError, csv.Error):
        fail(f"{path}:{reader.line_num}: is not a row of scripts/sweep.py; run that again to make the file anew")
    if not rows:
        fail(f"{path}: has no rows; run scripts/sweep.py again to make the file anew")
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Runs

# Key in metrics.jsonl, title, unit of the axis, divisor.
PANELS = [("loss", "Loss", "nats per token", 1), ("lr", "Learning rate", "", 1),
          ("grad_norm", "Gradient norm (before clipping)", "", 1), ("tokens_per_second", "Speed", "tokens/s", 1),
          ("memory_bytes", "Memory allocated", "MiB", MIB)]


def style(index, count, points):
    """Of the index-th of some lines: its markers begin elsewhere than those of the others, which may lie beneath it."""
    every = max(count, points // 8)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.4,
            "marker": MARKERS[index % len(MARKERS)], "markersize": 4.5, "markerfacecolor": "white",
            "markevery": (min(index * every // count, points - 1), every)}


def thousands(axis):
    from matplotlib.ticker import StrMethodFormatter
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def plot_runs(pyplot, folders, unit):
    runs = [(folder.resolve().name, *read_metrics(folder), tokens_per_step(folder) if unit == "tokens" else 1)
            for folder in folders]
    if len({name for name, *_ in runs}) < len(runs):  # the same name in several places
        runs = [(str(folder), *run[1:]) for folder, run in zip(folders, runs)]
    figure, axes = pyplot.subplots(3, 2, figsize=(10, 9.5), sharex=True, layout="constrained")
    for axis, (key, title, unit_of_axis, divisor) in zip(axes.flat, PANELS):
        for index, (name, steps, validations, scale) in enumerate(runs):
            axis.plot([s["step"] * scale for s in steps], [s[key] / divisor for s in steps],
                      label=label("training", name) if key == "loss" else None, **style(index, len(runs), len(steps)))
            if key == "loss" and validations:
                axis.plot([v["step"] * scale for v in validations], [v["val_loss"] for v in validations],
                          color=COLOURS[index % len(COLOURS)], linestyle="none", marker=MARKERS[index % len(MARKERS)],
                          markersize=8, label=label("validation", name))
        axis.set(title=title, ylabel=unit_of_axis)
        axis.tick_params(labelbottom=True)
        axis.grid(alpha=0.3)
        if key in ("tokens_per_second", "memory_bytes"):
            axis.set_ylim(bottom=0, top=1.1 * max([s[key] / divisor for _, run, *_ in runs for s in run] + [0]) or 1)
            thousands(axis.yaxis)
        axis.set_xlabel(unit)
    axes.flat[5].axis("off")
    axes.flat[5].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False, handlelength=5)
    if unit == "tokens":
        from matplotlib.ticker import EngFormatter
        for axis in axes.flat[:5]:
            axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
    return {"curves": figure}


# ---------------------------------------------------------------------------------------------------------------------
# A sweep

def rounded(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def by_panel(rows):
    """The rows of each batch size and setting, with the title of their panel."""
    def key(row):
        return row["batch_size"], row["setting"]
    return [(f"batch size {size}" + (f"\n{shown(setting)}" if setting else ""), list(group))
            for (size, setting), group in groupby(rows, key=key)]


def without_repeats(rows):
    """One row for the repeats of a run: the first of them, with medians of what was measured."""
    merged = {}
    for row in rows:
        merged.setdefault((row["batch_size"], row["setting"], row["level"]), []).append(row)
    measured = ("measured_bytes", "step_ms", "tokens_per_second", "overhead")
    return [{**group[0], **{key: middle([row[key] for row in group]) for key in measured}}
            for group in merged.values()]


def middle(values):
    found = [value for value in values if value is not None]
    return median(found) if found else None


def panels(pyplot, rows, title, unit):
    """A figure with an axis per batch size and setting, side by side, all of one scale."""
    groups = by_panel(rows)
    width = sum(1.2 + 0.75 * len(group) for _, group in groups)
    figure, axes = pyplot.subplots(1, len(groups), sharey=True, squeeze=False, layout="constrained",
                                   figsize=(max(6, width), 4.6))
    figure.suptitle(title)
    axes[0, 0].set_ylabel(unit)
    for axis, (name, _) in zip(axes.flat, groups):
        axis.set_title(name, fontsize=11)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    return figure, [(axis, group) for axis, (_, group) in zip(axes.flat, groups)]


def bars(pyplot, rows, title, unit, kinds, write):
    """Bars of each kind (key, name, look, factor) at each level, each with its value on top."""
    figure, axes = panels(pyplot, rows, title, unit)
    values = [row[key] * factor for row in rows for key, _, _, factor in kinds if row[key] is not None]
    top, bottom = max(values + [0]), min(values + [0])
    width = 0.8 / len(kinds)
    for axis, group in axes:
        for number, (key, name, look, factor) in enumerate(kinds):
            for x, row in enumerate(group):
                at = x + (number - (len(kinds) - 1) / 2) * width
                if row[key] is not None:
                    value = row[key] * factor
                    axis.bar(at, value, width, **look)
                    text = write(value)
                elif row["status"] == "finished":
                    value, text = 0, "n/a"
                else:
                    value, text = 0, row["status"]
                axis.annotate(text, (at, max(value, 0)), xytext=(0, 3), textcoords="offset points", rotation=90,
                              ha="center", va="bottom", fontsize=8)
        axis.set_xticks(range(len(group)), [row["level"] for row in group])
        axis.set_xlim(-0.6, len(group) - 0.4)
        axis.set_xlabel("--recompute")
        axis.set_ylim(1.1 * bottom, bottom + 1.3 * (top - bottom) or 1)
        axis.axhline(0, color="black", linewidth=0.8)
        thousands(axis.yaxis)
    if len(kinds) > 1:
        axes[-1][0].legend(handles=[pyplot.Rectangle((0, 0), 1, 1, label=name, **look) for _, name, look, _ in kinds],
                           loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def loss_curves(pyplot, rows):
    finished = [row for row in rows if row["status"] == "finished"]
    if not finished:
        return None
    figure, axes = panels(pyplot, finished, "Training loss", "nats per token")
    figure.set_size_inches(max(6, 4.5 * len(axes)), 4.6)
    for axis, group in axes:
        for index, row in enumerate(group):
            steps, _ = read_metrics(row["folder"])
            above = (len(group) - 1 - index) / max(1, len(group) - 1)  # from 1 to 0; those beneath stay to be seen
            look = {**style(index, len(group), len(steps)), "linewidth": 1.2 + 7 * above, "color": str(0.85 * above),
                    "markeredgecolor": "black", "markersize": 5 + 3 * above}
            axis.plot([s["step"] for s in steps], [s["loss"] for s in steps], label=row["level"], **look)
        equal = all(row["curve"] == "same" for row in group)
        if len(group) > 1:
            axis.set_title(axis.get_title() + (": equal bit for bit" if equal else ": THEY DIFFER"), fontsize=11)
        axis.set_xlabel("steps")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(title="--recompute", handlelength=5)
    return figure


def plot_sweep(pyplot, path):
    runs = read_sweep(path)
    rows = without_repeats(runs)
    memory = [("predicted_bytes", "predicted", PREDICTED, 1 / MIB), ("measured_bytes", "measured", MEASURED, 1 / MIB)]
    times = [("predicted_step_ms", "predicted", PREDICTED, 1), ("step_ms", "measured", MEASURED, 1)]
    figures = {
        "memory": bars(pyplot, rows, "Memory, predicted and measured", "MiB", memory, rounded),
        "speed": bars(pyplot, rows, "Speed", "tokens/s", [("tokens_per_second", "", MEASURED, 1)], rounded),
        "time": bars(pyplot, rows, "Time per step, predicted and measured", "ms", times, rounded),
        "overhead": bars(pyplot, rows, "Time per step over that of level 0", "%",
                         [("overhead", "", MEASURED, 100)], "{:+.1f}".format),
        "loss": loss_curves(pyplot, [row for row in runs if row["repeat"] == "1"])}
    return {name: figure for name, figure in figures.items() if figure}


def save(figure, path):
    """The picture in both formats, each whole or not at all."""
    with common.replaced(path + ".png") as file:
        figure.savefig(file, dpi=130)
    with common.replaced(path + ".svg") as file:
        figure.savefig(file, metadata={"Date": None})


def main():
    parser = common.Parser(prog="plot.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=pathlib.Path, help="run folders, or one sweep")
    parser.add_argument("--out", type=pathlib.Path, metavar="FOLDER", help="where the files go")
    parser.add_argument("--x", choices=["steps", "tokens"], default="steps", help="what runs are drawn against")
    args = parser.parse_args()
    sweeps = [folder for folder in args.folders if (folder / "sweep.csv").exists()]
    if sweeps and len(args.folders) > 1:
        common.fail(2, f"{sweeps[0]}: is a sweep; draw it alone")
    try:
        import matplotlib
    except ImportError:
        fail("there is no Matplotlib; install the Debian package python3-matplotlib (scripts/install_deps.sh --bench)")
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "train_gpt", "svg.fonttype": "none", "axes.spines.top": False,
                                "axes.spines.right": False, "hatch.linewidth": 0.6, "text.usetex": False})
    from matplotlib import pyplot
    warnings.filterwarnings("ignore", "Glyph .* missing")  # In the picture it is a box, in the SVG a letter.

    if sweeps:
        figures = plot_sweep(pyplot, sweeps[0] / "sweep.csv")
    else:
        figures = plot_runs(pyplot, args.folders, args.x)
    out = args.out or (args.folders[0] if len(args.folders) == 1 else pathlib.Path("."))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            save(figure, str(out / name))
    except OSError as error:
        fail(f"--out={out}: cannot be written ({error.strerror})")
    for name in figures:
        print(shown(out / f"{name}.png"))


if __name__ == "__main__":
    common.run(main)
