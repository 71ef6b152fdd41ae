#!/bin/bash
# State in host memory: the same curve, checkpoints and samples to the bit wherever it is; planned bytes are allocated
# bytes on device and host; a run that is stopped or killed goes on with another placement; what is short or contradicts
# itself is refused before anything is allocated, with a placement that works.
# shellcheck disable=SC2317  # functions are called through check
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

tiny=(--layers=4 --channels=32 --heads=2 --batch-size=2 --seq-len=32)
base=("${tiny[@]}" --data=text.txt --total-batch-size=128 --steps=8 --warmup=2 --val-every=4
    --val-sequences=4 --sample-every=4 --sample-length=16 --checkpoint-every=4)
half=checkpoints/step-00000004
end=checkpoints/step-00000008

same_end() { # same_end FOLDER FOLDER: validation, samples' weights, moments
    cmp <(curve "$1") <(curve "$2") && cmp {"$1","$2"}/$end/model.safetensors &&
        cmp {"$1","$2"}/$end/optimizer.safetensors
}
second_half() { sed -n '/"step":5,/,$p'; }

dtypes=(fp32)
bf16_works && dtypes+=(bf16)
for dtype in "${dtypes[@]}"; do
    must "$dtype" "${base[@]}" --dtype="$dtype" --output-dir="$dtype"
    cp out "$dtype.samples"
    mixtures=("moments 0" "parameters sqrt" "boundaries act" "all auto" "all none")
    [ "$dtype" = fp32 ] || mixtures=("masters,gradients layer" "all 2")
    for mixture in "${mixtures[@]}"; do
        read -r offload level <<<"$mixture"
        name=$dtype-$offload-$level
        must "$name" "${base[@]}" --dtype="$dtype" --offload="$offload" --recompute="$level" --output-dir="$name"
        check "$name: the same curve, weights and moments" same_end "$dtype" "$name"
        check "$name: the same samples" cmp "$dtype.samples" out
    done
done

# ---- Bytes ----

must "the banner" "${base[@]}" --offload=moments,gradients --dry-run
check "the banner says what is where" grep -q 'offload moments and gradients on the host' err
check "the banner has the host's rows" test "$(grep -c 'host .* optimiser.s moments\|host .* gradients' err)" = 2
run plan --json "${tiny[@]}" --vocab-size=257 --recompute=0 --offload=moments,gradients --dtype=fp32
in_json() { sed -n "s/^ *\"$1\": \([0-9][0-9]*\),*$/\1/p" out; }
moments=$(in_json "optimiser's moments") gradients=$(in_json gradients) all=$(in_json host_bytes)
check "plan --json: the host's rows add up" test "$((moments + gradients))" = "$all"
check "plan --json: moments are twice the gradients" test "$moments" = $((2 * gradients))
run plan "${tiny[@]}" --recompute=0,layer --offload=all
check "plan's table has the host's bytes" grep -q '^host total  *[0-9.]* *[0-9.]*$' out

# ---- Going on with another placement ----

for then in none moments,gradients all; do
    must "resumed with $then" --resume=fp32-moments-0/$half --offload=$then --output-dir="resumed-$then"
    check "stopped with moments on the host, goes on with $then: the same curve" \
        cmp <(curve fp32 | second_half) <(curve "resumed-$then" | second_half)
    check "and says so" grep -q 'resume .* from here on; before: 1 ranks*, .*on the host' err
done

long=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=128 --warmup=2 --lr-schedule=constant)
"$TRAIN_GPT" "${long[@]}" --steps=4000 --checkpoint-every=2 --offload=all --output-dir=killed >out 2>err &
pid=$!
for _ in $(seq 600); do
    [ -e killed/checkpoints/step-00000004 ] && break
    sleep 0.1
