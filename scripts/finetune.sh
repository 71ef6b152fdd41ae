#!/bin/sh
# `make finetune`: the demo's model learns to answer questions by low-rank adapters alone, 5 % of its parameters. Shows
# the answers before and after, exports the adapters for PEFT, merges them, and evaluates both. About two minutes on
# two cores.
#
#   scripts/finetune.sh [TRAIN_GPT]
#
# Begins with the newest finished run of `make train` under runs/, or else with a short one of its own. Leaves what it
# makes in runs/finetune*.
set -eu
. "$(dirname "$0")/chat_common.sh"

bits() { "$train_gpt" evaluate "$@" --data=runs/finetune.txt --seq-len=128 --log-level=warn | grep 'bits per byte'; }

before=$(answers --run="$base")
head -c 100000 data/demo.txt >runs/finetune.txt
rm -rf runs/finetune runs/finetune-adapter runs/finetune-merged
"$train_gpt" --model="$base" --lora=16 --data=data/chat.jsonl --chat-template=data/chat.jinja --steps=400 \
    --batch-size=8 --learning-rate=5e-3 --warmup=20 --val-every=0 --sample-length=0 --log-every=50 \
    --output-dir=runs/finetune
"$train_gpt" export --run=runs/finetune --format=peft --out=runs/finetune-adapter
"$train_gpt" export --run=runs/finetune --merge --out=runs/finetune-merged

echo
echo "before:"
echo "$before"
echo "after, the base with its adapters:"
answers --run="$base" --adapter=runs/finetune-adapter
echo "on a piece of the demo's text, which it has half forgotten, the base with its adapters:"
echo "  $(bits --run="$base" --adapter=runs/finetune-adapter)"
echo "the same, merged:"
echo "  $(bits --model=runs/finetune-merged)"
echo
echo "talk to it: $train_gpt generate --run=runs/finetune --chat --temperature=0"
