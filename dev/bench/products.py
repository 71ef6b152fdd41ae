#!/usr/bin/env python3
"""Our matrix products on the CPU beside those of MKL and the newest oneDNN (through PyTorch), OpenBLAS and BLIS.

    dev/bench/products.py                       # all shapes of gpt2-mini, llama-mini and 124M; some minutes
    dev/bench/products.py --shapes=mini_fc,gpt2_fc --rounds=3

One thread, by its processor time: what else runs on the machine takes caches and memory from all alike. Every library
is a process of its own; they take turns, and what counts is the median over the rounds of each one's median. Prints
GFLOP/s and, for our row of the table (--cpu-products=auto), the ratio to the best of all; our other rows, "library"
(oneDNN 2.6 in our blocks) among them, are shown beside. Needs build/release/bench/products (make bench makes it).
OpenBLAS and BLIS are compared where their libraries are installed (libopenblas0-openmp, libblis4-openmp).
"""

import argparse
import ctypes
import ctypes.util
import glob
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import torch_venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = 0.95
SHAPES = {"mini_qkv": (3072, 1152, 384), "mini_proj": (3072, 384, 384), "mini_fc": (3072, 1536, 384),
          "mini_fcproj": (3072, 384, 1536), "llama_qkv": (3072, 640, 384), "llama_fc": (3072, 2048, 384),
          "llama_fcproj": (3072, 384, 1024), "gpt2_qkv": (1024, 2304, 768), "gpt2_proj": (1024, 768, 768),
          "gpt2_fc": (1024, 3072, 768), "gpt2_fcproj": (1024, 768, 3072), "gpt2_head": (256, 50304, 768)}
OPERATIONS = ("forward", "input", "weight")


def cpu_field(name):
    with open("/proc/cpuinfo") as cpuinfo:
        return next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith(name)), "")


def ours(program, seconds, shapes):
    """{(shape, operation, type, row): seconds}, and the name of the row for this processor."""
    done = subprocess.run([program, str(seconds), ",".join(shapes)], stdout=subprocess.PIPE, text=True, check=True)
    return {tuple(line.split()[:4]): float(line.split()[4]) for line in done.stdout.splitlines()}


def torch_products(python, seconds, shapes, dtype, extra):
    settings = {"task": "products", "shapes": [SHAPES[name] for name in shapes], "dtype": dtype, "seconds": seconds}
    done = subprocess.run([python, str(HERE / "torch_cpu.py"), json.dumps(settings)], stdout=subprocess.PIPE,
                          check=True, env={**os.environ, "OMP_NUM_THREADS": "1", **extra})
    times = json.loads(done.stdout)["seconds"]
    return {(name, operation): times[i][operation] for i, name in enumerate(shapes) for operation in OPERATIONS}


def blas_worker(library, seconds, shapes):
    """In a process of its own: sgemm of a BLAS library, as OPERATIONS."""
    import numpy  # pylint: disable=import-outside-toplevel
    sgemm = ctypes.CDLL(library).cblas_sgemm
    row_major, plain, transposed = 101, 111, 112
    one, pointer = ctypes.c_float(1), ctypes.POINTER(ctypes.c_float)

    def multiply(transpose, m, n, k, a, b, c):
        at = [x.ctypes.data_as(pointer) for x in (a, b, c)]
        kinds = [transposed if t else plain for t in transpose]
        leading = [m if transpose[0] else k, k if transpose[1] else n]
        sgemm(row_major, *kinds, m, n, k, one, at[0], leading[0], at[1], leading[1], ctypes.c_float(0), at[2], n)

    result = {}
    for name in shapes:
        N, OC, IC = SHAPES[name]
        x, w, dy, out, dx, dw = (numpy.random.rand(*shape).astype(numpy.float32)
                                 for shape in ((N, IC), (OC, IC), (N, OC), (N, OC), (N, IC), (OC, IC)))
        runs = {"forward": lambda: multiply((0, 1), N, OC, IC, x, w, out),
                "input": lambda: multiply((0, 0), N, IC, OC, dy, w, dx),
                "weight": lambda: multiply((1, 0), OC, IC, N, dy, x, dw)}
        for operation, run in runs.items():
            run()
            times, end = [], time.perf_counter() + seconds
            while len(times) < 5 or time.perf_counter() < end:
                start = time.thread_time()
                run()
                times.append(time.thread_time() - start)
            result[f"{name} {operation}"] = statistics.median(times)
    print(json.dumps(result))


def blas_products(python, library, seconds, shapes):
    extra = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "BLIS_NUM_THREADS": "1"}
    if "avx512f" in cpu_field("flags"):
        extra["OPENBLAS_CORETYPE"] = "SkylakeX"  # An OpenBLAS older than the processor falls back to one without.
    command = [python, __file__, "--blas", library, "--seconds", str(seconds), "--shapes", ",".join(shapes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **extra})
    return {tuple(key.split()): value for key, value in json.loads(done.stdout).items()}


