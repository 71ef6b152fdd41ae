#!/bin/sh
# `make chat`: the demo's model learns to answer questions, and shows it. About two minutes on two cores.
#
#   scripts/chat.sh [TRAIN_GPT]
#
# Begins with the newest finished run of `make train` under runs/, or else with a short one of its own. Leaves what it
# trains in runs/chat.
set -eu
cd "$(dirname "$0")/.."
train_gpt=${1:-./train_gpt}
questions="Who built the ark?|What is the opposite of light?|What comes after 41?|Say, who was the wise king?"

data/chat.sh

base=
for run in runs/gpt2-nano-* runs/chat-base; do
    if [ -e "$run/checkpoints/latest" ] || ls "$run"/checkpoints/step-* >/dev/null 2>&1; then base=$run; fi
done
if [ -z "$base" ]; then
    data/demo.sh
    "$train_gpt" --steps=800 --val-every=0 --sample-length=0 --output-dir=runs/chat-base
    base=runs/chat-base
fi

# answers RUN: what a run says to the questions.
answers() {
    echo "$questions" | tr '|' '\n' | while read -r question; do
        answer=$("$train_gpt" generate --run="$1" --chat --chat-template=data/chat.jinja --prompt="$question" \
            --temperature=0 --length=40 --log-level=warn </dev/null | tr '\n' ' ')
        printf '  %-32s %s\n' "$question" "$answer"
    done
}

before=$(answers "$base")
rm -rf runs/chat
"$train_gpt" --model="$base" --data=data/chat.jsonl --chat-template=data/chat.jinja --steps=350 --batch-size=8 \
    --learning-rate=1e-3 --warmup=20 --val-every=0 --sample-length=0 --log-every=50 --output-dir=runs/chat

echo
echo "before:"
echo "$before"
echo "after:"
answers runs/chat
echo
echo "talk to it: $train_gpt generate --run=runs/chat --chat --temperature=0"
