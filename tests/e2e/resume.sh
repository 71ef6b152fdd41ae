#!/bin/bash
# A run that was interrupted goes on as if it had not been: 20 steps are 10 steps, a resume, and 10 steps, bit for bit.
set -u
. tests/e2e/lib.bash

# same_ending WHOLE RESUMED: steps 11 .. 20 of the curve, and the final checkpoint to the byte.
same_ending() {
    local file
    cmp -s <(curve "$1" | sed -n '/"step":11,/,$p') <(curve "$2") || { echo "$2: another curve"; return 1; }
    for file in model.safetensors optimizer.safetensors manifest.json; do
        cmp "$1/checkpoints/step-00000020/$file" "$2/checkpoints/step-00000020/$file" || return 1
    done
}

# Validation within, and a total batch of two micro-batches: both have positions of their own in the data.
setting=(--layers=4 --channels=32 --heads=2 --batch-size=2 --seq-len=32 --total-batch-size=128 --data=text.txt
    --steps=20 --warmup=4 --val-every=4 --sample-length=0 --checkpoint-every=10)

resume() { # resume NAME FROM TO ARGUMENTS...
    local name=$1 from=$2 to=$3
    shift 3
    must "$name" --resume="$from/checkpoints/step-00000010" --output-dir="$to" "$@"
    check "$name" same_ending "$from" "$to"
}

for level in 0 1 2; do
    must "level $level" "${setting[@]}" --recompute=$level --output-dir=whole$level
    resume "20 steps = 10 + 10 at level $level" whole$level resumed$level
done
resume "switching from level 0 to 2 at the resume" whole0 switched02 --recompute=2
resume "switching from level 1 to 0 at the resume" whole1 switched10 --recompute=0
resume "switching from level 2 to act at the resume" whole2 switched2act --recompute=act
check "all levels end with the same weights" \
    cmp whole0/checkpoints/step-00000020/model.safetensors whole2/checkpoints/step-00000020/model.safetensors
resume "another number of threads at the resume" whole0 threads --threads=1

must "llama" "${setting[@]}" --model=llama-nano --kv-heads=1 --lr-schedule=wsd --recompute=1 --output-dir=llama
resume "LLaMA, with another schedule" llama llama-resumed --recompute=2

if bf16_works; then
    must "bf16" "${setting[@]}" --dtype=bf16 --recompute=1 --output-dir=bf16
    resume "bf16" bf16 bf16-resumed
    resume "bf16, switching from level 1 to 2" bf16 bf16-switched --recompute=2
else
    skip "bf16" "this processor or build has no bf16"
fi

# ---- into the same folder -----------------------------------------------------------------------

must "more steps" --resume=resumed0 --steps=24
check "resume by run folder goes on from the newest checkpoint, in the same folder" \
    test "$(cat resumed0/checkpoints/latest) $(grep -c '"loss"' resumed0/metrics.jsonl)" = "step-00000024 14"

cp -r whole0 rewound
must "from an older checkpoint" --resume=rewound/checkpoints/step-00000010
curve whole0 >whole0.curve
curve rewound >rewound.curve
check "going back to an older checkpoint drops the metrics after it" cmp whole0.curve rewound.curve

# ---- signals ------------------------------------------------------------------------------------

# Steps of a few milliseconds, so that a signal arrives in the middle.
long=(--layers=4 --channels=64 --heads=2 --batch-size=4 --seq-len=64 --total-batch-size=1024 --data=text.txt
    --steps=50 --warmup=4 --sample-length=0 --val-every=0)
must "the uninterrupted run" "${long[@]}" --output-dir=straight
curve straight >straight.curve

for signal in INT TERM; do
    "$TRAIN_GPT" "${long[@]}" --output-dir="cut-$signal" >out 2>err &
    job=$!
    for _ in $(seq 600); do
        [ "$(grep -c '"loss"' "cut-$signal/metrics.jsonl" 2>/dev/null)" -ge 3 ] 2>/dev/null && break
        sleep 0.02
    done
    kill -$signal "$job" 2>/dev/null
    wait "$job"
    status=$?
    done_steps=$(grep -c '"loss"' "cut-$signal/metrics.jsonl")
    if [ "$done_steps" -ge 50 ]; then
        skip "SIG$signal" "the run was over before the signal came"
        continue
    fi
    check "SIG$signal: the step is finished, exit code 0" test "$status" = 0
    check "SIG$signal: a checkpoint of the last step is there, and nothing temporary" \
        test "$(ls -A "cut-$signal/checkpoints" | tr '\n' ' ')" = "$(printf 'latest step-%08d ' "$done_steps")"
    check "SIG$signal: said in the log" grep -q "stopping after step $done_steps" err
    must "resume after SIG$signal" --resume="cut-$signal"
    curve "cut-$signal" >continued.curve
    check "SIG$signal: the continued run has the curve of the uninterrupted one" cmp straight.curve continued.curve
    check "SIG$signal: and its weights" \
        cmp {straight,"cut-$signal"}/checkpoints/step-00000050/model.safetensors
done

names() { ls -A "$1/checkpoints" | tr '\n' ' '; }

# ---- into another folder, without a step ------------------------------------------------------------

# Its last validation was cut short, which is made up for: what is said to be saved there, is.
must "whole" "${tiny[@]}" --sample-length=0 --data=text.txt --steps=4 --val-every=3 --output-dir=whole
sed -i '/"step":4,"val_loss"/d' whole/metrics.jsonl
must "no step into another folder" --resume=whole --output-dir=validated
check "no step into another folder: a checkpoint is there" test "$(names validated)" = "latest step-00000004 "
must "no step into another folder: going on" --resume=validated --steps=5

# ---- retention ----------------------------------------------------------------------------------

train kept --steps=10 --checkpoint-every=2 --keep-checkpoints=2
check "--keep-checkpoints=2 keeps the newest two" test "$(names kept)" = "latest step-00000008 step-00000010 "
train all --steps=5 --checkpoint-every=1 --keep-checkpoints=0
check "--keep-checkpoints=0 keeps all" test "$(names all | wc -w)" = 6

exit $((failures > 0))
