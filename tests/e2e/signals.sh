#!/bin/bash
# Every signal by which people, terminals and schedulers announce the end: the step is finished, a checkpoint written,
# exit code 0. What was ignored stays ignored, and as a container's process 1 the program ends, too.
# shellcheck disable=SC2317  # functions are called through check and eventually
set -u
. tests/e2e/ranks.bash # for its ways to wait
. tests/e2e/lib.bash

# What a script runs in the background ignores SIGINT and SIGQUIT; the jobs here are to take them.
as_in_front=(env --default-signal=INT,QUIT)
endless=("${tiny[@]}" "${quiet[@]}" --data=text.txt --lr-schedule=constant --warmup=0 --steps=1000000)
# Steps of a second and more.
slow=(--layers=4 --channels=128 --heads=2 --batch-size=16 --seq-len=128 --total-batch-size=16384 --val-every=0
    --sample-length=0 --data=text.txt --steps=100)

# start FOLDER COMMAND...: a run in the background, its process in $job, its output in the files out and err.
start() {
    "${@:2}" --output-dir="$1" >out 2>err &
    job=$!
}
end() {
    { wait "$job"; } 2>/dev/null # without the shell's own remarks
    status=$?
}
steps_of() { sed -n 's/^{"step":\([0-9]*\),"loss".*/\1/p' "$1/metrics.jsonl" 2>/dev/null | tail -n 1; }
# stopped_well NAME FOLDER: it ended with exit code 0 and a checkpoint of the last step done.
stopped_well() {
    check "$1" test "$status:$(newest "$2")" = "0:$(steps_of "$2")"
}

for signal in INT TERM QUIT HUP USR1 USR2 XCPU ALRM PWR; do
    start "on$signal" "${as_in_front[@]}" "$TRAIN_GPT" "${endless[@]}"
    eventually 30 steps_done "on$signal" 3
    kill -$signal $job
    end
    check "SIG$signal: said by its name" grep -q "stopping after step .*, as asked by .*SIG$signal" err
    stopped_well "SIG$signal: the step is finished and a checkpoint written" "on$signal"
    rm -rf "on$signal"
done

# ---- a limit of time, and a terminal that is gone ----

(ulimit -S -t 1 && exec "$TRAIN_GPT" "${endless[@]}" --output-dir=timed) >out 2>err
status=$?
stopped_well "a limit on processor time" timed

if command -v script >/dev/null; then
    script -qec "exec '$TRAIN_GPT' ${endless[*]} --output-dir=terminal" /dev/null </dev/null >/dev/null 2>&1 &
    job=$!
    eventually 30 steps_done terminal 3
    { kill -KILL $job; wait $job; } 2>/dev/null
    check "a terminal that is closed" eventually 30 grep -q ' I stopped: [0-9]* of 1000000 steps' terminal/train.log
    check "with a checkpoint" test "$(newest terminal)" = "$(steps_of terminal)"
else
    skip "a terminal that is closed" "there is no script(1)"
fi

# ---- asked again ----

start again "${as_in_front[@]}" "$TRAIN_GPT" "${slow[@]}"
eventually 60 steps_done again 1
for signal in HUP HUP XCPU USR2 INT; do
    kill -$signal $job
    sleep 0.12
done
end
stopped_well "terminals and schedulers may repeat themselves" again
check "SIGHUP is answered in the middle of a step" grep -q ' I stopping after this step$' err

start quits "${as_in_front[@]}" "$TRAIN_GPT" "${slow[@]}"
eventually 60 steps_done quits 1
kill -HUP $job
eventually 5 grep -q ' I stopping' err
kill -INT $job
sleep 0.3
kill -INT $job
end
check "Ctrl-C twice quits, whatever came before" test "$status" = 130
check "and says so" grep -q ' W quitting without saving, as asked again; --resume=quits goes on' err

# ---- ignored ----

(
    trap '' INT QUIT TERM HUP USR1 USR2 XCPU ALRM
    exec "$TRAIN_GPT" "${endless[@]}" --output-dir=ignores
) >out 2>err &
job=$!
eventually 30 steps_done ignores 3
for signal in INT QUIT TERM HUP USR1 USR2 XCPU ALRM; do kill -$signal $job; done
sleep 0.1
check "what its parent ignored, it ignores" eventually 30 steps_done ignores $(($(steps_of ignores) + 20))
kill -PWR $job
end
stopped_well "and takes what was not ignored" ignores