def blas_libraries():
    found = {}
    for name, pattern in (("OpenBLAS", "openblas-openmp/libopenblas.so.0"), ("BLIS", "blis-openmp/libblis.so.?")):
        for library in sorted(glob.glob(f"/usr/lib/*/{pattern}"))[:1]:
            found[name] = library
    return found


def measure(args, shapes):
    """{(shape, operation, type): {who: median seconds over the rounds}}, types fp32 and bf16."""
    python, answer = args.python or torch_venv.python(), torch_venv.mkl_answer()
    peers = {("MKL", "fp32"): {}, ("oneDNN 3", "bf16"): {}}
    if answer and "avx512f" in cpu_field("flags") and "Intel" not in cpu_field("model name"):
        peers["MKL told Intel", "fp32"] = {"LD_PRELOAD": answer}
    times = {}

    def note(key, who, seconds):
        times.setdefault(key, {}).setdefault(who, []).append(seconds)

    for number in range(args.rounds):
        for (shape, operation, dtype, row), seconds in ours(args.program, args.seconds, shapes).items():
            note((shape, operation, dtype), f"ours {row}", seconds)
        for (who, dtype), extra in peers.items():
            if dtype == "bf16" and "avx512_bf16" not in cpu_field("flags"):
                continue
            for (shape, operation), seconds in torch_products(python, args.seconds, shapes, dtype, extra).items():
                note((shape, operation, dtype), who, seconds)
        for who, library in blas_libraries().items():
            for (shape, operation), seconds in blas_products(python, library, args.seconds, shapes).items():
                note((shape, operation, "fp32"), who, seconds)
        print(f"products: round {number + 1} of {args.rounds} done", file=sys.stderr)
    return {key: {who: statistics.median(runs) for who, runs in rows.items()} for key, rows in times.items()}


def report(times, row):
    """Lines of the table, and how many products miss the target."""
    columns = list(dict.fromkeys(who for of in times.values() for who in of))
    lines = ["| product | type | " + " | ".join(columns) + f" | {row} to the best |",
             "|---|---|" + "---:|" * len(columns) + "---|"]
    missed = 0
    for (shape, operation, dtype), rows in times.items():
        N, OC, IC = SHAPES[shape]
        rates = {who: 2e-9 * N * OC * IC / seconds for who, seconds in rows.items()}
        best = max(rates.values())
        if dtype == "bf16":  # Or of fp32 numbers, if those are faster.
            best = max(best, *(2e-9 * N * OC * IC / s for s in times[shape, operation, "fp32"].values()))
        ratio = rates[f"ours {row}"] / best
        missed += ratio < TARGET
        shown = " | ".join(f"{rates[who]:.0f}" if who in rates else "" for who in columns)
        lines.append(f"| {shape} {operation} {N} x {OC} x {IC} | {dtype} | {shown} | {ratio:.2f}"
                     f"{' **miss**' if ratio < TARGET else ''} |")
    return lines, missed


def usual_row(binary):
    """What --cpu-products=auto is here, as the banner says."""
    done = subprocess.run([binary, "--dry-run", "--device=cpu", f"--data={HERE.parent.parent / 'README.md'}"],
                          stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=True)
    return re.search(r"matrix products (\S+)", done.stderr).group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="per product and round, default: %(default)s")
    parser.add_argument("--program", default=str(ROOT / "build/release/bench/products"))
    parser.add_argument("--python", help="one with torch; default: dev/bench/requirements.txt, installed for it")
    parser.add_argument("--output", type=pathlib.Path, help="also write the table to this file")
    parser.add_argument("--blas", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shapes = args.shapes.split(",")
    if unknown := [name for name in shapes if name not in SHAPES]:
        parser.error(f"--shapes: {', '.join(unknown)}: choose from {', '.join(SHAPES)}")
    if args.blas:
        return blas_worker(args.blas, args.seconds, shapes)
    if not os.access(args.program, os.X_OK):
        sys.exit(f"products: no {args.program}; make {os.path.relpath(ROOT / 'build/release/bench/products', ROOT)}")
    load, row = os.getloadavg()[0], usual_row(os.environ.get("TRAIN_GPT", ROOT / "train_gpt"))
    lines, missed = report(measure(args, shapes), row)
    text = "\n".join(["# Matrix products on the CPU", "",
                      f"GFLOP/s of one thread on {cpu_field('model name')} (family {cpu_field('cpu family')}), medians "
                      f"of {args.rounds} rounds by processor time; load of the machine at the beginning {load:.1f}. "
                      "Made by `dev/bench/products.py`.", "", *lines, ""])
    print(text)
    if args.output:
        args.output.write_text(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
