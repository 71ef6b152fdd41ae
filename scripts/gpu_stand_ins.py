"""What gpu_check.py --dry runs where NVIDIA's programs and PyTorch are not: answers of the right form without meaning.

    gpu_stand_ins.py nvidia-smi|compute-sanitizer|torch-python3 ARGUMENT...
"""

import json
import os
import sys

CARD = {"name": "stand-in", "driver_version": "0.0", "compute_cap": "0.0", "memory.total": "1024", "memory.used": "0"}


def nvidia_smi(arguments):
    fields = next((word.partition("=")[2] for word in arguments if word.startswith("--query-gpu=")), "")
    print(", ".join(CARD.get(field, "[N/A]") for field in fields.split(",")) if fields else "CUDA Version: 0.0")


def compute_sanitizer(arguments):
    """Runs the program and finds nothing: --tool T --error-exitcode N PROGRAM ARGUMENT..."""
    while arguments and arguments[0].startswith("--"):
        del arguments[:1 if "=" in arguments[0] else 2]
    print("========= COMPUTE-SANITIZER", flush=True)
    code = os.spawnv(os.P_WAIT, arguments[0], arguments)
    print("========= ERROR SUMMARY: 0 errors", flush=True)
    return code


def parameters_of(s):
    """As torch_models.Transformer counts them, without the padding of the vocabulary."""
    gpt2 = s["family"] == "gpt2"
    queries, keys, C, F = s["NH"] * s["HD"], s["NKV"] * s["HD"], s["C"], s["F"]
    norm = 2 * C if gpt2 else C
    matrices = C * (queries + 2 * keys) + queries * C + (2 if gpt2 else 3) * C * F
    biases = queries + 2 * keys + C + F + C if gpt2 else 0
    tables = s["V"] * C * (1 if s["tied"] else 2) + (s["max_T"] * C if gpt2 else 0)
    return s["L"] * (matrices + biases + 2 * norm) + tables + norm


def torch_python(arguments):
    """python3 -c PROBE, or python3 torch_gpu.py SETTINGS."""
    if arguments[0] == "-c":
        print("2.0.0+stand-in", True)
        return
    s = json.loads(arguments[1])
    answer = {"torch": "2.0.0+stand-in"}
    if s["task"] == "train":
        answer |= {"parameters": parameters_of(s), "compile": "no", "losses": [9.0, 8.0], "attention": "STAND_IN",
                   "start_seconds": 0.0, "step_ms": [1.0] * 5, "peak_bytes": 1 << 20}
    elif s["task"] == "attention":
        answer |= {"ms": {shape["title"]: 1.0 for shape in s["shapes"]},
                   "backends": {shape["title"]: "STAND_IN" for shape in s["shapes"]}}
    print(json.dumps(answer))


if __name__ == "__main__":
    stand_in = {"nvidia-smi": nvidia_smi, "compute-sanitizer": compute_sanitizer, "torch-python3": torch_python}
    sys.exit(stand_in[sys.argv[1]](sys.argv[2:]))
