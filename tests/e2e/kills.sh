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

last=checkpoints/$(printf 'step-%08d' $steps)
# same: what the killed run became is what the whole one is.
same() {
    local file
    cmp <(curve whole) <(curve killed) || return
    for file in model.safetensors optimizer.safetensors manifest.json; do
        cmp whole/$last/$file killed/$last/$file || return
    done
    cmp {whole,killed}/checkpoints/best && [ -z "$(find killed -name '*tmp*' -o -name lock)" ]
}

# Where a run comes to its end between two kills, another one begins.
kills=0
rounds=0
while [ $kills -lt 30 ] && [ $rounds -lt 90 ] && [ $failures -eq 0 ]; do
    rounds=$((rounds + 1))
    start
    sleep "$(printf '0.%03d' $((RANDOM % 250 + 20)))"
    kill -KILL $job
    wait $job
    status=$?
    case $status in
        137) kills=$((kills + 1)) ;;
        0) check "a run after $kills kills: the curve and the checkpoint to the bit" same && rm -r killed ;;
        *) not_ok "a resume after a kill" "exit code $status: $(tail -n 2 err | tr '\n' ' ')" ;;
    esac
done 2>/dev/null
check "30 kills met a run" test $kills -eq 30
start
wait $job
check "the last resume ends well" test $? -eq 0
check "after 30 kills: the curve and the checkpoint to the bit" same

exit $((failures > 0))
