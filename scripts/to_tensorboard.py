#!/usr/bin/env python3
"""Runs' metrics.jsonl as TensorBoard event files, a folder per run. Needs nothing but Python.

    scripts/to_tensorboard.py RUN... [--out=FOLDER]      then: tensorboard --logdir=FOLDER

FOLDER is tensorboard/ by default; what a run had there is replaced. A running run may be converted again and again.
"""

import argparse
import json
import os
import struct
import sys

TAGS = {"loss": "loss/training", "val_loss": "loss/validation", "lr": "learning_rate", "grad_norm": "gradient_norm",
        "tokens_per_second": "speed/tokens_per_second", "step_ms": "speed/step_ms", "mfu": "speed/mfu"}
CASTAGNOLI = 0x82F63B78  # Reflected polynomial of CRC-32C.


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (CASTAGNOLI if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc_table()


def masked_crc(data):
    """CRC-32C as TFRecord files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, content):
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def event(when, step=None, content=b""):
    """tensorboard.Event: wall_time = 1, step = 2, then fields as they are."""
    return b"\x09" + struct.pack("<d", when) + (b"" if step is None else b"\x10" + varint(step)) + content


def scalars(values):
    """Summary.value of every tag: tag = 1, simple_value = 2."""
    return field(5, b"".join(field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
                             for tag, value in values))


def lines_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # Cut off: the run goes on, or was killed.


def convert(run, folder):
    """How many lines were taken."""
    metrics = os.path.join(run, "metrics.jsonl")
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        if name.startswith("events.out.tfevents."):
            os.remove(os.path.join(folder, name))
    now, taken, elapsed = os.path.getmtime(metrics), 0, 0.0
    with open(os.path.join(folder, f"events.out.tfevents.{int(now)}.train_gpt"), "wb") as out:
        out.write(record(event(now, content=field(3, b"brain.Event:2"))))
        for line in lines_of(metrics):
            if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                continue
            elapsed += (line.get("step_ms") or 0) / 1e3
            values = [(tag, line[key]) for key, tag in TAGS.items() if isinstance(line.get(key), (int, float))]
            if values:
                out.write(record(event(elapsed, line["step"], scalars(values))))
                taken += 1
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", default="tensorboard", metavar="FOLDER")
    arguments = parser.parse_args()
    for run in arguments.runs:
        if not os.path.isfile(os.path.join(run, "metrics.jsonl")):
            sys.exit(f"to_tensorboard: '{run}' has no metrics.jsonl; name a run folder, such as runs/NAME")
        name = os.path.basename(os.path.normpath(os.path.abspath(run)))
        try:
            taken = convert(run, os.path.join(arguments.out, name))
        except OSError as error:
            sys.exit(f"to_tensorboard: {error}")
        print(f"{os.path.join(arguments.out, name)}: {taken} events")


if __name__ == "__main__":
    main()