start nohup nohup "$TRAIN_GPT" "${endless[@]}"
eventually 30 steps_done nohup 3
kill -HUP $job
sleep 0.1
check "under nohup it goes on" eventually 30 steps_done nohup $(($(steps_of nohup) + 20))
kill -TERM $job
end
stopped_well "and ends by SIGTERM" nohup

start pauses "$TRAIN_GPT" "${endless[@]}"
eventually 30 steps_done pauses 3
state_is() { [ "$(sed 's/.*) \(.\).*/\1/' "/proc/$job/stat")" = "$1" ]; }
kill -TSTP $job
check "SIGTSTP stops it as any program" eventually 10 state_is T
kill -CONT $job
check "SIGCONT goes on" eventually 30 steps_done pauses $(($(steps_of pauses) + 20))
kill -TERM $job
end
stopped_well "and then it ends well" pauses

# ---- a reader that has enough ----

train model --steps=2
timeout 60 "$TRAIN_GPT" generate --run=model --ignore-eos --length=1000000000 2>err | head -c 50 >out
check "a reader that has enough ends generate" test "${PIPESTATUS[0]}" = 141
check "without a word" test "$(grep -c -v ' I ' err):$(wc -c <out)" = 0:50
timeout 60 "$TRAIN_GPT" "${tiny[@]}" --data=text.txt --val-every=0 --sample-every=1 --steps=30 \
    --output-dir=unread 2>err | true
check "but no training" test "${PIPESTATUS[0]}:$(newest unread):$(grep -c -v ' I ' err)" = 0:30:0

# ---- process 1 of a container ----

new=(unshare -pf --mount-proc)
"${new[@]}" true 2>/dev/null || new=(unshare -Upfr --mount-proc)
# first COMMAND...: as process 1, in the background; its number out here in $first.
first() {
    "${new[@]}" "${as_in_front[@]}" "$@" >out 2>err </dev/null &
    job=$!
    eventually 10 child_of_job >check.out
    first=$(child_of_job)
}
child_of_job() { cat "/proc/$job/task/$job/children" 2>/dev/null | grep .; }
# ends_first NAME CODE
ends_first() {
    gone() { ! kill -0 "$job"; }
    eventually 20 gone 2>/dev/null || kill -KILL $first
    end
    check "$1" test "$status" = "$2"
}
if "${new[@]}" true 2>/dev/null; then
    for signal in TERM INT HUP USR1 QUIT; do
        first "$TRAIN_GPT" generate --run=model --ignore-eos --length=1000000000
        eventually 20 test -s out
        kill -$signal $first
        ends_first "process 1: generate ends by SIG$signal" $((128 + $(kill -l $signal)))
    done
    mkfifo never
    exec 3<>never
    first bash -c 'exec "$0" tokenize --tokenizer=bytes --out=tokens - <never' "$TRAIN_GPT"
    sleep 0.5
    kill -TERM $first
    ends_first "process 1: tokenize ends by SIGTERM" 143
    exec 3>&-
    first "$TRAIN_GPT" "${endless[@]}" --output-dir=first
    eventually 30 steps_done first 3
    kill -TERM $first
    ends_first "process 1: SIGTERM ends a training" 0
    check "process 1: with a checkpoint" test "$(newest first)" = "$(steps_of first)"
    first "$TRAIN_GPT" "${slow[@]}" --output-dir=first2
    eventually 60 steps_done first2 1
    kill -INT $first
    eventually 5 grep -q ' I stopping' err
    sleep 0.2
    kill -INT $first
    ends_first "process 1: a second Ctrl-C ends a training" 130
    "${new[@]}" "$TRAIN_GPT" generate --run=model --ignore-eos --length=1000000000 2>err | head -c 50 >out
    check "process 1: a reader that has enough ends generate" test "${PIPESTATUS[0]}:$(grep -c -v ' I ' err)" = 141:0
else
    skip "process 1" "no rights to make a namespace of processes"
fi

# ---- ranks ----

for signal in HUP USR2; do
    rm -rf together
    start_ranks 2 "${endless[@]}" --output-dir=together
    eventually 60 steps_done together 3
    kill -$signal "${pids[1]}"
    end_of_ranks 60
    check "SIG$signal to one of two ranks ends both" test "${codes[*]}:$(newest together)" = "0 0:$(steps_of together)"
done

exit $((failures > 0))
