#!/usr/bin/env python3
"""Makes tests/golden/optimizer_state.safetensors: the 8-bit maps of optimiser state and blocks quantised with them.

    python3 dev/oracle/make_optimizer_state.py [OUT_FILE]

Written from the paper (Dettmers et al. 2022) in exact fractions, with fp32 roundings where bitsandbytes 0.50.2 has
them: its create_dynamic_map() gives the same 256 values, signed and unsigned, to the bit. A code is that of the nearest
value by exhaustive search; of two that are as near, the lower one. (bitsandbytes' own code is not always nearest on the
CPU.) Standard library only; deterministic.
"""
import json
import random
import struct
import sys
from fractions import Fraction

BLOCK = 256
COUNT = 3 * BLOCK + 77  # The last block is short.


def fp32(x):
    """The nearest fp32 number of a fraction; through a double, which holds every number that occurs here."""
    return struct.unpack("<f", struct.pack("<f", float(x)))[0]


def dynamic_map(signed):
    values = [0.0, 1.0]
    for decade in range(7):
        parts = 2**decade if signed else 2 ** (decade + 1)
        first, power = Fraction(fp32(0.1)), Fraction(fp32(10.0 ** (decade - 6)))
        step = Fraction(fp32(Fraction(fp32(1 - first)) / parts))

        def cut(i):
            return Fraction(fp32(first + step * i if i < (parts + 1) // 2 else 1 - step * (parts - i)))

        for i in range(parts):
            middle = Fraction(fp32(Fraction(fp32(cut(i) + cut(i + 1))) / 2))
            value = fp32(power * middle)
            values += [value, -value] if signed else [value]
    return sorted(values)


def nearest(x, values):
    return min(range(256), key=lambda code: (abs(Fraction(values[code]) - Fraction(x)), code))


def quantised(x, values):
    codes, largest = [], []
    for begin in range(0, len(x), BLOCK):
        block = x[begin : begin + BLOCK]
        scale = max(abs(element) for element in block)
        largest.append(scale)
        codes += [nearest(fp32(Fraction(e) / Fraction(scale)) if scale else 0.0, values) for e in block]
    return codes, largest


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/golden/optimizer_state.safetensors"
    draw = random.Random(17)
    means = [fp32(draw.gauss(0, 1) * 10 ** draw.uniform(-7, -1)) for _ in range(COUNT)]
    squares = [fp32(draw.gauss(0, 1) ** 2 * 10 ** draw.uniform(-12, -4)) for _ in range(COUNT)]
    means[BLOCK : 2 * BLOCK] = [0.0] * BLOCK  # A block that has not moved yet.
    squares[BLOCK : 2 * BLOCK] = [0.0] * BLOCK
    tensors = {}
    for name, x, signed in (("m", means, True), ("v", squares, False)):
        values = dynamic_map(signed)
        codes, largest = quantised(x, values)
        tensors[f"{name}.map"] = ("F32", 256, struct.pack("<256f", *values))
        tensors[f"{name}.input"] = ("F32", COUNT, struct.pack(f"<{COUNT}f", *x))
        tensors[f"{name}.largest"] = ("F32", len(largest), struct.pack(f"<{len(largest)}f", *largest))
        tensors[f"{name}.codes"] = ("U8", COUNT, bytes(codes))
    header, data = {}, b""
    for name, (dtype, count, raw) in sorted(tensors.items(), key=lambda item: item[1][0] != "F32"):
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(out, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


main()
