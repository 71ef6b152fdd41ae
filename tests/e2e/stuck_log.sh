#!/bin/bash
# A log that nobody reads any more, as behind a pager or a collector that has stopped: the main thread waits for it in
# the middle of a step. Signals are heard all the same, and a rank ends when others are gone.
# shellcheck disable=SC2317  # functions are called through eventually
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

endless=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=128 --steps=1000000)

# What a pipe has room for, in pages; what is longer than any step, and than any end, in seconds.
room=6 step=0.5 patience=20
is_sanitized && room=2 step=4 patience=120

# narrow_pipe NAME: a pipe with room for some steps' lines. (Full, and then a part of it read.)
narrow_pipe() {
    mkfifo "$1"
    exec 7<>"$1"
    dd if=/dev/zero of="$1" oflag=nonblock bs=4096 count=100000 2>/dev/null
    dd bs=4096 count=$room of=/dev/null status=none <&7
}

# is_stuck FOLDER: it has begun to train, and no step comes any more.
is_stuck() {
    local before
    [ -s "$1/metrics.jsonl" ] || return
    before=$(wc -l <"$1/metrics.jsonl")
    sleep "$step"
    [ "$before" -eq "$(wc -l <"$1/metrics.jsonl")" ]
}

narrow_pipe err
"$TRAIN_GPT" --threads=1 "${endless[@]}" --output-dir=alone >out 2>err &
pids=($!)
eventually 120 is_stuck alone
kill -TERM "${pids[0]}"
sleep 1.5 # Sooner it would be the same request.
kill -TERM "${pids[0]}"
end_of_ranks $patience
check "who is asked twice quits" test "${codes[*]}" = 143

exec 7>&-
if is_thread_sanitized; then
    skip "rank 0 ends after another" "the thread sanitizer flushes standard error in _exit"
    exit $((failures > 0))
fi
narrow_pipe err.0
start_ranks 2 "${endless[@]}" --output-dir=ranks
eventually 120 is_stuck ranks
kill -KILL "${pids[1]}" 2>/dev/null
end_of_ranks $patience
check "rank 0 ends after another" test "${codes[*]}" = "1 137"

exit $((failures > 0))
