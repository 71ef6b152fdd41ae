#!/bin/bash
# Descriptors that are closed, full or few: no file is mistaken for the terminal, and a command whose output cannot be
# written fails and says why, while a training goes on.
# shellcheck disable=SC2317  # functions are called through check
set -u
. tests/e2e/ranks.bash # for newest
. tests/e2e/lib.bash

setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=6)
only_json() { ! grep -v '^{.*}$' "$1/metrics.jsonl"; }

# ---- closed ----

"$TRAIN_GPT" "${setting[@]}" --output-dir=none <&- >&- 2>&-
check "without descriptors 0, 1 and 2 it trains" test "$?:$(newest none)" = 0:6
check "and metrics.jsonl has metrics only" only_json none
"$TRAIN_GPT" "${setting[@]}" --output-dir=no_error 2>&-
check "without descriptor 2: train.log has every line once" test "$?:$(grep -c ' I rate ' no_error/train.log)" = 0:1
"$TRAIN_GPT" "${tiny[@]}" --data=text.txt --steps=6 --sample-every=1 --sample-length=9 --output-dir=no_output >&- 2>err
check "without descriptor 1: it trains" test "$?:$(newest no_output)" = 0:6
check "and no sample is in a file" only_json no_output
"$TRAIN_GPT" plan "${tiny[@]}" >&- 2>err
check "without descriptor 1 plan has done its work" test $? = 0
# What a file descriptor of the program is connected to: nothing below 3 is a file of its own.
"$TRAIN_GPT" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1000000 --output-dir=looked_at <&- >&- 2>&- &
job=$!
eventually 30 steps_done looked_at 2
check "0 to 2 are /dev/null" test "$(readlink /proc/$job/fd/{0,1,2} | sort -u)" = /dev/null
kill -TERM $job
wait $job

# ---- full ----

# into_full NAME ARGUMENTS...: exit code 1 and one line of error, with the reason.
into_full() {
    "$TRAIN_GPT" "${@:2}" >/dev/full 2>err
    status=$?
    check "into a full device: $1" test "$status $(grep -c -v ' I ' err) $(
        grep -c ' E cannot write to standard output: No space left on device$' err)" = "1 1 1"
}
into_full "plan" plan "${tiny[@]}"
into_full "plan --json" plan "${tiny[@]}" --json
into_full "plan --list-steps" plan "${tiny[@]}" --recompute=1 --list-steps
into_full "plan --frontier" plan "${tiny[@]}" --frontier
into_full "plan --what-fits" plan --layers=3 --channels=32 --heads=2 --what-fits=1MiB
into_full "generate" generate --run=none --length=3
into_full "evaluate" evaluate --run=none
into_full "tokenize" tokenize --tokenizer=bytes --out=full/tokens text.txt
into_full "tokenize --train-bpe" tokenize --train-bpe --vocab-size=260 --out=full_bpe text.txt
into_full "--help" --help
into_full "plan --help" plan --help
into_full "--version" --version
SECONDS=0
into_full "generate, which does not go on for ever" generate --run=none --ignore-eos --length=1000000000
check "and ends at once" test $SECONDS -lt 60
"$TRAIN_GPT" plan "${tiny[@]}" 1</dev/null 2>err
check "a descriptor that is only for reading" test "$?:$(grep -c ' E cannot write to standard output: ' err)" = 1:1

"$TRAIN_GPT" "${tiny[@]}" --data=text.txt --steps=6 --sample-every=2 --sample-length=9 --output-dir=samples \
    >/dev/full 2>err
status=$?
check "samples into a full device: all is trained and saved" test "$(newest samples)" = 6
check "said once, and again at the end" test "$status $(grep -c ' W a sample is not shown: cannot write' err) $(
    grep -c ' E cannot write to standard output: No space' err)" = "1 1 1"
"$TRAIN_GPT" "${setting[@]}" --output-dir=mute 2>/dev/full
check "a log into a full device" test "$?:$(newest mute)" = 0:6
mkdir linked
ln -s /dev/full linked/train.log
run "${setting[@]}" --output-dir=linked
check "a train.log that cannot be written" test "$status:$(newest linked)" = 0:6
check "is said once" test "$(grep -c 'train.log\|the log of the run folder lacks lines' err)" = 1

# ---- few ----

mkdir shards
for i in $(seq 100); do token_file shards/part_$i.bin uint16 $(seq "$i" $((i + 40))); done
few() { (ulimit -n 20 && exec "$TRAIN_GPT" "$@") >out 2>err; }
check "100 files with 20 descriptors" few "${tiny[@]}" "${quiet[@]}" --data=shards --tokenizer=none --steps=2 \
    --output-dir=few
for i in $(seq 100); do head -c 300 text.txt | gzip >"shards/part_$i.gz" && rm shards/part_$i.bin; done
check "and packed ones" few "${tiny[@]}" "${quiet[@]}" --data=shards --steps=2 --output-dir=few_packed
(ulimit -n 6 && exec "$TRAIN_GPT" "${setting[@]}" --output-dir=fewest) >out 2>err
status=$?
check "too few are refused before anything is trained" test "$status $(
    grep -c ' E 6 files may be open at a time (ulimit -n)' err) $([ ! -e fewest ] && echo none)" = "1 1 none"

exit $((failures > 0))
