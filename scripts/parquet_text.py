#!/usr/bin/env python3
"""Prints a text column of Parquet files as JSON Lines, for train_gpt, which reads no Parquet.

    pip install pyarrow
    scripts/parquet_text.py train-*.parquet > train.jsonl
    ./train_gpt --data=train.jsonl --jsonl-field=text
    scripts/parquet_text.py train-*.parquet | ./train_gpt tokenize --jsonl-field=text --tokenizer=gpt2/ --out=ids -

--column names the column (text, else the only one with strings); it becomes the field `text`. Rows without a text are
left out and counted. A file is read a piece at a time, so it may be larger than memory.
"""
import argparse
import json
import sys

sys.dont_write_bytecode = True
import common  # noqa: E402
from common import fail  # noqa: E402

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None


def is_text(kind):
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def column_of(path, schema, wanted):
    texts = [field.name for field in schema if is_text(field.type)]
    if wanted is not None:
        if wanted in texts:
            return wanted
        fail(2, f"'{path}' has no text column '{wanted}'; it has {', '.join(texts) or 'none'}")
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    fail(2, f"'{path}' has the text columns {', '.join(texts) or '(none)'}; choose one with --column")


def texts_of(path, wanted):
    """Every row's text, or None; a piece of the file at a time."""
    try:
        with open(path, "rb") as file:  # By Python, which takes names that are not UTF-8.
            table = pyarrow.parquet.ParquetFile(file)
            column = column_of(path, table.schema_arrow, wanted)
            batches = table.iter_batches(columns=[column])
            while (batch := next(batches, None)) is not None:
                texts = batch.column(0).to_pylist()
                yield from texts
    except pyarrow.ArrowException as error:
        fail(1, f"cannot read '{path}': {error}")


def main():
    parser = common.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--column", help="the column with the texts")
    options = parser.parse_args()
    if pyarrow is None:
        fail(1, "pyarrow is missing; install it: pip install pyarrow")
    left_out = 0
    for path in options.files:
        for text in texts_of(path, options.column):
            if text is None:
                left_out += 1
            else:
                print(json.dumps({"text": text}))
    if left_out:
        common.say(f"{left_out} rows without a text were left out")


if __name__ == "__main__":
    common.run(main)
