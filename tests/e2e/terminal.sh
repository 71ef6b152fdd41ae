#!/bin/bash
# What a terminal shows: a status below the log while a step is slow, colour for warnings and errors only, text that
# fits.
set -u
. tests/e2e/lib.bash

if ! command -v script >/dev/null; then
    skip "terminals" "there is no script(1)"
    exit 0
fi

# terminal COLUMNS ARGUMENTS...: train_gpt at a terminal of that width; what it shows is in the file seen.
terminal() {
    local columns=$1
    shift
    script -qec "stty cols $columns; exec $(printf '%q ' "$TRAIN_GPT" "$@")" /dev/null </dev/null >seen 2>&1
    status=$?
}
# left: what stays to be read in the end; a line that was taken away does not.
left() { tr -d '\r' <seen | sed 's/.*\x1b\[K//'; }

slow=(--layers=3 --channels=32 --heads=2 --batch-size=1 --seq-len=32 "${quiet[@]}" --data=text.txt --threads=1 --steps=1
    --total-batch-size=$((32 * 16000)))
terminal 100 "${slow[@]}" --output-dir=slow
check "a slow step ends well" test "$status" = 0
check "meanwhile it says how far it is" \
    grep -qE 'step 1/1 \| micro-batch [0-9]+/16000 \| [0-9]+s of about [0-9ms ]+ \| [0-9ms ]+ left' seen
check "its line stands in the log, whole" test "$(left | grep -c '^step 1/1 | loss [0-9.]* | lr ')" = 1
check "and nothing of the status is left" test "$(left | grep -c 'micro-batch [0-9]*/16000 |')" = 0
check "nor in the log of the folder" test "$(grep -c 'of about' slow/train.log)" = 0
check "which has the banner" grep -q ' I model ' slow/train.log
run "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2 --output-dir=file
check "a file has no status, and no colour" test "$status $(grep -c -e "of about" -e $'\x1b' err)" = "0 0"

few=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1 --lr-decay-fraction=0.5)
terminal 100 "${few[@]}" --output-dir=colours
check "a warning has colour" grep -qE $'\x1b\\[[0-9;]*m.*--lr-decay-fraction: has no effect' seen
check "what is no warning has none" test "$(grep 'model ' seen | grep -c $'\x1b\[[1-9]')" = 0
NO_COLOR=1 terminal 100 "${few[@]}" --output-dir=plain
check "NO_COLOR is heeded" test "$(grep -c $'\x1b\[[0-9;]*m' seen)" = 0

terminal 40 "${slow[@]}" --output-dir=narrow
longest=$(tr '\r' '\n' <seen | grep -F 'step 1/1 | micro' | sed 's/.*\x1b\[K//' | awk '{ print length }' | sort -n |
    tail -n 1)
check "a status fits a narrow terminal" test "${longest:-99}" -le 39

printf 'odd \377\376 bytes \303 that are no text %s\n' {1..400} >bytes.txt
run "${tiny[@]}" --val-every=0 --data=bytes.txt --steps=1 --sample-length=200 --sample-every=1 --output-dir=bytes
check "samples are UTF-8" bash -c 'iconv -f UTF-8 -t UTF-8 out >/dev/null && grep -q "sample after 1 step " out'

controls=$'[\x01-\x08\x0e-\x1a]' # Without the escapes of the log's own colours.
talks=(generate --run=file --length=300 --temperature=1 --threads=1)
terminal 80 "${talks[@]}"
check "a terminal gets no control character of a model" test "$status $(LC_ALL=C grep -a -c "$controls" seen)" = "0 0"
check "but what it is" grep -q '\\x0[0-9a-f]' seen
run "${talks[@]}"
check "a pipe gets the bytes" test "$(LC_ALL=C grep -a -q "$controls" out && grep -a -c '\\x0[0-9a-f]' out)" = 0

exit $((failures > 0))
