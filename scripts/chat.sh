#!/bin/sh
# `make chat`: the demo's model learns to answer questions, and shows it. About two minutes on two cores.
#
#   scripts/chat.sh [TRAIN_GPT]
#
# Begins with the newest finished run of `make train` under runs/, or else with a short one of its own. Leaves what it
# trains in runs/chat.
set -eu
. "$(dirname "$0")/chat_common.sh"

before=$(answers --run="$base")
rm -rf runs/chat
"$train_gpt" --model="$base" --data=data/chat.jsonl --chat-template=data/chat.jinja --steps=350 --batch-size=8 \
    --learning-rate=1e-3 --warmup=20 --val-every=0 --sample-length=0 --log-every=50 --output-dir=runs/chat

echo
echo "before:"
echo "$before"
echo "after:"
answers --run=runs/chat
echo
echo "talk to it: $train_gpt generate --run=runs/chat --chat --temperature=0"
