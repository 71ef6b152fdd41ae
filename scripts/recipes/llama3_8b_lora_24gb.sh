#!/usr/bin/env bash
# Llama 3 8B on one card of 24 GB: adapters of rank 16 on every matrix, the base in bf16.
#
#   scripts/recipes/llama3_8b_lora_24gb.sh MODEL DATA [OPTION of train_gpt...]
#
#   scripts/recipes/llama3_8b_lora_24gb.sh Meta-Llama-3-8B/ 'notes/*.txt' --steps=1000 --output-dir=runs/notes
#
# MODEL is the Hugging Face folder, DATA is text or token files. 2 x 2048 tokens at a time, 32,768 per update. The plan
# comes first: it needs no card, and refuses where the memory is too small. 22 GB of 24 leave room for the driver.
#
# Afterwards:  train_gpt export --run=RUN --format=peft --out=ADAPTER     (for the library PEFT)
#              train_gpt export --run=RUN --merge --out=FOLDER            (a whole model)
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ $# -ge 2 ] || usage
model=$1 data=$2
shift 2

setting=(--lora=16 --dtype=bf16 --batch-size=2 --seq-len=2048 --total-batch-size=32768 --recompute=auto
    --memory-budget=22GB)
"$train_gpt" plan --model=llama3-8b --device-profile=rtx4090 "${setting[@]}"

exec "$train_gpt" --model="$model" --data="$data" --device=cuda "${setting[@]}" "$@"
