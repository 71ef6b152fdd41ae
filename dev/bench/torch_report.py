"""The tables of gpu_vs_torch.py, in Markdown."""

GIB = 2**30


def holds(value, target, at_most=False):
    return value <= target if at_most else value >= target


def cell(value, text):
    return text.format(value) if value is not None else ""


def judged(value, target, at_most=False):
    """A ratio, with its target and the verdict where there is one."""
    if value is None or target is None:
        return cell(value, "{:.2f}")
    return f"{value:.2f} ({target}) {'pass' if holds(value, target, at_most) else '**MISS**'}"


def side_cells(side):
    """Speed, MFU, memory; or why there are none."""
    if side is None:
        return ["", "", ""]
    if "error" in side:
        return [side["error"].replace("|", "/"), "", ""]
    peak = side["peak_bytes"]
    return [f"{side['tokens_per_second']:.0f}", cell(side["mfu"], "{:.1%}"), cell(peak and peak / GIB, "{:.2f}")]


def row_cells(row):
    return [row["shape"], row["label"], *side_cells(row["ours"]),
            judged(row["step_ratio"], row["step_target"], at_most=True), *side_cells(row["torch"]),
            judged(row["speed_ratio"], row["speed_target"])]


def attention_cells(row):
    heads = f"{row['heads']} of {row['head_size']}"
    if row["kv_heads"] != row["heads"]:
        heads += f", {row['kv_heads']} for keys and values"
    return [row["shape"], heads, cell(row["ours_ms"], "{:.3f}"), cell(row["torch_ms"], "{:.3f}"),
            row.get("backend") or "", judged(row["ratio"], row["target"])]


def table(head, alignment, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return [lines[0], "|" + "|".join(alignment) + "|", *lines[1:]]


def report(result):
    about = result["about"]
    speed = table(["shape", "level", "ours tok/s", "MFU", "GiB", "step over level 0's (target)", "PyTorch tok/s", "MFU",
                   "GiB", "ours over PyTorch (target)"],
                  ["---", "---", "---:", "---:", "---:", "---", "---:", "---:", "---:", "---"],
                  [row_cells(row) for row in result["rows"]])
    attention = table(["shape", "heads", "ours ms", "PyTorch's ms", "by", "times its speed (target)"],
                      ["---", "---", "---:", "---:", "---", "---"],
                      [attention_cells(row) for row in result["attention"]])
    notes = (f"{about['date']}, {about['card']}, driver {about['driver'] or 'none'}, {about['version']}, "
             f"{about['torch']}. bf16 with fp32 master weights on both sides; PyTorch with torch.compile, "
             "scaled_dot_product_attention and fused AdamW; level 1 against torch.utils.checkpoint around every block.")
    return "\n".join([*speed, "", "Attention of one layer, forward and backward:", "", *attention, "", notes, ""])