done
kill -KILL $pid
wait $pid 2>/dev/null
newest=$(find killed/checkpoints -name 'step-*' | sort | tail -n 1)
steps=$((10#${newest##*-} + 2))
must "after a kill" --resume=killed --offload=gradients,boundaries --recompute=layer --steps=$steps
must "never killed" "${long[@]}" --steps=$steps --output-dir=whole
check "killed with everything on the host, it goes on with another placement: the same curve" \
    cmp <(curve whole) <(curve killed)

# ---- Commands that need whole parameters ----

run generate --run=fp32-all-auto --prompt="In the" --length=8
cp out of-all
run generate --run=fp32 --prompt="In the" --length=8
check "generate: the same text" cmp of-all out
run export --run=fp32-all-none --out=exported-all
run export --run=fp32 --out=exported
check "export: the same weights" cmp exported{-all,}/model.safetensors

# ---- What is refused ----

setting=("${base[@]}" --output-dir=new)
refused "an unknown name" 2 "offload=moment: 'moment' is nothing .*did you mean moments" "${setting[@]}" \
    --offload=moment
refused "an empty name" 2 "offload=moments,: '' is nothing" "${setting[@]}" --offload=moments,
refused "none and others" 2 "'none' contradicts the rest" "${setting[@]}" --offload=none,moments
refused "all and others" 2 "'all' contradicts the rest" "${setting[@]}" --offload=masters,all
refused "recompute=offload without boundaries" 2 "add boundaries to the list" "${setting[@]}" --offload=moments \
    --recompute=offload
refused "a budget that is none" 2 "host-memory-budget=lots" "${setting[@]}" --host-memory-budget=lots
refused "more than the host has" 2 "host-memory-budget=9000GiB: this host has .* in all" "${setting[@]}" \
    --offload=moments --host-memory-budget=9000GiB
run "${setting[@]}" --host-memory-budget=1GiB --dry-run
check "a budget for nothing is noted" \
    test "$status $(grep -c 'W --host-memory-budget: has no effect; .*add --offload' err)" = "0 1"
refused "host memory that is not there" 1 "not enough host memory: --offload=all keeps .*-memory-budget; .*take --" \
    "${setting[@]}" --offload=all --host-memory-budget=100KiB
advice=$(sed -n 's/.* take\( --[^(]*\) (predicted.*/\1/p' err)
# shellcheck disable=SC2086  # words
run "${setting[@]}" $advice
check "the placement it names works:$advice" test "$status" = 0
rm -rf new

run plan --json "${tiny[@]}" --vocab-size=257 --recompute=sqrt --offload=all --dtype=fp32
budget=$(($(in_json total_bytes) + 200000))
refused "too little device memory" 1 "not enough memory: .*What would do: .*take .*--offload=" "${setting[@]}" \
    --dtype=fp32 --memory-budget="$budget"B
advice=$(sed -n 's/.* take\( --[^(]*\) (predicted.*/\1/p' err)
# shellcheck disable=SC2086  # words
run "${setting[@]}" --dtype=fp32 --memory-budget="$budget"B $advice
check "the placement it names works, too:$advice" test "$status" = 0
rm -rf new

# ---- Ranks ----

if command -v mpirun >/dev/null && ldd "$TRAIN_GPT" | grep -q libmpi; then
    must_ranks "two ranks" 2 "${base[@]}" --check-ranks --output-dir=two
    for mixture in "all 0" "parameters,gradients 1" "all 3"; do
        read -r offload zero <<<"$mixture"
        must_ranks "two ranks, $mixture" 2 "${base[@]}" --check-ranks --offload="$offload" --zero="$zero" \
            --output-dir="two-$zero"
        check "two ranks, --offload=$offload --zero=$zero: the same curve and parameters" \
            cmp <(sed 's/,"step_ms".*"parameters"/,"parameters"/' two/metrics.jsonl) \
            <(sed 's/,"step_ms".*"parameters"/,"parameters"/' "two-$zero/metrics.jsonl")
    done
    must "one rank goes on" --resume=two-3/$half --offload=moments --output-dir=one
    check "two ranks, then one: it goes on" grep -q '"step":8,' one/metrics.jsonl
else
    skip "ranks" "no mpirun, or a build without MPI"
fi

exit $((failures > 0))
