"""The PyTorch that the CPU benches compare with: dev/bench/requirements.txt in a virtual environment of its own.

    dev/bench/torch_venv.py            # makes build/torch-venv, or updates it; prints its Python
"""

import hashlib
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "torch-venv"
REQUIREMENTS = HERE / "requirements.txt"

# MKL chooses its AVX2 kernels where the processor is not Intel's, unless it is told otherwise by a library that answers
# for it. With it, its fp32 products are twice as fast on an AMD processor with AVX-512.
ANSWER = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def python():
    """The Python of the environment, which is made first if need be."""
    stamp, wanted = FOLDER / "requirements", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    inside = FOLDER / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"torch_venv: installing {REQUIREMENTS.name} into {FOLDER}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        subprocess.run([str(inside), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)], check=True)
        stamp.write_text(wanted)
    return str(inside)


def mkl_answer():
    """Path of that library, or None where there is no C compiler."""
    library = FOLDER / "mkl_answer.so"
    if not library.exists():
        compiler = os.environ.get("CC", "cc")
        done = subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=ANSWER,
                              text=True, check=False)
        if done.returncode != 0:
            return None
    return str(library)


if __name__ == "__main__":
    print(python())
