#!/bin/bash
# kill -9 at random moments, each followed by a resume: in the end the curve and the checkpoint are those of a run that
# nobody killed, to the bit.
set -u
. tests/e2e/ranks.bash # for its ways to wait
. tests/e2e/lib.bash

RANDOM=17
steps=360
setting=("${tiny[@]}" --sample-length=0 --data=text.txt "--steps=$steps" --warmup=9 --val-every=7 --val-sequences=4
    --checkpoint-every=3 --keep-best --keep-checkpoints=2)
must "a run that is left alone" "${setting[@]}" --output-dir=whole

# start: the run goes on, or begins where there is nothing to go on from.
start() {
    if compgen -G 'killed/checkpoints/step-*/manifest.json' >check.out; then
        "$TRAIN_GPT" --resume=killed >out 2>err &
    else
        "$TRAIN_GPT" "${setting[@]}" --output-dir=killed >out 2>err &
    fi
    job=$!
}

kills=0
over=0
for _ in $(seq 30); do
    start
    sleep "$(printf '0.%03d' $((RANDOM % 250 + 20)))"
    kill -KILL $job
    wait $job
    status=$?
    case $status in
        137) kills=$((kills + 1)) ;;
        0) over=$((over + 1)) ;;
        *) not_ok "a resume after a kill" "exit code $status: $(tail -n 2 err | tr '\n' ' ')" ;;
    esac
done 2>/dev/null
start
wait $job
check "30 kills, the last resume ends well" test "$?:$((kills + over))" = 0:30
check "most kills met a run" test $kills -ge 20
check "the curve is that of the run that was left alone" cmp <(curve whole) <(curve killed)
last=checkpoints/$(printf 'step-%08d' $steps)
for file in model.safetensors optimizer.safetensors manifest.json; do
    check "and so is $file" cmp whole/$last/$file killed/$last/$file
done
check "nothing temporary stays" test -z "$(find killed -name '*tmp*' -o -name lock)"

exit $((failures > 0))
