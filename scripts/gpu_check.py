#!/usr/bin/env python3
"""Everything that only an NVIDIA card can show, in one run: whether it is right (tests on the card, compute-sanitizer,
equal bits at every --recompute level, predicted against real memory), then how fast it is, beside PyTorch.

  scripts/gpu_check.py [--minutes=N] [--out=FOLDER] [--against=FILE]

  --minutes=N      time for this call; what is most important comes first, what was left out is said (no limit)
  --out=FOLDER     for results (gpu_check beside train_gpt); a second call with the same one goes on where this stopped
  --again          forget what an earlier call found in that folder (with --only: of those)
  --only=A,B       only these: tests, bits, sanitizer, speed, attention, long, generate, variants, again; or one part,
                   as speed:gpt2
  --against=FILE   compare with an earlier gpu_check.json; on the same card, more than 3 % slower or larger is a miss
  --dry            test this script where there is no card: tiny models on the executor of make test, or on the CPU,
                   stand-ins for NVIDIA's programs and PyTorch; the figures mean nothing
  --list           the parts in their order, with the seconds they take on an H100; nothing is run

Runs from a source tree (after make and make build/release/gpu_tests) or from the package that make dist makes, on a
card that nothing else uses; nine minutes are enough on an H100 for all but the variants. Measured are GPT-2 124M
32 x 1024, gpt2-xl 8 x 1024, llama3.2-1b 4 x 4096 at levels 0, 1, 2, auto and offload, each operation against the
roofline, PyTorch with torch.compile and scaled_dot_product_attention, llama3.2-1b with 131,072 tokens at level 2,
generation, and variants of our side: nothing fused, timed algorithms of cuBLASLt, the portable kernels, LoRA, QLoRA,
tiles at 131,072 and 262,144 tokens.

Prints a table; writes gpu_check.json, gpu_check.md (with the tables for the README), profiles.txt and log.txt to
FOLDER, after every part, each whole or not at all. Exits with 1 if anything failed or missed its target (what was left
out has not), 2 for bad usage.

The benchmarks want a Python with PyTorch 2 ($PYTHON, or the one that runs this); without it only our side is measured.
CUDA's libraries are looked for in Python's nvidia packages and /usr/local/cuda* too. CUDA_VISIBLE_DEVICES chooses the
card. $TRAIN_GPT and $GPU_TESTS name other programs, $SANITIZER_FILTER other tests for the sanitizers.

Read next: gpu_parts.py (what is checked and measured), dev/bench/gpu_vs_torch.py (the benchmarks), gpu_report.py.
"""
import json
import os
import re
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import common  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_report  # noqa: E402
import gpu_variants  # noqa: E402
from common import fail, say, shown  # noqa: E402
from gpu_machine import ROOT, Machine, NoTime  # noqa: E402
from gpu_parts import Part, verdict  # noqa: E402

STAGES = ("tests", "bits", "sanitizer", "speed", "attention", "long", "generate", "variants", "again")
LEVELS = ("none", "layer", "sqrt", "act", "attn", "offload", "auto")
# What measurements take on an H100, and at most.
SECONDS = {"ours": {"gpt2": (4, 90), "gpt2-xl": (12, 90), "llama3.2-1b": (14, 90)},
           "torch": {"gpt2": (34, 180), "gpt2-xl": (41, 180), "llama3.2-1b": (40, 180)}}
LONG_SECONDS = 40, 120


# ---- the command line ----------------------------------------------------------------------------------------------

def parse(arguments):
    parser = common.Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--minutes", default="")
    parser.add_argument("--out", default=os.path.join(ROOT, "gpu_check"))
    parser.add_argument("--only", default="")
    parser.add_argument("--against", default="")
    for flag in ("--again", "--dry", "--list"):
        parser.add_argument(flag, action="store_true")
    if "-h" in arguments or "--help" in arguments:
        print(__doc__, end="")
        sys.exit(0)
    request = parser.parse_args(joined(arguments))
    if request.minutes and not (re.fullmatch(r"\d*\.?\d+|\d+\.", request.minutes) and float(request.minutes) > 0):
        fail(2, f"--minutes={shown(request.minutes)}: must be a number of minutes above 0")
    request.seconds = 60 * float(request.minutes) if request.minutes else float("inf")
    request.only = [word for word in request.only.split(",") if word]
    for word in request.only:
        if not any(chosen(part.key, [word]) for part in listed(None, None, None, None, None, {})):
            fail(2, f"--only={shown(word)}: choose from {', '.join(STAGES)}, or a part that --list shows")
    if not request.out:
        fail(2, "--out: name a folder; see --help")
    return request


