#!/usr/bin/env python3
"""Tries the commands of the README (or of other pages in Markdown).

    dev/readme.py check [PAGE...]      every shell block: are its options, files and make targets there?
    dev/readme.py run [PAGE...]        runs the blocks marked as such, in order, here: meant for a fresh clone
    dev/readme.py list [PAGE...]       which blocks are run, and why the others are not

A block that is run begins with ```sh run. Any other has a reason in a comment above it: <!-- not run: needs a card -->.
`check` and `run` print "ok ..." and "not ok ..." lines, and end with 1 where something is wrong. $TRAIN_GPT is the
program that is asked for its options (./train_gpt). Standard library only.
"""

import dataclasses
import functools
import os
import re
import shlex
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = ("scripts/", "dev/", "data/", "tests/")


@dataclasses.dataclass
class Block:
    page: str
    line: int
    is_run: bool
    reason: str  # Why it is not; "" where nothing is said.
    text: str

    def where(self):
        return f"{os.path.basename(self.page)}:{self.line}"


def blocks_of(page):
    """The shell blocks of a page. A comment counts for the block that follows it, with nothing but blank lines
    between."""
    blocks, reason, inside = [], "", None
    with open(page, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if inside is not None:
                if line.startswith("```"):
                    blocks.append(inside)
                    inside, reason = None, ""
                else:
                    inside.text += line
            elif line.startswith("```"):
                words = line[3:].split()
                if words[:1] == ["sh"]:
                    inside = Block(page, number, words[1:] == ["run"], reason, "")
            elif said := re.fullmatch(r"<!-- not run: (.+) -->\n", line):
                reason = said[1]
            elif line.strip():
                reason = ""
    return blocks


def commands_of(block):
    """Its simple commands as lists of words, each with the line it begins in. Comments are left out."""
    commands, number, pending = [], block.line, ""
    for line in block.text.split("\n"):
        number += 1
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        lexer = shlex.shlex(pending, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words, pending = [], ""
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&()"):
                commands += [(number, words)] if words else []
                words = []
            else:
                words.append(word)
    return commands


@functools.cache
def options_of(subcommand):
    program = os.environ.get("TRAIN_GPT") or os.path.join(ROOT, "train_gpt")
    words = [program] + ([subcommand] if subcommand else []) + ["--help-all"]
    text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(?<![\w-])(--?[a-z][a-z0-9-]*)", text))


@functools.cache
def subcommands():
    program = os.environ.get("TRAIN_GPT") or os.path.join(ROOT, "train_gpt")
    text = subprocess.run([program, "--help-all"], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"^  ([a-z][a-z-]*) ", text, re.MULTILINE))


@functools.cache
def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def wrong_option(words):
    """Of a command of train_gpt."""
    subcommand = words[0] if words and not words[0].startswith("-") else ""
    if subcommand and subcommand not in subcommands():
        return f"there is no subcommand {subcommand}"
    for word in words:
        name = word.partition("=")[0]
        if re.fullmatch(r"--?[a-z][a-z0-9-]*", name) and name not in options_of(subcommand):
            return f"{name} is no option of {subcommand or 'training'}"
    return ""


def wrong_script(words):
    """Of a command that is a file of ours."""
    path = os.path.join(ROOT, words[0])
    if not os.access(path, os.X_OK):
        return f"{words[0]} is not there, or cannot be run"
    own = words[1:words.index("--")] if "--" in words else words[1:]
    for word in own:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in text_of(path) and "$@" not in text_of(path):
            return f"{words[0]} has no {name}"
    return wrong_option(words[words.index("--") + 1:]) if "--" in words else ""


def wrong_make(words):
    for word in words[1:]:
        name, equals, _ = word.partition("=")
        pattern = rf"^  {name}=|^{name} \?=| {name}=" if equals else rf"^{re.escape(word)}:"
        if not re.search(pattern, text_of(os.path.join(ROOT, "Makefile")), re.MULTILINE):
            return f"make has no {'variable' if equals else 'target'} {name}"
    return ""


def what_is_wrong(words):
    """With a simple command; None where it is not one of ours."""
    while words and re.match(r"[A-Za-z_]+=", words[0]):  # X=1 COMMAND
        words = words[1:]
    if "./train_gpt" in words:  # Behind mpirun, srun, torchrun.
        return wrong_option(words[words.index("./train_gpt") + 1:])
    if words and words[0].startswith(OURS):
        return wrong_script(words)
    if words and words[0] == "make":
        return wrong_make(words)
    return None


def check(blocks):
    failures = 0
    for block in blocks:
        if block.is_run == bool(block.reason):
            failures += 1
            print(f"not ok {block.where()}: the block is neither marked `run` nor does a comment say why not")
        for number, words in commands_of(block):
            wrong = what_is_wrong(words)
            if wrong is not None:
                failures += bool(wrong)
                where = f"{os.path.basename(block.page)}:{number}: {' '.join(words)[:70]}"
                print(f"not ok {where}: {wrong}" if wrong else f"ok {where}")
    return failures


def run(blocks):
    failures = 0
    for block in blocks:
        if not block.is_run:
            continue
        begin = time.monotonic()
        result = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", block.text], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                check=False)
        took = f"{time.monotonic() - begin:.0f} s"
        if result.returncode == 0:
            print(f"ok {block.where()}: runs ({took})", flush=True)
        else:
            failures += 1
            last = " / ".join(result.stdout.rstrip().split("\n")[-3:])
            print(f"not ok {block.where()}: exit code {result.returncode} after {took}: {last}", flush=True)
    return failures


def show(blocks):
    for block in blocks:
        print(f"{block.where()}: {'run' if block.is_run else 'not run: ' + (block.reason or 'no reason is given')}")
    return 0


def main():
    actions = {"check": check, "run": run, "list": show}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        print(__doc__, end="", file=sys.stderr)
        return 2
    pages = sys.argv[2:] or [os.path.join(ROOT, "README.md")]
    return 1 if actions[sys.argv[1]]([block for page in pages for block in blocks_of(page)]) else 0


if __name__ == "__main__":
    sys.exit(main())
