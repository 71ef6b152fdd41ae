"""Our side alone, with other options: what they cost or save on a card. Parts of gpu_check.py, and their table."""

import dataclasses
from dataclasses import dataclass

import gpu_machine  # noqa: F401 (finds dev/bench)
from gpu_machine import NoTime
from gpu_parts import ONE_STEP, verdict

import torch_sides
from torch_report import cell, table
from torch_sides import Failed


@dataclass(frozen=True)
class Variant:
    key: str
    model: str
    options: tuple
    level: str = "none"
    B: int = 0            # 0: as gpu_vs_torch.py has the model
    T: int = 0
    against: str = ""     # the variant it is to be told beside; "" for the model as it is
    seconds: float = 10   # what it takes on an H100, about; figures that were not measured are guesses
    one_step: bool = False


LORA = ("--lora=16",)
VARIANTS = {variant.key: variant for variant in (
    Variant("no-fuse", "gpt2", ("--no-fuse",), seconds=5),
    Variant("timed-gemms", "gpt2", ("--gemm-algorithms=timed",), seconds=15),
    Variant("own-gemms", "gpt2", ("--gemm-algorithms=own",), seconds=8),
    Variant("own-gemms", "llama3.2-1b", ("--gemm-algorithms=own",), seconds=16),
    Variant("portable", "gpt2", ("--kernels=portable",), seconds=5),
    Variant("portable", "llama3.2-1b", ("--kernels=portable",), seconds=14),
    Variant("lora", "llama3.2-1b", LORA, B=4, T=2048),
    Variant("qlora", "llama3.2-1b", (*LORA, "--base-format=nf4"), B=4, T=2048, against="llama3.2-1b:lora"),
    Variant("tiles-131072", "llama3.2-1b", ("--tile-tokens=8192",), "offload", 1, 131072, "none", 45, True),
    Variant("tiles-262144", "llama3.2-1b", ("--tile-tokens=8192",), "offload", 1, 262144, "none", 100, True),
) for variant in [dataclasses.replace(variant, key=f"{variant.model}:{variant.key}")]}
DRY_TOKENS = 64


class Variants:
    def __init__(self, machine, speed):
        self.machine, self.speed = machine, speed

    def shape(self, variant):
        shape = self.speed.shape(variant.model)
        sizes = {"B": variant.B, "T": variant.T} if variant.B else {}
        if self.machine.dry:
            sizes = {"T": DRY_TOKENS} if variant.one_step else {}
        return dataclasses.replace(shape, options=variant.options, **sizes)

    def part(self, key, seconds):
        variant, ours = VARIANTS[key], self.speed.ours
        try:
            shape = self.shape(variant)
            run = ours.train(shape, variant.level, 0, seconds, ONE_STEP if variant.one_step else None)
        except Failed as failure:
            if str(failure) == torch_sides.NO_TIME:
                raise NoTime(str(failure)) from None
            return {"checks": [verdict("variants", key, "miss", str(failure))]}
        name = f"{shape.name} {variant.level}, {' '.join(variant.options)}"
        exact = run["peak_bytes"] == run["planned_bytes"]
        figure = f"{run['median_ms']:.2f} ms a step, {run['peak_bytes'] / 2**30:.2f} GiB"
        if not exact:
            figure = f"predicted {run['planned_bytes']}, allocated {run['peak_bytes']} bytes"
        return {"checks": [verdict("variants", f"{key}: allocated as predicted", "pass" if exact else "miss", figure)],
                "variant": {"name": name, "tokens": shape.B * shape.T, **run}}


def report(parts):
    """Lines of Markdown for {key: what a part has found}; each beside what it is a variant of, where that is known."""
    rows = []
    for key, variant in VARIANTS.items():
        run = parts.get(f"variants:{key}", {}).get("variant")
        if not run:
            continue
        base = (parts.get(f"variants:{variant.against}", {}).get("variant") if variant.against
                else parts.get(f"speed:{variant.model}:ours:{variant.level}", {}).get("run"))
        same = base and (variant.against or not variant.B)
        rows.append([run["name"], f"{run['median_ms']:.2f}", f"{run['tokens'] / run['median_ms'] * 1e3:.0f}",
                     f"{run['peak_bytes'] / 2**30:.2f}", cell(run["predicted_ms"], "{:.1f}"),
                     f"{run['median_ms'] / base['median_ms']:.3f}" if same else ""])
    if not rows:
        return []
    return ["", "With other options:", "", *table(
        ["variant", "ms a step", "tok/s", "GiB", "predicted ms", "times the step without"],
        ["---", "---:", "---:", "---:", "---:", "---:"], rows)]
