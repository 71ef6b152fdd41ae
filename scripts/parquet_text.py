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

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    sys.exit("parquet_text: pyarrow is missing; install it: pip install pyarrow")


def is_text(kind):
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def column_of(path, schema, wanted):
    texts = [field.name for field in schema if is_text(field.type)]
    if wanted is not None:
        if wanted in texts:
            return wanted
        sys.exit(f"parquet_text: '{path}' has no text column '{wanted}'; it has {', '.join(texts) or 'none'}")
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    sys.exit(f"parquet_text: '{path}' has the text columns {', '.join(texts) or '(none)'}; choose one with --column")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--column", help="the column with the texts")
    options = parser.parse_args()
    left_out = 0
    for path in options.files:
        try:
            table = pyarrow.parquet.ParquetFile(path)
            column = column_of(path, table.schema_arrow, options.column)
            for batch in table.iter_batches(columns=[column]):
                for text in batch.column(0).to_pylist():
                    if text is None:
                        left_out += 1
                    else:
                        print(json.dumps({"text": text}))
        except (OSError, pyarrow.ArrowInvalid) as error:
            sys.exit(f"parquet_text: cannot read '{path}': {error}")
    if left_out:
        print(f"parquet_text: {left_out} rows without a text were left out", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(1)
