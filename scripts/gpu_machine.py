"""What gpu_check.py runs on: the card, as nvidia-smi sees it, our programs with the libraries that the loader misses,
and ways to run them that leave nothing running."""

import contextlib
import glob
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import time

import common

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "dev", "bench"))
import processes  # noqa: E402


class NoTime(Exception):
    """It would have needed more time than was left."""


def executable(path):
    return os.path.isfile(path) and os.access(path, os.X_OK)


def first_program(named, *paths):
    """The real path of the first that can be run; "" if none can. One that the user has named must be there."""
    if named and not executable(named):
        common.fail(2, f"{named}: cannot be run; name another, or none")
    return next((os.path.realpath(path) for path in (named, *paths) if path and executable(path)), "")


def output_of(command, **options):
    """Of a quick program; "" where it fails or is not there."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = processes.run(command, 60, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)
        return done.stdout if done.returncode == 0 else ""
    return ""


def last_line(text, otherwise=""):
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), otherwise)


class Machine:
    """`dry`: programs of the executor, or those for the CPU, and stand-ins for NVIDIA's. `folder` is for what is
    scratch, `log` a file to which everything that programs say is added."""

    def __init__(self, dry, folder, log):
        self.dry, self.folder, self.log = dry, folder, log
        self.environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "LC_ALL": "C"}  # nvidia-smi's order
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        build = os.path.join(ROOT, "build", "release")
        emulated = os.path.join(build, "train_gpt_cuda_on_cpu")
        plain = [os.path.join(ROOT, "train_gpt"), os.path.join(build, "train_gpt")]
        self.binary = first_program(os.environ.get("TRAIN_GPT"), *([emulated] if dry else []), *plain)
        if not self.binary:
            common.fail(2, f"no {plain[0]}; run make, or take the package of make dist")
        self.tests = first_program(os.environ.get("GPU_TESTS"), *[os.path.join(build, "cuda_tests")] if dry else (
            os.path.join(ROOT, "bin", "gpu_tests"), os.path.join(build, "gpu_tests")))
        self.device = "cpu" if dry and not self.binary.endswith("_cuda_on_cpu") else "cuda"
        if dry:
            self._stand_in()
        homes = (os.environ.get("CUDA_HOME", ""), "/usr/local/cuda")
        self.sanitizer = self._which("compute-sanitizer") or first_program("", *(
            os.path.join(home, "bin", "compute-sanitizer") for home in homes))
        python = os.environ.get("PYTHON", "")
        self.python = self._which(python or "torch-python3") if python or dry else sys.executable
        if python and not self.python:
            common.fail(2, f"PYTHON={python}: there is no such program")
        self.smi = self._which("nvidia-smi")
        if not self.smi:
            common.fail(2, "no nvidia-smi here: this needs a machine with an NVIDIA card and its driver (--dry needs "
                           "none)")
        self._libraries()

    def _which(self, name):
        return shutil.which(name, path=self.environment.get("PATH")) or ""

    def _stand_in(self):
        """Programs of NVIDIA's and a Python with PyTorch, where they are not here, that do as if."""
        script = os.path.join(ROOT, "scripts", "gpu_stand_ins.py")
        folder = os.path.join(self.folder, "stand-ins")
        os.mkdir(folder)
        for name in ("nvidia-smi", "compute-sanitizer", "torch-python3"):
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(b"#!/bin/sh\nexec " + b" ".join(
                    quoted(word) for word in (sys.executable, "-S", script, name)) + b' "$@"\n')
            os.chmod(path, 0o755)
        # After the others: what is here is used.
        self.environment["PATH"] = os.pathsep.join([self.environment.get("PATH", os.defpath), folder])

    # ---- libraries ------------------------------------------------------------------------------------------------

    def _libraries(self):
        """Those that the loader misses are looked for in Python's nvidia packages and CUDA's folders. Only for our
        programs: PyTorch brings its own. Leaves `library_path` and, of what was not found, `missing`."""
        self.library_path, self.ours = "", dict(self.environment)
        self.missing = self._missing()
        if not self.missing:
            return
        folders = [folder for folder in self._library_folders()
                   if any(os.path.exists(os.path.join(folder, library)) for library in self.missing)]
        self.library_path = ":".join(dict.fromkeys(folders))
        if self.library_path:
            before = self.environment.get("LD_LIBRARY_PATH", "")
            self.ours["LD_LIBRARY_PATH"] = self.library_path + (":" + before if before else "")
            self.missing = self._missing()

    def _missing(self):
        """What ldd misses, and what the programs open by name when they first need it."""
        missing = set()
        for program in filter(None, (self.binary, self.tests)):
            said = output_of(["ldd", program], env=self.ours)
            missing |= set(re.findall(r"(\S+) => not found", said))
        if self.device == "cuda" and not self.dry:
            known = output_of(["ldconfig", "-p"], env=self.ours)
            folders = self.ours.get("LD_LIBRARY_PATH", "").split(":")
            with open(self.binary, "rb") as file:
                opened = {name.decode() for name in re.findall(rb"lib(?:cublasLt|nccl)\.so\.\d+", file.read())}
            missing |= {name for name in opened if name not in known and
                        not any(folder and os.path.exists(os.path.join(folder, name)) for folder in folders)}
        return sorted(missing)

    def _library_folders(self):
        said = output_of([self.python, "-c", "import sys; print(*sys.path, sep='\\n')"], env=self.environment)
        patterns = [glob.escape(path) + "/nvidia/*/lib" for path in said.splitlines() if path]
        home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
        patterns += [glob.escape(home) + "/lib64", "/usr/local/cuda*/lib64", "/usr/local/cuda*/lib",
                     "/usr/local/cuda*/targets/*/lib"]
        return [folder for pattern in patterns for folder in sorted(glob.glob(pattern))]

    # ---- asking and running ----------------------------------------------------------------------------------------

    def card(self, field):
        """What nvidia-smi says of the first visible card; "" if it does not."""
        index = self.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
        said = output_of([self.smi, f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", index],
                         env=self.environment)
        answer = said.splitlines()[0].strip() if said else ""
        return "" if re.search(r"n/a|not supported|error|not a valid", answer, re.IGNORECASE) else answer

    def used_mib(self):
        used = self.card("memory.used")
        return int(used) if used.isdigit() else 0

    def describe(self):
        fields = ("compute_cap memory.total memory.used clocks.max.sm clocks.max.memory clocks.sm power.limit "
                  "temperature.gpu mig.mode.current ecc.mode.current").split()
        cuda = re.search(r"CUDA Version: *([0-9.]+)", output_of([self.smi], env=self.environment))
        with open(self.binary, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()[:16]
        return {"date": time.strftime("%Y-%m-%d"), "gpu": self.card("name"), "driver": self.card("driver_version"),
                "cuda": cuda[1] if cuda else "",
                "version": output_of([self.binary, "--version"], env=self.ours).partition("\n")[0],
                "binary": digest, "dry": self.dry, **{field: self.card(field) for field in fields}}

    def run(self, command, seconds, name):
        """(exit code, what it said) of one of our programs; its output is logged under the name. NoTime if it did not
        end: what it said is the exception's argument."""
        path = os.path.join(self.folder, "said")
        with open(path, "wb") as file:
            try:
                code = processes.run(command, max(seconds, 0.1), stdout=file, stderr=file, env=self.ours).returncode
            except subprocess.TimeoutExpired:
                code = None
            except OSError as error:
                code = 127
                file.write(os.fsencode(f"{command[0]}: {error.strerror}"))
        said = common.read(path)
        self.note(f"==== {name}\n{said}")
        if code is None:
            raise NoTime(said)
        return code, said

    def note(self, text):
        with open(self.log, "ab") as file:
            file.write(os.fsencode(text) + b"\n")

    def wrapper(self):
        """A program that is train_gpt with the libraries it needs, for those who start it themselves."""
        path = os.path.join(self.folder, "train_gpt")
        with open(path, "wb") as file:
            libraries = [b"LD_LIBRARY_PATH=" + quoted(self.ours["LD_LIBRARY_PATH"])] if self.library_path else []
            file.write(b"#!/bin/sh\n" + b" ".join([b"exec env", *libraries, quoted(self.binary)]) + b' "$@"\n')
        os.chmod(path, stat.S_IRWXU)
        return path


def quoted(word):
    """A word for a shell, as bytes."""
    return b"'" + os.fsencode(word).replace(b"'", b"'\\''") + b"'"
