#!/usr/bin/env python3
"""Makes the tables of a sweep from its run folders: sweep.csv and sweep.md, the latter also on stdout.

    scripts/sweep_report.py FOLDER        (scripts/sweep.py does this at its end)

Memory, time and speed, predicted and measured, of every run; whether the loss curves that differ in nothing but the
level are equal bit for bit, repeats included. Times are medians over the steps of a run but the first two; of repeats
the table has the median and how far they spread. Exits with 1 if curves differ, 2 for bad usage.
"""
import argparse
import dataclasses
import itertools
import json
import os
import re
import statistics
import sys
import urllib.parse

sys.dont_write_bytecode = True
import common  # noqa: E402

COLUMNS = ("batch_size recompute run status steps predicted_bytes allocated_bytes peak_rss_bytes measured_bytes "
           "predicted_step_ms step_ms tokens_per_second overhead final_loss val_loss curve repeat same_plan_as setting "
           "version reason").split()
QUOTED = ("setting", "version", "reason")


@dataclasses.dataclass(frozen=True)
class Combination:
    """One run of a sweep."""
    batch_size: str
    level: str
    setting: tuple = ()  # (option, value), one of each --grid.
    repeat: int = 1

    def options(self):
        return [f"--{name}={value}" for name, value in self.setting]

    def words(self):
        return " ".join(f"{name}={value}" for name, value in self.setting)

    def folder(self):
        """Its name below the sweep's folder: no two have the same."""
        parts = [f"b{self.batch_size}", f"r{self.level}"]
        parts += [f"{name}={urllib.parse.quote(os.fsencode(value), safe='')}" for name, value in self.setting]
        return "-".join(parts + ([f"n{self.repeat}"] if self.repeat > 1 else []))


def combinations(batch_sizes, levels, grids, repeats):
    """All of them, in the order in which they are run; grids are (option, values)."""
    settings = itertools.product(*[[(name, value) for value in values] for name, values in grids])
    return [Combination(size, level, setting, repeat) for setting in settings for size in batch_sizes
            for level in levels for repeat in range(1, repeats + 1)]


def values(key, text):
    """The numbers of that key in JSON, by line, as they are written."""
    return re.findall(rf'"{key}": *([0-9][0-9.e+-]*|-[0-9.e+-]+)', text)


def last(key, text):
    return (values(key, text) or [""])[-1]


def recorded(folder):
    """What sweep.py noted of a run: {"status": "finished", ...}."""
    lines = common.read(os.path.join(folder, "sweep.txt")).split("\n")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def curve_of(metrics):
    """What must not depend on how a step is computed."""
    return re.sub(r',"step_ms".*', "", metrics)


def median(key, metrics):
    """Over the steps of the run but the first two, or its last if there are no others."""
    numbers = [float(value) for value in values(key, metrics)]
    if not numbers:
        return ""
    return f"{statistics.median(numbers[2:] or numbers[-1:]):.3f}"


def plan_of(text):
    """What a plan decides, without the name it was asked for by; None where there is none."""
    try:
        plans = json.loads(text)
    except ValueError:
        return None
    plan = plans["plans"][0] if isinstance(plans, dict) and plans.get("plans") else plans
    return [plan.get(key) for key in ("layers", "total_bytes")] if isinstance(plan, dict) else None


def row_of(out, combination, base_bytes):
    """A combination's values by column, and its curve; all are text, "" where there is nothing to tell."""
    name = combination.folder()
    folder = os.path.join(out, name)
    notes, plan = recorded(folder), common.read(os.path.join(folder, "plan.json"))
    row = dict.fromkeys(COLUMNS, "")
    row.update(batch_size=combination.batch_size, recompute=combination.level, run=name,
               setting=common.shown(combination.words()), repeat=str(combination.repeat), plan=plan_of(plan),
               status=notes.get("status", ""),
               predicted_bytes=last("total_bytes", plan), predicted_step_ms=last("predicted_step_ms", plan),
               peak_rss_bytes=notes.get("peak_rss_bytes", ""), version=notes.get("version", ""),
               reason=common.shown(notes.get("reason", "")))
    if row["peak_rss_bytes"] and base_bytes:
        row["measured_bytes"] = str(int(row["peak_rss_bytes"]) - int(base_bytes))
    if row["status"] != "finished":
        return row, None
    metrics = common.read(os.path.join(folder, "metrics.jsonl"))
    row.update(step_ms=median("step_ms", metrics), tokens_per_second=median("tokens_per_second", metrics),
               steps=last("step", metrics), final_loss=last("loss", metrics), val_loss=last("val_loss", metrics),
               allocated_bytes=last("memory_bytes", metrics))
    return row, curve_of(metrics)


