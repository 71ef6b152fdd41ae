"""What gpu_check.py tells: gpu_check.json as a whole, its Markdown, and how it compares with an earlier one."""

import json

import common
import gpu_machine  # noqa: F401 (finds dev/bench)
import gpu_variants

import torch_report
import torch_sides
from torch_report import cell, table

MOST_SLOWER = 1.03   # what is slower by more than this, on the same card, is a miss
LEAST_MS = 0.05      # operations that take less a step are not compared


def about_line(about):
    card = (f"{about.get('gpu') or 'no card'}, driver {about.get('driver') or 'none'} "
            f"(CUDA {about.get('cuda') or 'none'})")
    return f"{about.get('date')}, {card}, {about.get('version')}" + (", --dry: the figures mean nothing" * bool(
        about.get("dry")))


# ---- compared with an earlier one ----------------------------------------------------------------------------------

def load(path):
    """An earlier gpu_check.json, of this program or of the shell program before it."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        common.fail(2, f"--against={common.shown(path)}: {error.strerror}")
    try:
        earlier = json.loads(text)
        earlier["about"].get("gpu")
        compared_figures(earlier)
        return earlier
    except (ValueError, LookupError, TypeError, AttributeError):
        common.fail(2, f"--against={common.shown(path)}: is no gpu_check.json")


def compared_figures(result):
    """{what: (value, unit)} of everything that can be compared; less is better."""
    benchmarks = result.get("benchmarks") or {}
    figures = {}
    for row in benchmarks.get("rows") or []:
        ours = row.get("ours") or {}
        if ours.get("median_ms"):
            what = f"{row['shape']}, {row['level']}"
            figures[f"{what}: step"] = ours["median_ms"], "ms"
            figures[f"{what}: memory"] = ours["peak_bytes"] / 2**30, "GiB"
            for operation in operations_of(ours):
                if operation["ms"] >= LEAST_MS:
                    figures[f"{what}: {operation['name']}"] = operation["ms"], "ms"
    for row in benchmarks.get("attention") or []:
        if row.get("ours_ms"):
            figures[f"{row['shape']}: attention of a layer"] = row["ours_ms"], "ms"
    rate = (result.get("generate") or {}).get("tokens_per_second")
    if rate:
        figures["generation: a token"] = 1e3 / rate, "ms"
    return figures


def operations_of(side):
    return torch_sides.operations(((side.get("runs") or [{}])[0]).get("profile") or "")


def compare(result, earlier):
    """Rows [what, then, now, ratio], and the verdicts: of steps and memory alone, and only on the same card."""
    then, now = compared_figures(earlier), compared_figures(result)
    same = earlier["about"].get("gpu") == result["about"]["gpu"] and not result["about"]["dry"]
    rows, checks = [], []
    for what, (value, unit) in now.items():
        if what not in then or not then[what][0]:
            continue
        ratio = value / then[what][0]
        judged = what.endswith((": step", ": memory"))
        if judged or not 1 / MOST_SLOWER < ratio < MOST_SLOWER:
            rows.append([what, f"{then[what][0]:.3f} {unit}", f"{value:.3f} {unit}", f"{ratio:.3f}"])
        if judged:
            good = ratio <= MOST_SLOWER or not same
            checks.append({"step": "against", "name": what, "verdict": "pass" if good else "miss",
                           "figure": f"{ratio:.3f} times that of {earlier['about'].get('date')}"
                                     + ("" if same else ", another card")})
    known = {(check["step"], check["name"]): check["verdict"] for check in earlier.get("checks") or []}
    for check in result["checks"]:
        before = known.get((check["step"], check["name"]))
        if before in ("pass", "miss") and check["verdict"] in ("pass", "miss") and before != check["verdict"]:
            rows.append([f"{check['step']}: {check['name']}", before, check["verdict"], ""])
    return rows, checks


# ---- Markdown ------------------------------------------------------------------------------------------------------

def escaped(text):
    return common.shown(str(text)).replace("|", "/")


def markdown(result):
    about, benchmarks = result["about"], result["benchmarks"]
    lines = ["# train_gpt on a GPU", "",
             f"{about_line(about)}. Made by scripts/gpu_check.py in {result['seconds']} s.", ""]
    if benchmarks:
        shown = benchmarks | {"rows": [row for row in benchmarks["rows"] if row["ours"] or row["torch"]],
                              "about": {"date": about["date"], "card": about["gpu"] or "no card",
                                        "driver": about["driver"], "version": about["version"],
                                        "torch": benchmarks["about"]["torch"]}}
        lines += [torch_report.report(shown), *prediction(benchmarks), *roofline(benchmarks)]
    rate = (result["generate"] or {}).get("tokens_per_second")
    if rate:
        lines += ["", f"Generation with GPT-2 124M, one text: {rate:.0f} tokens/s."]
    lines += gpu_variants.report(result["parts"])
    lines += [*memory(result["memory"]), *against(result), *verdicts(result)]
    return "\n".join(lines) + "\n"


def prediction(benchmarks):
    rows = []
    for row in benchmarks["rows"]:
        runs = (row["ours"] or {}).get("runs")
        if runs and runs[0].get("predicted_ms"):
            predicted, measured = runs[0]["predicted_ms"], row["ours"]["median_ms"]
            rows.append([row["shape"], row["label"], f"{predicted:.1f}", f"{measured:.1f}",
                         f"{predicted / measured:.2f}"])
    if not rows:
        return []
    return ["", "Step time, predicted and measured:", "", *table(
        ["shape", "level", "predicted ms", "measured ms", "ratio"], ["---", "---", "---:", "---:", "---:"], rows)]


def roofline(benchmarks):
    lines = []
    for what, operations in benchmarks["operations"].items():
        is_long = "T=131072" in what
        if not operations or not (what.endswith(", none") or (what.endswith(", sqrt") and is_long)):
            continue
        lines += ["", f"Operations of one step, {what}:", "", *table(
            ["operation", "calls", "ms", "GB/s", "TFLOP/s", "of the roofline"],
            ["---", "---:", "---:", "---:", "---:", "---:"],
            [[row["name"], str(row["calls"]), f"{row['ms']:.3f}", cell(row["gbs"], "{:.0f}"),
              cell(row["tflops"], "{:.1f}"), cell(row["roofline"], "{:.0f} %")] for row in operations])]
    return lines


def memory(rows):
    if not rows:
        return []
    return ["", "Memory in MiB, GPT-2 124M, 4 x 1024 tokens, bf16; CUDA takes some itself beyond what is allocated "
            "(context, modules):", "", *table(
                ["level", "predicted", "allocated", "nvidia-smi, peak less before", "CUDA"],
                ["---", "---:", "---:", "---:", "---:"],
                [[row["level"], cell(row["predicted_bytes"] and row["predicted_bytes"] / 2**20, "{:.1f}"),
                  f"{row['memory_bytes'] / 2**20:.1f}",
                  str(row["nvidia_smi_peak_mib"] - row["nvidia_smi_before_mib"]) if row["nvidia_smi_peak_mib"] else "",
                  cell(row["overhead_mib"], "{:.1f}")] for row in rows])]


def against(result):
    if not result["against"]:
        return []
    return ["", f"Against {escaped(result['against']['about'])}:", "", *table(
        ["what", "then", "now", "ratio"], ["---", "---:", "---:", "---:"],
        [[escaped(text) for text in row] for row in result["against"]["rows"]])]


def verdicts(result):
    rows = [[check["step"], escaped(check["name"]), {"miss": "**MISS**"}.get(check["verdict"], check["verdict"]),
             escaped(check["figure"])] for check in result["checks"]]
    left = [] if not result["left_out"] else ["", "Left out for want of time: " + ", ".join(result["left_out"]) + "."]
    return ["", *table(["step", "check", "verdict", "figure"], ["---"] * 4, rows), *left]
