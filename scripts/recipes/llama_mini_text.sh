#!/usr/bin/env bash
# A small LLaMA (6 layers, 384 channels, 10.8 million parameters) on any text, for a laptop.
#
#   scripts/recipes/llama_mini_text.sh TEXT [--OPTION=VALUE of train_gpt...]
#
#   scripts/recipes/llama_mini_text.sh 'notes/*.txt' --steps=500 --output-dir=runs/notes
#
# TEXT is a file, a quoted pattern, or a folder: text, JSON Lines (--jsonl-field=text), or token files.
#
# Needs, by plan: 430 MiB in fp32, 225 MiB at least (then parts of a step run again, with the same bits). Disk: 130 MB
# for a checkpoint, of which three are kept.
# Takes: 2000 updates of 2048 tokens, 23 minutes on two cores (from 702.5 ms a step, measured on an AMD EPYC, Zen 4).
#
# Expect: words and the look of the text after some hundred updates. Bytes are tokens; for other units see train_gpt
# tokenize --train-bpe, and give --tokenizer=FOLDER --data=TOKEN_FILES.
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ $# -ge 1 ] || usage
text=$1
shift

setting=(--model=llama-mini --batch-size=4 --seq-len=512 --recompute=auto)
training=(--data="$text" --steps=2000 --learning-rate=1e-3 --val-every=200 --sample-every=500 --checkpoint-every=500)
take "$@"
plan
train
