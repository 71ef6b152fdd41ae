#!/usr/bin/env bash
# Llama 3 8B, or another model of its size, in full on one card of 24 GB: all parameters train, what does not fit is in
# host memory and comes to the card for the steps that use it.
#
#   scripts/recipes/llama3_8b_full_24gb.sh MODEL DATA [--OPTION=VALUE of train_gpt...]
#
#   scripts/recipes/llama3_8b_full_24gb.sh Meta-Llama-3-8B/ 'notes/*.txt' --steps=500 --output-dir=runs/notes
#
# MODEL is the Hugging Face folder, DATA is text or token files. 4 x 2048 tokens at a time, 65,536 per update.
#
# Needs, by plan: 22.5 GiB of the card, and host memory of 147 GB with the optimiser's state in fp32. Where there is
# less, the state is smaller: 8-bit moments, no master weights, bf16 gradients (50 GB). The plan comes first, tries
# both, and refuses where neither fits; it needs no card. HOST_MEMORY=64GB is another limit than what is available here
# less 2 GB. Disk: 16 GB of model, and what is trained: up to 112 GB for a checkpoint in fp32, 33 GB with the smaller
# state; one is kept.
# Takes, predicted for an RTX 4090 and never measured: 39 s an update (1690 tokens/s), 35 s with the smaller state
# (1850).
#
# Expect: what full fine-tuning gives, at the speed of the bus; adapters (llama3_8b_lora_24gb.sh) are faster, and need
# little host memory. The smaller state rounds stochastically: what was measured of it is in dev/notes/log.md.
# Afterwards:  train_gpt export --run=RUN --format=hf --out=FOLDER
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ $# -ge 2 ] || usage
model=$1 data=$2
shift 2
host=${HOST_MEMORY:-$(awk '/^MemAvailable:/ { printf "%dMiB", $2 / 1024 - 1907 }' /proc/meminfo)}

setting=(--model="$model" --dtype=bf16 --batch-size=4 --seq-len=2048 --total-batch-size=65536 --recompute=auto
    --offload=auto --memory-budget=22.5GiB --host-memory-budget="$host")
planning=(--device-profile=rtx4090)
training=(--data="$data" --device=cuda --steps=1000 --learning-rate=1e-5 --checkpoint-every=250 --keep-checkpoints=1)
take "$@"
status=0
plan || status=$?
if [ $status -eq 1 ]; then
    echo "state in fp32 does not fit; with 8-bit moments, no master weights, bf16 gradients:" >&2
    take --moments=8bit --masters=none --gradients=bf16
    plan
elif [ $status -ne 0 ]; then
    exit $status
fi
train
