#!/usr/bin/env python3
"""Trains one model at every combination of batch size, --recompute level and whatever else is named, and compares
prediction with measurement: memory, time per step, overhead against level 0, and whether loss curves that differ in
nothing but the level are equal bit for bit.

  scripts/sweep.py --batch-sizes="4 8" --recompute="0 1 2 act auto" --model=gpt2-mini --out=runs/sweep1 [-- OPTION...]
  scripts/sweep.py --grid learning-rate=1e-3,3e-3 --grid seed=1,2,3 --steps=200 --out=runs/rates [-- OPTION...]

  --batch-sizes=LIST       sequences in a micro-batch, separated by blanks or commas (one: what train_gpt would take)
  --recompute=LIST         levels, as --recompute of train_gpt takes them (0)
  --grid=OPTION=LIST       values of any option of train_gpt, separated by commas; may be given several times
  --repeats=N              runs of each combination, for how far times spread (1)
  --out=FOLDER             where everything goes: a run folder per combination, sweep.csv, sweep.md, plots
  --model=NAME             as for train_gpt, its default otherwise
  --steps=N                updates of each run (20)
  --total-batch-size=N     tokens per update, the same in all runs (the least common multiple of the batch sizes)
  --checkpoints            keep the checkpoints of finished runs
  -- OPTION...             any further options of train_gpt, for all runs

Interrupted or killed, the same command goes on where it was: finished runs are skipped, a run with a checkpoint is
resumed, others begin again, failed ones too. A run that fails or does not fit is recorded with the reason. Without a
--memory-budget, auto takes all memory there is. Data is data/demo.txt unless OPTION names some; there is neither
validation nor sampling unless OPTION asks for it. The first two steps do not count for times. Measured memory is the
peak resident set of the process less that of the program itself (the same command with a tiny model, less what that
allocates), so it means something on the CPU only. Prints sweep.md; exits with 1 if curves differ or no run came to its
end, 2 for bad usage.
$TRAIN_GPT names another binary than the ./train_gpt above this folder.

Read next: sweep_report.py (the tables), plot.py (the pictures).
"""
import contextlib
import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import common  # noqa: E402
import sweep_report  # noqa: E402
from common import fail, say, shown  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OWN = "-b --batch-size -d --total-batch-size -r --recompute -o --output-dir -y --resume --dry-run --log-level".split()


# ---- the command line -------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Request:
    batch_sizes: list
    levels: list
    out: str
    total: str = ""
    grids: list = dataclasses.field(default_factory=list)  # (option, values)
    repeats: int = 1
    keep_checkpoints: bool = False
    options: list = dataclasses.field(default_factory=list)  # of train_gpt, for all runs


def words_of(option, text, pattern, wanted):
    words = text.replace(",", " ").split()
    for index, word in enumerate(words):
        if not re.fullmatch(pattern, word):
            fail(2, f"{option}={text}: '{word}' is not what it takes; give {wanted}")
        if word in words[:index]:
            fail(2, f"{option}: {word} is there twice; name it once")
    if not words:
        fail(2, f"{option}: name at least one; see --help")
    return words


def grid_of(text, before):
    """A --grid as (option, values)."""
    name, equals, listed = text.partition("=")
    name, values = name.lstrip("-"), listed.split(",")
    if not equals or not re.fullmatch(r"[a-z0-9-]+", name) or "" in values:
        fail(2, f"--grid={text}: must be an option's long name and its values, such as learning-rate=1e-3,3e-3")
    elsewhere = {"batch-size": "--batch-sizes", "recompute": "--recompute"}
    if name == "output-dir":
        fail(2, f"--grid={text}: the sweep names the folders of its runs itself; give --out=FOLDER, which they go into")
    if name in elsewhere:
        fail(2, f"--grid={text}: is {elsewhere[name]} of the sweep itself; write {elsewhere[name]}={listed}")
    if f"--{name}" in OWN and name != "total-batch-size":
        fail(2, f"--grid={text}: {name} is for the sweep to say; see --help")
    if name in [other for other, _ in before]:
        fail(2, f"--grid={text}: {name} is there twice; name all its values in one --grid")
    if len(set(values)) < len(values):
        fail(2, f"--grid={text}: a value is there twice; name it once, or see --repeats")
    return name, values