def joined(arguments):
    """--out FOLDER as --out=FOLDER, so that names may begin with a dash."""
    words, result = list(arguments), []
    while words:
        word = words.pop(0)
        if word in ("--out", "--minutes", "--only", "--against"):
            if not words:
                fail(2, f"{word}: wants a value; see --help")
            word += "=" + words.pop(0)
        result.append(word)
    return result


def chosen(key, words):
    """Whether a part is one of these, or of these stages."""
    return any(key == word or key.startswith(word + ":") for word in words)


# ---- the parts, the most important first ---------------------------------------------------------------------------

def listed(tests, levels, generation, speed, variants, found):
    """All parts. Without their makers, only to be listed."""
    def curve():
        return next((found[key]["curve"] for key in (f"bits:{level}" for level in LEVELS)
                     if "curve" in found.get(key, {})), "")

    parts = [Part("tests", 30, 150, lambda seconds: tests.tests(seconds))]
    parts += [Part(f"bits:{level}", 4, 60, lambda seconds, level=level: levels.part(level, curve(), seconds))
              for level in LEVELS]
    parts += [Part(f"sanitizer:{tool}", 20, 60, lambda seconds, tool=tool: tests.sanitizer(tool, seconds))
              for tool in gpu_parts.TOOLS]

    def measurement(key):
        stage, model, side, setting = key.split(":")
        took, most = LONG_SECONDS if stage == "long" else SECONDS[side][model]
        return Part(key, took, most, lambda seconds: speed.measure(model, side, setting, seconds, stage == "long"))

    for key in gpu_parts.measurements():
        if key == "speed:gpt2-xl:ours:none":
            parts.append(Part("attention", 10, 90, lambda seconds: speed.attention(seconds)))
        if key == "speed:gpt2:torch:checkpointed":
            parts.append(Part("generate", 15, 60, lambda seconds: generation.part(seconds)))
        if key == gpu_parts.AGAIN:
            parts += [Part(f"variants:{name}", variant.seconds, 3 * variant.seconds + 60,
                           lambda seconds, name=name: variants.part(name, seconds))
                      for name, variant in gpu_variants.VARIANTS.items()]
        parts.append(measurement(key))
    return parts


# ---- what is found, kept in gpu_check.json -------------------------------------------------------------------------

class Results:
    """`found`: what every part that was done has found, in this call or an earlier one."""

    def __init__(self, folder, about, again, only):
        self.path, self.about = os.path.join(folder, "gpu_check.json"), about
        self.found, self.seconds, self.left_out = {}, 0, []
        earlier = None if again and not only else self._read(again)
        if earlier:
            self.found = {key: found for key, found in earlier["parts"].items() if not again or not chosen(key, only)}
            self.seconds = earlier["seconds"]

    def _read(self, again):
        """What an earlier call has left; None if nothing, or `again` and it cannot be continued."""
        text = common.read(self.path)
        if not text:
            return None
        try:
            earlier = json.loads(text)
            known = {key: earlier["about"][key] for key in ("gpu", "binary", "dry")}
            if not isinstance(earlier["parts"], dict) or not isinstance(earlier["seconds"], int):
                raise TypeError
            why = next((why for key, why in (
                ("dry", "its results are made with and without --dry"), ("gpu", f"its results are of {known['gpu']}"),
                ("binary", f"its results are of another build, {earlier['about'].get('version')}"))
                if known[key] != self.about[key]), "")
        except (ValueError, LookupError, TypeError, AttributeError):
            why = "cannot be continued"
        if why and not again:
            fail(2, f"{shown(self.path)}: {why}; give --again to begin anew, or choose another folder")
        return None if why else earlier

    def keep(self, key, result, seconds):
        self.found[key] = result | {"seconds": round(seconds, 1)}

    def whole(self, order, benchmarks, earlier, seconds):
        """Everything as one object, the checks in the order of the parts."""
        checks = list(self.about["checks"])
        for part in order:
            checks += self.found.get(part.key, {}).get("checks", [])
        checks += [check for check in (benchmarks or {"checks": []})["checks"] if check["verdict"] != "skip"]
        result = {"about": {key: value for key, value in self.about.items() if key != "checks"},
                  "seconds": round(seconds),
                  "checks": checks, "memory": [found["memory"] for found in self.found.values() if "memory" in found],
                  "benchmarks": benchmarks, "generate": self.found.get("generate"), "left_out": self.left_out,
                  "against": None, "parts": self.found}
        if earlier:
            rows, more = gpu_report.compare(result, earlier)
            result["against"] = {"about": gpu_report.about_line(earlier["about"]), "rows": rows}
            result["checks"] = checks + more
        return result


