#!/bin/bash
# The delayed update: the same curve, samples, checkpoints and checksums to the bit as with each update at once, since
# whoever needs the parameters has the pending one flushed first: checkpoints, validation, samples, --check-ranks, a
# stop, the last step; after a kill, too. `plan` and the banner say when it is chosen and what it hides.
# shellcheck disable=SC2317  # functions are called through check
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

tiny=(--layers=4 --channels=32 --heads=2 --batch-size=2 --seq-len=32)
base=("${tiny[@]}" --data=text.txt --total-batch-size=128 --dtype=fp32 --steps=9 --warmup=2)
same_checkpoints() { # same_checkpoints FOLDER FOLDER: of all steps, weights and moments
    local tensors
    tensors=$(cd "$1/checkpoints" && find . -name '*.safetensors' | sort)
    [ -n "$tensors" ] && [ "$tensors" = "$(cd "$2/checkpoints" && find . -name '*.safetensors' | sort)" ] || return 1
    for tensors in $tensors; do cmp {"$1","$2"}/checkpoints/"$tensors" || return 1; done
}
with_sums() { sed 's/,"step_ms".*"parameters"/,"parameters"/; s/,"step_ms".*//' "$1/metrics.jsonl"; }

# ---- Each of those who need parameters, alone, and none but the last step ----

flushes=("checkpoint --checkpoint-every=2 --keep-checkpoints=0 --val-every=0 --sample-length=0"
    "validation --val-every=2 --val-sequences=4 --sample-length=0"
    "sample --val-every=0 --sample-every=2 --sample-length=16"
    "check-ranks --check-ranks --val-every=0 --sample-length=0"
    "last --val-every=0 --sample-length=0")
for row in "${flushes[@]}"; do
    read -r name options <<<"$row"
    read -r -a options <<<"$options"
    must "$name, at once" "${base[@]}" "${options[@]}" --update=now --output-dir="now-$name"
    cp out now.samples
    for offload in none moments all; do
        to=delayed-$name-$offload
        must "$name, delayed" "${base[@]}" "${options[@]}" --update=delayed --offload=$offload --output-dir="$to"
        check "$name, --offload=$offload: the banner says so" grep -q 'plan .* update delayed: .* at once, a step' err
        check "$name, --offload=$offload: the same curve" cmp <(with_sums "now-$name") <(with_sums "$to")
        check "$name, --offload=$offload: the same checkpoints" same_checkpoints "now-$name" "$to"
        check "$name, --offload=$offload: the same samples" cmp now.samples out
    done
done
check "checksums were compared" grep -q '"parameters":"' now-check-ranks/metrics.jsonl

# ---- A stop, a kill, and going on with the other kind ----

long=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=128 --warmup=2 --lr-schedule=constant --dtype=fp32)
# ended SIGNAL FOLDER OPTIONS...: a run of many steps that gets the signal after a few of them.
ended() {
    local signal=$1 folder=$2 pid
    shift 2
    "$TRAIN_GPT" "${long[@]}" --steps=4000 --output-dir="$folder" "$@" >out 2>err &
    pid=$!
    for _ in $(seq 600); do
        [ "$(grep -c '"loss"' "$folder/metrics.jsonl" 2>/dev/null)" -ge 5 ] 2>/dev/null && break
        sleep 0.1
    done
    kill "-$signal" $pid
    wait $pid 2>/dev/null
}
newest() { find "$1/checkpoints" -name 'step-*' | sort | tail -n 1; }

ended TERM stopped --update=delayed --offload=all
done_steps=$((10#$(newest stopped | sed 's/.*-//')))
must "as many steps, at once" "${long[@]}" --steps=$done_steps --update=now --output-dir=as-many
check "a stop flushes: step $done_steps is what it is at once" \
    cmp {as-many,stopped}/checkpoints/step-"$(printf %08d $done_steps)"/optimizer.safetensors
must "goes on at once" --resume=stopped --steps=$((done_steps + 3)) --update=now
must "never stopped" "${long[@]}" --steps=$((done_steps + 3)) --update=delayed --output-dir=whole
check "stopped while delayed, goes on at once: the same curve" cmp <(curve whole) <(curve stopped)

ended KILL killed --update=delayed --offload=moments,gradients --checkpoint-every=3
steps=$((10#$(newest killed | sed 's/.*-//') + 4))
must "after a kill" --resume=killed --steps=$steps
must "never killed" "${long[@]}" --steps=$steps --update=now --output-dir=alive
check "killed with an update pending: the same curve" cmp <(curve alive) <(curve killed)

# ---- What chooses it ----

planned() {
    run plan --json "${tiny[@]}" --vocab-size=257 --total-batch-size=64 --dtype=bf16 --device-profile=rtx4090 "$@"
}
number() { sed -n "s/^ *\"$1\": \([0-9.e+-]*\),*$/\1/p" out; }
planned --recompute=layer --offload=none
check "with everything on the device it is at once" grep -q '"update": "now"' out
planned --recompute=layer --offload=moments --update=now
now_ms=$(number predicted_step_ms)
check "--update=now is at once" grep -q '"update": "now"' out
planned --recompute=layer --offload=moments
check "with moments in host memory it is delayed" grep -q '"update": "delayed"' out
check "and is predicted to be faster: $(number predicted_step_ms) ms instead of $now_ms ms" \
    awk "BEGIN { exit !($(number predicted_step_ms) < $now_ms) }"
check "what an update at once would take is in it" test "$(number predicted_step_ms_with_update_now)" = "$now_ms"
run plan "${tiny[@]}" --vocab-size=257 --recompute=layer --offload=moments --update=delayed --list-steps
check "plan says so" grep -q 'layer: update delayed into the next forward; at once, ' out
check "plan --list-steps has the pending update before the layer" \
    awk '/layer 2, update .*pending/ { seen = 1 } /layer 2, forward of ln1/ { exit !seen }' out
refused "an unknown kind" 2 "update.*later" "${base[@]}" --update=later --output-dir=new

# ---- Ranks ----

if command -v mpirun >/dev/null && ldd "$TRAIN_GPT" | grep -q libmpi; then
    setting=("${base[@]}" --val-every=3 --val-sequences=4 --sample-every=3 --sample-length=8 --checkpoint-every=4)
    must_ranks "two ranks at once" 2 "${setting[@]}" --update=now --output-dir=two
    for mixture in "moments 0" "none 1" "all 2" "all 3"; do
        read -r offload zero <<<"$mixture"
        must_ranks "two ranks, $mixture" 2 "${setting[@]}" --update=delayed --offload="$offload" --zero="$zero" \
            --output-dir="two-$zero"
        if [ "$zero" -lt 2 ]; then # whose order of sums is another
            check "two ranks, --offload=$offload --zero=$zero: the same curve" cmp <(curve two) <(curve "two-$zero")
            check "two ranks, --offload=$offload --zero=$zero: the same checkpoints" same_checkpoints two "two-$zero"
        else
            must_ranks "two ranks, ZeRO $zero at once" 2 "${setting[@]}" --update=now --zero="$zero" \
                --output-dir="two-$zero-now"
            check "two ranks, --offload=$offload --zero=$zero: the same curve" \
                cmp <(curve "two-$zero-now") <(curve "two-$zero")
            check "two ranks, --offload=$offload --zero=$zero: the same checkpoints" \
                same_checkpoints "two-$zero-now" "two-$zero"
        fi
    done
else
    skip "ranks" "no mpirun, or a build without MPI"
fi

exit $((failures > 0))
