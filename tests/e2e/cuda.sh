#!/bin/bash
# The whole program on the CUDA backend, its kernels executed on the CPU: training, validation, samples, checkpoints,
# resuming (also on the other backend), generation, evaluation.
# shellcheck disable=SC2317  # functions are called through eventually
set -u
. tests/e2e/ranks.bash # for its ways to wait
. tests/e2e/lib.bash

on_executor "the program on the CUDA backend" || exit 0
small=(--layers=2 --channels=64 --heads=2 --batch-size=2 --seq-len=32 --data=text.txt --warmup=1 --seed=3)
fit() { # fit FOLDER ARGUMENTS...
    must "$1" "${small[@]}" --device=cuda --val-every=2 --val-sequences=4 --sample-length=4 --output-dir="$1" "${@:2}"
}

fit whole --steps=4 --profile=trace.json
check "--dtype=auto is bf16 there" grep -q '^dtype = "bf16"' whole/config.toml
check "--profile times the device's operations" grep -Eq '^forward of att +2 +[0-9.]+' out
check "it validates and samples" grep -q -- '---- sample after 4 steps' out
for policy in layer sqrt act attn offload; do
    fit "$policy" --steps=4 --recompute="$policy"
    check "the curve of --recompute=$policy" cmp <(curve whole) <(curve "$policy")
done
fit half --steps=4 --recompute=1 --checkpoint-every=2 --keep-checkpoints=0
must "resume" --resume=half/checkpoints/step-00000002 --output-dir=resumed --device=cuda --steps=4 --recompute=0
check "2 + 2 steps are 4 steps, bit for bit" cmp whole/checkpoints/step-00000004/model.safetensors \
    resumed/checkpoints/step-00000004/model.safetensors
LLMC_CUDA_SEED=7 fit other --steps=4
check "another order of blocks and threads, the same bits" cmp <(curve whole) <(curve other)

# A step's first micro-batch begins before the numbers of the step before are read. Where the run is stopped then, it
# has not been.
stoppable=(--layers=1 --channels=32 --heads=1 --batch-size=1 --seq-len=32 --total-batch-size=64 --data=text.txt --seed=3
    --warmup=0 --lr-schedule=constant --val-every=0 --sample-length=0 --device=cuda)
for update in now delayed; do
    to=stopped-$update
    "$TRAIN_GPT" "${stoppable[@]}" --update=$update --steps=1000000 --output-dir="$to" >out 2>err &
    job=$!
    eventually 60 steps_done "$to" 3
    kill -TERM $job
    wait $job
    check "--update=$update: a stop" test "$?" -eq 0
    steps=$(newest "$to")
    check "--update=$update: after a step that was reported" test "$steps" = "$(grep -c '"loss"' "$to/metrics.jsonl")"
    must "as many steps" "${stoppable[@]}" --update=now --steps="$steps" --output-dir="counted-$update"
    check "--update=$update: the curve of as many steps" cmp <(curve "$to") <(curve "counted-$update")
    for part in model optimizer; do
        check "--update=$update: their $part" cmp {"$to","counted-$update"}/checkpoints/step-*/$part.safetensors
    done
done

must "generate" generate --run=whole --device=cuda --prompt="In the" --length=4 --temperature=0
must "evaluate" evaluate --run=whole --device=cuda
cp out there
TRAIN_GPT=$on_cpu
must "evaluate on the CPU" evaluate --run=whole --device=cpu
losses() { grep -oE '[0-9]+\.[0-9]{3,}' "$1" | head -n 1; }
check "the CPU finds the same loss in the checkpoint" \
    awk -v a="$(losses there)" -v b="$(losses out)" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 4e-4) }'
must "resume on the CPU" --resume=whole --device=cpu --steps=5 --sample-length=0 --val-every=0
exit $((failures > 0))