# ---- the run -------------------------------------------------------------------------------------------------------

def first_checks(machine, about):
    """Verdicts on what is here, made anew by every call."""
    needed = [library for library in machine.missing if not library.startswith("libnccl")]
    if needed:
        libraries = "miss", f"not found: {' '.join(needed)}; install CUDA, or pip's nvidia packages"
    else:
        libraries = "pass", machine.library_path or "found by the loader"
    starts = "pass" if about["version"] else "miss"
    return [verdict("describe", "libraries", *libraries),
            verdict("describe", "train_gpt", starts, about["version"] or "it does not start")]


def do_parts(order, results, end, write):
    """Everything that is not known yet and for which there is time."""
    for part in order:
        if "final" in results.found.get(part.key, {}):
            continue
        left = end - time.monotonic()
        took = results.found.get(part.key, {}).get("seconds", 1 if results.about["dry"] else part.seconds)
        if left < took:
            results.left_out.append(part.key)
            continue
        start = time.monotonic()
        try:
            found = part.run(min(part.most, left))
        except NoTime as error:
            if left < part.most:
                results.left_out.append(part.key)
                continue
            is_tests = part.key.partition(":")[0] in ("tests", "sanitizer")
            last = gpu_parts.last_test(str(error)) if is_tests else str(error)
            found = {"checks": [verdict(part.key.partition(":")[0], part.key, "miss",
                                        f"did not end in {part.most} s: {last}")]}
        if not any(check["verdict"] == "skip" for check in found["checks"]):
            found["final"] = True  # what could not be told here may be told by the next call
        results.keep(part.key, found, time.monotonic() - start)
        for check in found["checks"]:
            say(f"{check['step']}: {check['name']}: {check['verdict']}{', ' * bool(check['figure'])}{check['figure']}")
        write()


def main():
    request = parse(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # by way of every clean-up
    if request.list:
        for part in listed(None, None, None, None, None, {}):
            print(f"{part.seconds:4}  {part.key}")
        return 0
    start = time.monotonic()
    earlier = gpu_report.load(request.against) if request.against else None
    try:
        os.makedirs(request.out, exist_ok=True)
        out = os.path.abspath(request.out)
        with open(os.path.join(out, "log.txt"), "ab"):
            pass
    except OSError as error:
        fail(2, f"--out={shown(request.out)}: cannot be written ({error.strerror}); choose another folder")
    lock = common.Lock(os.path.join(out, "gpu_check.lock"))
    holder = lock.take()
    if holder:
        fail(2, f"--out={shown(request.out)}: {holder} is at work there; wait for it, or choose another folder")
    try:
        with tempfile.TemporaryDirectory(prefix="gpu_check.") as folder:
            return check(request, out, Machine(request.dry, folder, os.path.join(out, "log.txt")), start, earlier)
    except gpu_parts.Failed as failure:  # only where what worked before does not any more
        fail(1, str(failure))
    finally:
        lock.release()


def check(request, out, machine, start, earlier):
    about = machine.describe()
    results = Results(out, about, request.again, request.only)
    about["checks"] = first_checks(machine, about)
    for row in about["checks"]:
        say(f"{row['step']}: {row['name']}: {row['verdict']}, {row['figure']}")
    tests, levels = gpu_parts.KernelTests(machine), gpu_parts.Levels(machine)
    speed = gpu_parts.Speed(machine, results.found)
    order = listed(tests, levels, gpu_parts.Generation(machine, levels), speed, gpu_variants.Variants(machine, speed),
                   results.found)
    before = results.seconds

    def write():
        results.seconds = before + time.monotonic() - start
        result = results.whole(order, speed.conclude(), earlier, results.seconds)
        text = gpu_report.markdown(result)
        common.write(os.path.join(out, "gpu_check.json"), json.dumps(result, indent=1) + "\n")
        common.write(os.path.join(out, "gpu_check.md"), text)
        common.write(os.path.join(out, "profiles.txt"), "\n".join(speed.bench.profiles))
        return result, text

    wanted = [part for part in order if not request.only or chosen(part.key, request.only)]
    do_parts(wanted, results, start + request.seconds - 2, write)
    result, text = write()
    print(text, end="")
    misses = sum(check["verdict"] == "miss" for check in result["checks"])
    if results.left_out:
        say(f"left out for want of time: {', '.join(results.left_out)}; the same command goes on with them")
    say(f"results in {out}; {misses} failed or missed")
    return 1 if misses else 0


if __name__ == "__main__":
    common.run(main)