def parse(arguments):
    given, grids, options, words = {}, [], [], list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            break
        if word in ("-h", "--help"):
            print(__doc__, end="")
            sys.exit(0)
        if word == "--checkpoints":
            given[word] = True
            continue
        if name not in ("--batch-sizes --recompute --grid --repeats --out --model --steps "
                        "--total-batch-size").split():
            if grids and not word.startswith("-"):
                option, values = grids[-1]
                fail(2, f"'{word}': stands alone; the values of a --grid are separated by commas: "
                     f"--grid={option}={','.join([*values, word])}")
            fail(2, f"{word}: no such option; those of train_gpt come after --; see --help")
        if not equals:
            if not words:
                fail(2, f"{word}: wants a value; see --help")
            value = words.pop(0)
        if name == "--grid":
            grids.append(grid_of(value, grids))
        elif name in ("--model", "--steps"):
            options.append(f"{name}={value}")
        else:
            given[name] = value
    total = given.get("--total-batch-size", "")
    if total and not re.fullmatch(r"[0-9]+", total):
        fail(2, f"--total-batch-size={total}: must be a number of tokens")
    repeats = given.get("--repeats", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", repeats):
        fail(2, f"--repeats={repeats}: must be a number of runs, from 1 to 9999")
    if total and "total-batch-size" in [name for name, _ in grids]:
        fail(2, "--total-batch-size: is in a --grid, too; leave one of them out")
    sizes, levels = given.get("--batch-sizes"), given.get("--recompute", "0")
    request = Request([] if sizes is None else words_of("--batch-sizes", sizes, r"[1-9][0-9]*",
                                                                "numbers of sequences, such as --batch-sizes=4,8"),
                      words_of("--recompute", levels, r"[a-z0-9]+", "levels, such as --recompute=0,1,2,auto"),
                      given.get("--out", ""), total, grids, int(repeats), "--checkpoints" in given, words + options)
    if not request.out:
        fail(2, "--out: name the folder for the runs; see --help")
    return request


def name_of(word):
    """The option that a word of train_gpt's command line is, "" if it is none, and whether its value is in it."""
    if word.startswith("--"):
        return word.partition("=")[0], "=" in word
    if len(word) > 1 and word.startswith("-"):
        return word[:2], len(word) > 2
    return "", False


def given(names, options):
    """The first of the options that is one of these; "" if none is."""
    return next((name_of(word)[0] for word in options if name_of(word)[0] in names), "")


def fill_in(request):
    """What a sweep wants where the user has said nothing of it."""
    options, swept = request.options, [f"--{name}" for name, _ in request.grids]
    own = given(OWN, options)
    if own:
        fail(2, f"{own}: is for the sweep to say, not after --; see --help for --batch-sizes, --recompute, --out")
    twice = given(swept, options)
    if twice:
        fail(2, f"{twice}: is in a --grid, too; leave one of them out")
    if not given(["-i", "--data", "--config"], options + swept):
        near = os.path.join("data", "demo.txt")
        options.append("--data=" + (near if os.path.exists(near) else os.path.join(ROOT, near)))
    for names, option in [("-x --steps", "--steps=20"),
                          ("-v --val-every -j --val-data --val-sequences", "--val-every=0"),
                          ("-g --sample-length -s --sample-every --sample-prompt", "--sample-length=0")]:
        if not given([*names.split(), "--config"], options + swept):
            options.append(option)


# ---- train_gpt ------------------------------------------------------------------------------------------------------

class Interrupted(Exception):
    pass


class Program:
    """train_gpt, and the run of it that is under way. A signal to this script is handed on to that run, once."""

    def __init__(self):
        self.path = os.environ.get("TRAIN_GPT") or os.path.join(ROOT, "train_gpt")
        if not (os.path.isfile(self.path) and os.access(self.path, os.X_OK)):
            fail(1, f"there is no program '{self.path}'; run make, or name another in $TRAIN_GPT")
        self.path = os.path.abspath(self.path)
        self.job, self.stopped = None, 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # As nohup leaves SIGHUP.
                signal.signal(number, self._stop)
        self.flags = self.names_in(r"  -\S*(  |$)")  # They take no value.

    def _stop(self, number, _frame):
        self.stopped = 130 if number == signal.SIGINT else 143
        if self.job is not None and self.job.poll() is None:
            self.job.send_signal(signal.SIGTERM)

    def stop_here(self):
        if self.stopped:
            raise Interrupted

    def ask(self, *arguments):
        """Exit code, stdout and stderr of a command that ends by itself."""
        answer = subprocess.run([self.path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                process_group=0)
        self.stop_here()
        return answer.returncode, os.fsdecode(answer.stdout), os.fsdecode(answer.stderr)

    def names_in(self, pattern, *command):
        """The options whose line in --help matches."""
        lines = [line for line in self.ask(*command, "--help")[1].split("\n") if re.match(pattern, line)]
        return {name for line in lines for name in line.split()[0].split(",")}

    def select(self, names, options):
        """Those of the options that are among the names, with their values."""
        selected, words = [], list(options)
        while words:
            name, inline = name_of(words[0])
            count = 1 if inline or not name or name in self.flags else 2
            if name in names:
                selected += words[:count]
            words = words[count:]
        return selected

    @contextlib.contextmanager
    def running(self, arguments, stdout, stderr):
        """Starts it in a process group of its own, so that Ctrl-C reaches it as said above only."""
        with open(stdout, "wb") as out, open(stderr, "wb") as err:
            self.job = subprocess.Popen([self.path, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                        process_group=0)
        if self.stopped:  # It came between.
            self.job.send_signal(signal.SIGTERM)
        try:
            yield self.job
        finally:
            if self.job.poll() is None:
                self.job.kill()
            self.job.wait()
            self.job = None


def watch(job, folder, steps=math.inf):
    """Waits for a run, or until so many steps are done. The most it had resident, in bytes, as seen after its first
    step, when all memory has been touched; None where it was too short, or without /proc."""
    peak = None
    while job.poll() is None:
        lines = common.read(os.path.join(folder, "metrics.jsonl")).count("\n")
        seen = None
        with contextlib.suppress(OSError):
            seen = re.search(r"VmHWM:\s*(\d+)", common.read(f"/proc/{job.pid}/status"))
        if lines and seen:
            peak = int(seen[1]) * 1024
        if lines >= steps:
            break
        time.sleep(0.2)
    return peak


def error_of(stderr, code):
    """Why train_gpt ended, in one line."""
    errors = [line[2:] for line in re.findall(r"^[0-9:]* (E .*)", stderr, re.MULTILINE)]
    if errors:
        return errors[-1].replace("\t", " ")
    if code == -signal.SIGKILL:
        return "killed by signal 9: the system was out of memory, or somebody ended it"
    if code < 0:
        return f"ended by signal {-code}"
    return f"exit code {code}: " + (stderr.rstrip("\n").split("\n")[-1].replace("\t", " "))


# ---- a sweep ------------------------------------------------------------------------------------------------------

class Sweep:
    def __init__(self, request, program):
        self.request, self.program, self.out = request, program, request.out
        self.options = request.options
        self.finished = 0  # Runs that came to their end, now or before.

    def combinations(self):
        request = self.request
        return sweep_report.combinations(request.batch_sizes, request.levels, request.grids, request.repeats)

    def prepare(self):
        """Everything is checked before anything is written."""
        request = self.request
        fill_in(request)
        shapes = [self.shape_with(setting) for setting in self.settings_to_try()]
        request.batch_sizes = request.batch_sizes or [shapes[0][0]]
        if not self.total_is_given():
            total = request.total or math.lcm(*map(int, request.batch_sizes)) * math.lcm(*[int(T) for _, T in shapes])
            self.options.append(f"--total-batch-size={total}")
        self.plan_names = self.program.names_in("  -", "plan")
        for level in request.levels:
            code, _, stderr = self.plan(dataclasses.replace(self.combinations()[0], level=level))
            if code == 2 and error_of(stderr, code).startswith("--recompute="):
                fail(2, error_of(stderr, code))
        self.check_folder()

    def total_is_given(self):
        return "total-batch-size" in [name for name, _ in self.request.grids]

    def settings_to_try(self):
        """Every value of every --grid once, beside the first of the others."""
        grids = self.request.grids
        first = [(name, values[0]) for name, values in grids]
        return [tuple(first)] + [tuple(first[:at] + [(name, value)] + first[at + 1:])
                                 for at, (name, values) in enumerate(grids) for value in values[1:]]

    def shape_with(self, setting):
        """Sequences in a micro-batch and their tokens, which may come from an option, a --grid or a file. Too little
        memory is for the runs to find."""
        sizes = [f"--batch-size={size}" for size in self.request.batch_sizes[:1]]
        options = sweep_report.Combination("", "", setting).options()
        code, _, stderr = self.program.ask(*self.options, *options, *sizes, "--recompute=none", "--dry-run")
        shape = re.search(r" I batch +([0-9]+) x ([0-9]+) tokens", stderr)
        if not shape:
            fail(code if code in (1, 2) else 1, error_of(stderr, code))
        return shape[1], shape[2]

    def plan(self, combination):
        options = self.program.select(self.plan_names, self.options + combination.options())
        return self.program.ask("plan", "--json", f"--batch-size={combination.batch_size}",
                                f"--recompute={combination.level}", *options)

    def described(self):
        request = self.request
        lines = [f"batch sizes: {' '.join(request.batch_sizes)}", f"levels: {' '.join(request.levels)}",
                 f"checkpoints: {'yes' if request.keep_checkpoints else 'no'}"]
        lines += [f"grid: {name}={','.join(values)}" for name, values in request.grids]
        lines += [f"repeats: {request.repeats}"] if request.repeats > 1 else []
        options = [option.replace("\n", "\\n") for option in self.options]
        return "\n".join(lines + [f"option: {option}" for option in options]) + "\n"

    def check_folder(self):
        if os.path.exists(self.out) and not os.path.isdir(self.out):
            fail(2, f"--out={self.out}: is a file; choose another")
        before = common.read(os.path.join(self.out, "sweep.options"))
        if before and before != self.described():
            ours = self.described().split("\n")
            difference = next((line for line in before.split("\n") if line and line not in ours), "fewer of them")
            fail(2, f"--out={self.out}: holds a sweep with other options ({difference}); repeat its own, or choose "
                 "another folder")
        if not before and os.path.lexists(self.out):
            try:
                others = [name for name in os.listdir(self.out) if name != "sweep.lock" and name[:5] != ".tmp-"]
            except OSError as error:
                fail(1, f"--out={self.out}: cannot be read ({error.strerror})")
            if others:
                fail(2, f"--out={self.out}: is not empty and holds no sweep; choose another folder")

    @contextlib.contextmanager
    def claimed(self):
        """While it is at work on its folder, no other sweep is."""
        try:
            os.makedirs(self.out, exist_ok=True)
            lock = common.Lock(os.path.join(self.out, "sweep.lock"))
            holder = lock.take()
        except OSError as error:
            fail(1, f"--out={self.out}: cannot be written ({error.strerror})")
        if holder:
            fail(1, f"--out={self.out}: {holder} is at work on it; wait for it")
        try:
            self.check_folder()  # Another one may have been here since.
            common.write(os.path.join(self.out, "sweep.options"), self.described())
            yield
        finally:
            lock.release()

    def record(self, folder, status, reason, peak):
        """What is kept of a run beside what train_gpt wrote."""
        version = self.program.ask("--version")[1].partition("\n")[0]
        lines = [f"status={status}", f"reason={reason}", f"peak_rss_bytes={peak or ''}", f"version={version}"]
        common.write(os.path.join(folder, "sweep.txt"), "\n".join(lines) + "\n")
        say(f"{os.path.basename(folder)}: {status}{': ' if reason else ''}{reason}")

    def record_failure(self, folder, stderr, code, peak):
        reason = error_of(stderr, code)
        no_room = any(words in reason for words in ("not enough memory", "out of memory", "is not enough for"))
        self.record(folder, "out of memory" if no_room else "failed", reason, peak)

    def begin(self, folder, combination):
        """The options that start a run or go on with it; None where it is over already."""
        name, notes = os.path.basename(folder), sweep_report.recorded(folder)
        if notes.get("status") == "finished":
            self.finished += 1
            say(f"{name}: was finished before")
            return None
        if not notes and os.path.exists(os.path.join(folder, "checkpoints", "latest")):
            say(f"{name}: goes on from its checkpoint")
            kept = "--threads --device --memory-budget --peak-tflops".split()
            return [f"--resume={folder}", *self.program.select(kept, self.options + combination.options())]
        if os.path.lexists(folder):
            shutil.rmtree(folder)
        os.mkdir(folder)
        code, plan, stderr = self.plan(combination)
        if code != 0:
            self.record_failure(folder, stderr, code, None)
            return None
        common.write(os.path.join(folder, "plan.json"), plan)
        return [f"--batch-size={combination.batch_size}", f"--recompute={combination.level}",
                f"--output-dir={folder}", *self.options, *combination.options()]

    def run(self, combination):
        """Makes sure of that run, one way or the other."""
        folder = os.path.join(self.out, combination.folder())
        arguments = self.begin(folder, combination)
        if arguments is None:
            return
        stderr = os.path.join(folder, "stderr.txt")
        with self.program.running(arguments, os.path.join(folder, "stdout.txt"), stderr) as job:
            peak = watch(job, folder)
            code = job.wait()
        done = sweep_report.last("step", common.read(os.path.join(folder, "metrics.jsonl")))
        wanted = re.search(r"^steps\s*=\s*([0-9]+)", common.read(os.path.join(folder, "config.toml")), re.MULTILINE)
        stopped, self.program.stopped = self.program.stopped, 0
        if code == 0 and wanted and int(done or 0) == int(wanted[1]):
            if not self.request.keep_checkpoints:
                shutil.rmtree(os.path.join(folder, "checkpoints"), ignore_errors=True)
            self.finished += 1
            self.record(folder, "finished", "", peak)
        elif code == 0:  # It took a signal itself and has written a checkpoint.
            stopped = stopped or 130
        elif not stopped:
            self.record_failure(folder, common.read(stderr), code, peak)
        self.program.stopped = stopped or self.program.stopped

    def measure_base(self, temporary):
        """What the program takes besides its model, once, if there is anything to take it from."""
        path = os.path.join(self.out, "base_bytes")
        folders = [os.path.join(self.out, combination.folder()) for combination in self.combinations()]
        if os.path.exists(path) or not any(sweep_report.recorded(f).get("peak_rss_bytes") for f in folders):
            return
        kept = "-i --data --tokenizer -t --seq-len --dtype --threads --device --config".split()
        folder = os.path.join(temporary, "base")
        tiny = ["--model=gpt2-nano", "--layers=1", "--channels=32", "--heads=1", "--batch-size=1", "--recompute=none",
                "--steps=1000000", "--val-every=0", "--sample-length=0", f"--output-dir={folder}"]
        arguments = tiny + self.program.select(kept, self.options)
        with self.program.running(arguments, os.devnull, os.devnull) as job:
            peak = watch(job, folder, 20)
        self.program.stop_here()
        allocated = sweep_report.last("memory_bytes", common.read(os.path.join(folder, "metrics.jsonl")))
        if peak and allocated:
            common.write(path, f"{peak - int(allocated)}\n")


def draw(out):
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "check": False}
    if subprocess.run([python, "-c", "import matplotlib"], stderr=subprocess.DEVNULL, **quiet).returncode != 0:
        say(f"for plots, install the Debian package python3-matplotlib and run scripts/plot.py {out}")
    elif subprocess.run([python, os.path.join(ROOT, "scripts", "plot.py"), "--", out], **quiet).returncode != 0:
        say("the plots could not be made")


def main():
    request = parse(sys.argv[1:])
    request.out = os.path.join(".", request.out)  # One that begins with a dash is a folder, too.
    program = Program()
    sweep = Sweep(request, program)
    try:
        sweep.prepare()
        with sweep.claimed(), tempfile.TemporaryDirectory() as temporary:
            for combination in sweep.combinations():
                program.stop_here()
                sweep.run(combination)
            program.stop_here()
            sweep.measure_base(temporary)
            same = sweep_report.report(request.out)
            program.stop_here()
            draw(request.out)
    except Interrupted:
        fail(program.stopped, "interrupted; the same command goes on")
    if not same:
        fail(1, f"loss curves that must be equal differ; see {os.path.join(request.out, 'sweep.md')}")
    if not sweep.finished:
        fail(1, f"no run came to its end; see {os.path.join(request.out, 'sweep.md')}")


if __name__ == "__main__":
    common.run(main)