def group_of(row):
    return row["setting"], row["batch_size"]


def compare(rows, curves):
    """Fills in curve, overhead and same_plan_as, and returns the lines that tell of them."""
    lines, first = [], {}
    for setting, size in dict.fromkeys(map(group_of, rows)):
        name = f"atch size {size}" + (f", {setting}" if setting else "")
        members = [(row, curve) for row, curve in zip(rows, curves) if group_of(row) == (setting, size)]
        group = [(row, curve) for row, curve in members if curve is not None]
        for row, curve in group:
            row["curve"] = "same" if curve == group[0][1] else "differs"

        def levels(word, group=group):
            return " ".join(dict.fromkeys(row["recompute"] for row, _ in group if row["curve"] == word))
        if levels("differs"):
            lines.append(f"- B{name}: the loss curves **DIFFER**: {levels('differs')} from {levels('same')}.")
        elif len(group) > 1:
            lines.append(f"- B{name}: the loss curves of {levels('same')} are equal bit for bit.")
        if group:
            losses = [float(loss) for loss in values("loss", group[0][1])]
            if setting not in first:
                first[setting] = size, losses
            else:
                most = max((abs(a - b) for a, b in zip(first[setting][1], losses)), default=0)
                lines.append(f"- Batch sizes {first[setting][0]} and {size}{', ' if setting else ''}{setting}: "
                             f"their losses differ by {most:.1e} at most.")
        add_overhead([row for row, _ in members])
        lines += same_plans([row for row, _ in members], "b" + name)
    return lines


def same_plans(rows, name):
    """Where the search came to a plan that another row has by name."""
    lines = []
    for row in rows:
        if row["recompute"] != "auto" or row["plan"] is None or row["repeat"] != "1":
            continue
        twin = next((other for other in rows if other["recompute"] != "auto" and other["plan"] == row["plan"]), None)
        if twin:
            row["same_plan_as"] = twin["run"]
            lines.append(f"- auto at {name} is the plan of {twin['recompute']}: the search found nothing faster that "
                         "fits.")
    return lines


def middle(rows, key):
    """The median of what repeats measured, as text."""
    found = [float(row[key]) for row in rows if row[key]]
    return str(statistics.median(found)) if found else ""


def spread(rows, key):
    """Half of what lies between the least and the most of several, in parts of their median."""
    found = [float(row[key]) for row in rows if row[key]]
    return (max(found) - min(found)) / 2 / statistics.median(found) if len(found) > 1 and max(found) > 0 else None


def by_repeats(rows):
    """The rows of each combination, as they differ in `repeat` alone."""
    groups = {}
    for row in rows:
        groups.setdefault((*group_of(row), row["recompute"]), []).append(row)
    return list(groups.values())


def add_overhead(rows):
    level0 = middle([row for row in rows if row["recompute"] in ("0", "none")], "step_ms")
    for row in rows:
        if row["step_ms"] and level0 and float(level0) > 0:
            row["exact_overhead"] = str(float(row["step_ms"]) / float(level0) - 1)
            row["overhead"] = f"{float(row['exact_overhead']):.4f}"


def over_seeds(rows, grids):
    """A table of final losses over the seeds of a sweep, one line for whatever else differs."""
    if not any(name == "seed" and len(seeds) > 1 for name, seeds in grids):
        return []
    groups = {}
    for row in rows:
        if row["status"] == "finished" and row["repeat"] == "1":
            others = " ".join(word for word in row["setting"].split(" ") if not word.startswith("seed="))
            key = row["batch_size"], row["recompute"], others
            groups.setdefault(key, []).append(float(row["val_loss"] or row["final_loss"]))
    lines = ["| batch size | recompute | setting | seeds | mean loss | standard deviation |",
             "|---:|---|---|---:|---:|---:|"]
    for (size, level, others), losses in groups.items():
        deviation = f"{statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        lines.append(f"| {size} | {level} | {others} | {len(losses)} | {statistics.mean(losses):.4f} | {deviation} |")
    return ["Over seeds (the last validation's loss, or the last step's where there was none):", "", *lines, ""]


