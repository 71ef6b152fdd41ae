#!/usr/bin/env bash
# Llama 3 70B on four cards of 80 GB: adapters of rank 16 on every matrix, the base in bf16, shared by the ranks (ZeRO
# stage 3).
#
#   scripts/recipes/llama3_70b_lora_4x80gb.sh MODEL DATA [OPTION of train_gpt...]
#
#   scripts/recipes/llama3_70b_lora_4x80gb.sh Meta-Llama-3-70B/ 'notes/*.txt' --steps=1000 --output-dir=runs/notes
#
# MODEL is the Hugging Face folder, DATA is text or token files. A sequence of 4096 tokens per card at a time, 131,072
# tokens per update. The plan comes first: it needs no card, and refuses where the memory is too small.
#
# The ranks are mpirun's; MPIRUN_ARGS has further arguments for it. Checkpoints hold the base once (141 GB), then what
# trains (2.5 GB each).
#
# Afterwards:  train_gpt export --run=RUN --format=peft --out=ADAPTER     (for the library PEFT)
#              train_gpt export --run=RUN --merge --out=FOLDER            (a whole model)
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ $# -ge 2 ] || usage
model=$1 data=$2
shift 2

setting=(--lora=16 --dtype=bf16 --zero=3 --batch-size=1 --seq-len=4096 --total-batch-size=131072 --recompute=auto
    --memory-budget=74GB)
"$train_gpt" plan --model=llama3-70b --ranks=4 --device-profile=h100 "${setting[@]}"

NP=4 exec "$(dirname "$0")/../train_single_node.sh" --model="$model" --data="$data" --device=cuda "${setting[@]}" "$@"
