#!/usr/bin/env bash
# GPT-2 124M on 10 billion tokens of FineWeb, with the settings of llm.c's reproduction.
#
#   scripts/recipes/gpt2_124m_fineweb.sh FOLDER [--OPTION=VALUE of train_gpt...]
#
# FOLDER has llm.c's token files, *_train_*.bin and *_val_*.bin, which its dev/data/fineweb.py makes, or which are found
# made at https://huggingface.co/datasets/kjj0/fineweb10B-gpt2 (20 GB). Nothing is downloaded here.
#
# Needs, by plan: micro-batch and level are the fastest that fit, with the same training: 7 GiB of card for 16 x 1024
# tokens with everything kept, 11.6 GiB for 32 x 1024. Disk: 20 GB of tokens, 1.5 GB for a checkpoint, of which three
# are kept.
# Takes: 18,865 updates of 524,288 tokens: 5.4 hours on an H100 (from 64.2 ms for 32 x 1024 tokens, measured), 28 hours
# on an RTX 4090 (predicted, not measured). Eight cards: NP=8 scripts/train_single_node.sh with the options printed at
# the start, and --zero=1.
#
# Expect: a loss about that of OpenAI's GPT-2 124M on the same text; this recipe was not run to its end here.
# Afterwards:
#   train_gpt evaluate --help      (HellaSwag, as llm.c measures it)
#   train_gpt export --run=RUN --format=hf --out=FOLDER
# Samples are numbers unless there is a tokenizer: --tokenizer=gpt2/ (vocab.json and merges.txt).
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ $# -ge 1 ] || usage
folder=$1
shift

setting=(--model=gpt2 --batch-size=auto --seq-len=1024 --total-batch-size=524288 --recompute=auto --tokenizer=none)
training=(--data="$folder/*_train_*.bin" --val-data="$folder/*_val_*.bin" --steps=18865 --learning-rate=6e-4
    --final-lr-fraction=0 --warmup=700 --weight-decay=0.1 --val-every=250 --checkpoint-every=1000)
take "$@"
plan
echo "train_gpt ${setting[*]} ${training[*]}"
train