def csv_of(rows):
    def quoted(text):
        return '"' + text.replace('"', '""') + '"' if text else ""
    lines = [",".join(quoted(row[key]) if key in QUOTED else row[key] for key in COLUMNS) for row in rows]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def table_of(rows, repeats):
    def written(text, form, factor=1):
        return form.format(float(text) * factor) if text else ""
    has_settings = any(row["setting"] for row in rows)
    has_validation = any(row["val_loss"] for row in rows)
    head = ["batch size", "recompute", *["setting"] * has_settings, "predicted MiB", "measured MiB", "predicted ms",
            "measured ms", *["±"] * (repeats > 1), "tokens/s", "over level 0", "final loss",
            *["validation"] * has_validation, "status"]
    texts = ("recompute", "setting", "status")
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' if name in texts else '---:' for name in head)}|"]
    for group in by_repeats(rows):
        row = group[0]
        beyond = spread(group, "step_ms")
        states = list(dict.fromkeys(member["status"] for member in group))
        overhead = middle([{"at": member.get("exact_overhead", "")} for member in group], "at")
        cells = [row["batch_size"], row["recompute"], *[row["setting"]] * has_settings,
                 written(row["predicted_bytes"], "{:.1f}", 2**-20),
                 written(middle(group, "measured_bytes"), "{:.1f}", 2**-20),
                 written(row["predicted_step_ms"], "{:.1f}"), written(middle(group, "step_ms"), "{:.1f}"),
                 *["" if beyond is None else f"{beyond:.1%}"] * (repeats > 1),
                 written(middle(group, "tokens_per_second"), "{:.0f}"), written(overhead, "{:+.1f} %", 100),
                 written(row["final_loss"], "{:.4f}"), *[written(row["val_loss"], "{:.4f}")] * has_validation,
                 ", ".join(states) + (", **DIFFERS**" if any(m["curve"] == "differs" for m in group) else "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def options_of(out):
    """The sweep's batch sizes, levels, grids and options, from sweep.options."""
    found = {"batch sizes": [], "levels": [], "grid": [], "repeats": [], "option": []}
    for line in common.read(os.path.join(out, "sweep.options")).split("\n"):
        key, _, value = line.partition(": ")
        if key == "grid":
            name, _, listed = value.partition("=")
            found[key].append((name, listed.split(",")))
        elif key in found:
            found[key] += [value] if key == "option" else value.split()
    return found


def report(out):
    """Writes both tables and prints one. Whether equal curves are equal."""
    options = options_of(out)
    if not options["batch sizes"]:
        common.fail(1, f"{out}: holds no sweep of scripts/sweep.py; name another folder")
    base_bytes = common.read(os.path.join(out, "base_bytes")).strip()
    repeats = int((options["repeats"] or ["1"])[0])
    found = [row_of(out, combination, base_bytes) for combination in
             combinations(options["batch sizes"], options["levels"], options["grid"], repeats)]
    rows = [row for row, _ in found]
    curves = compare(rows, [curve for _, curve in found])
    versions = ", ".join(sorted({row["version"] for row in rows if row["version"]}))
    with_options = "".join(f" `{common.shown(option)}`" for option in options["option"])
    over = ["batch size", "recompute level", *[name for name, _ in options["grid"]]]
    text = f"# Sweep over {', '.join(over[:-1])} and {over[-1]}\n\n{versions} with{with_options}.\n"
    if base_bytes:
        text += f"Measured memory: peak resident less {int(base_bytes) / 2**20:.1f} MiB for the program itself.\n"
    if repeats > 1:
        text += f"Times are medians of {repeats} runs each, ± half of what lies between the fastest and the slowest.\n"
    reasons = [f"- {row['run']}: {row['reason']}" for row in rows if row["reason"]]
    tables = [table_of(rows, repeats), "", *over_seeds(rows, options["grid"])]
    text += "\n".join(["", *tables, *curves, *reasons]) + "\n"
    common.write(os.path.join(out, "sweep.csv"), csv_of(rows))
    common.write(os.path.join(out, "sweep.md"), text)
    print(text, end="", flush=True)
    return not any("DIFFER" in line for line in curves)


def main():
    parser = common.Parser(prog="sweep_report.py", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="of scripts/sweep.py")
    out = parser.parse_args().folder
    if not report(out):
        common.fail(1, f"loss curves that must be equal differ; see {os.path.join(out, 'sweep.md')}")


if __name__ == "__main__":
    common.run(main)
