#!/usr/bin/env python3
"""Makes the tables of a sweep from its run folders: sweep.csv and sweep.md, the latter also on stdout.

    scripts/sweep_report.py FOLDER        (scripts/sweep.py does this at its end)

Memory, time and speed, predicted and measured, of every run; whether the loss curves of a batch size are equal bit for
bit. Times are medians over the steps of a run but the first two. Exits with 1 if curves differ, 2 for bad usage.
"""
import argparse
import os
import re
import statistics
import sys

sys.dont_write_bytecode = True
import common  # noqa: E402

COLUMNS = ("batch_size recompute run status steps predicted_bytes allocated_bytes peak_rss_bytes measured_bytes "
           "predicted_step_ms step_ms tokens_per_second overhead final_loss curve version reason").split()
QUOTED = ("version", "reason")


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


def row_of(out, batch_size, level, base_bytes):
    """A combination's values by column, and its curve; all are text, "" where there is nothing to tell."""
    name = f"b{batch_size}-r{level}"
    folder = os.path.join(out, name)
    notes, plan = recorded(folder), common.read(os.path.join(folder, "plan.json"))
    row = dict.fromkeys(COLUMNS, "")
    row.update(batch_size=batch_size, recompute=level, run=name, status=notes.get("status", ""),
               predicted_bytes=last("total_bytes", plan), predicted_step_ms=last("predicted_step_ms", plan),
               peak_rss_bytes=notes.get("peak_rss_bytes", ""), version=notes.get("version", ""),
               reason=common.shown(notes.get("reason", "")))
    if row["peak_rss_bytes"] and base_bytes:
        row["measured_bytes"] = str(int(row["peak_rss_bytes"]) - int(base_bytes))
    if row["status"] != "finished":
        return row, None
    metrics = common.read(os.path.join(folder, "metrics.jsonl"))
    row.update(step_ms=median("step_ms", metrics), tokens_per_second=median("tokens_per_second", metrics),
               steps=last("step", metrics), final_loss=last("loss", metrics),
               allocated_bytes=last("memory_bytes", metrics))
    return row, curve_of(metrics)


def compare(rows, curves):
    """Fills in curve and overhead, and returns the lines that tell of curves."""
    lines, first = [], None
    for size in dict.fromkeys(row["batch_size"] for row in rows):
        group = [(row, curve) for row, curve in zip(rows, curves) if row["batch_size"] == size and curve is not None]
        for row, curve in group:
            row["curve"] = "same" if curve == group[0][1] else "differs"
        same = " ".join(row["recompute"] for row, _ in group if row["curve"] == "same")
        other = " ".join(row["recompute"] for row, _ in group if row["curve"] == "differs")
        if other:
            lines.append(f"- Batch size {size}: the loss curves **DIFFER**: {other} from {same}.")
        elif len(group) > 1:
            lines.append(f"- Batch size {size}: the loss curves of {same} are equal bit for bit.")
        if group:
            losses = [float(loss) for loss in values("loss", group[0][1])]
            if first is None:
                first = size, losses
            else:
                most = max((abs(a - b) for a, b in zip(first[1], losses)), default=0)
                lines.append(f"- Batch sizes {first[0]} and {size}: their losses differ by {most:.1e} at most.")
        add_overhead([row for row in rows if row["batch_size"] == size])
    return lines


def add_overhead(rows):
    level0 = [float(row["step_ms"]) for row in rows if row["recompute"] in ("0", "none") and row["step_ms"]]
    for row in rows:
        if row["step_ms"] and level0 and level0[-1] > 0:
            row["exact_overhead"] = str(float(row["step_ms"]) / level0[-1] - 1)
            row["overhead"] = f"{float(row['exact_overhead']):.4f}"


def csv_of(rows):
    def quoted(text):
        return '"' + text.replace('"', '""') + '"' if text else ""
    lines = [",".join(quoted(row[key]) if key in QUOTED else row[key] for key in COLUMNS) for row in rows]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def table_of(rows):
    def written(text, form, factor=1):
        return form.format(float(text) * factor) if text else ""
    lines = ["| batch size | recompute | predicted MiB | measured MiB | predicted ms | measured ms | tokens/s "
             "| over level 0 | final loss | status |", "|---:|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        cells = [row["batch_size"], row["recompute"], written(row["predicted_bytes"], "{:.1f}", 2**-20),
                 written(row["measured_bytes"], "{:.1f}", 2**-20), written(row["predicted_step_ms"], "{:.1f}"),
                 written(row["step_ms"], "{:.1f}"), written(row["tokens_per_second"], "{:.0f}"),
                 written(row.get("exact_overhead"), "{:+.1f} %", 100), written(row["final_loss"], "{:.4f}"),
                 row["status"] + (", **DIFFERS**" if row["curve"] == "differs" else "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def options_of(out):
    """The sweep's batch sizes, levels and options, from sweep.options."""
    found = {"batch sizes": [], "levels": [], "option": []}
    for line in common.read(os.path.join(out, "sweep.options")).split("\n"):
        key, _, value = line.partition(": ")
        if key in found:
            found[key] += [value] if key == "option" else value.split()
    return found


def report(out):
    """Writes both tables and prints one. Whether equal curves are equal."""
    options = options_of(out)
    if not options["batch sizes"]:
        common.fail(1, f"{out}: holds no sweep of scripts/sweep.py; name another folder")
    base_bytes = common.read(os.path.join(out, "base_bytes")).strip()
    found = [row_of(out, size, level, base_bytes) for size in options["batch sizes"] for level in options["levels"]]
    rows = [row for row, _ in found]
    curves = compare(rows, [curve for _, curve in found])
    versions = ", ".join(sorted({row["version"] for row in rows if row["version"]}))
    with_options = "".join(f" `{common.shown(option)}`" for option in options["option"])
    text = f"# Sweep over batch size and recompute level\n\n{versions} with{with_options}.\n"
    if base_bytes:
        text += f"Measured memory: peak resident less {int(base_bytes) / 2**20:.1f} MiB for the program itself.\n"
    reasons = [f"- {row['run']}: {row['reason']}" for row in rows if row["reason"]]
    text += "\n".join(["", table_of(rows), "", *curves, *reasons]) + "\n"
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
