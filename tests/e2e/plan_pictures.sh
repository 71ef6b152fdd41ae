#!/bin/bash
# `plan`: memory against time, the timeline of a plan, and what fits; their pictures and their refusals.
set -u
. tests/e2e/lib.bash

# values KEY: every value of that key in the JSON text on stdin, a line each.
values() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},*$/\1/p"; }
is_picture() { [ "$(head -c 4 "$1")" = "<svg" ] && [ "$(tail -n 1 "$1")" = "</svg>" ]; }
well_formed() {
    if command -v python3 >/dev/null; then
        check "$1" python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$2"
    else
        skip "$1" "no python3"
    fi
}

# ---- memory against time ------------------------------------------------------------------

xl=(--model=gpt2-xl --batch-size=8 --seq-len=1024 --device-profile=h100)
must "--frontier" plan "${xl[@]}" --frontier --plot=frontier.svg --memory-budget=40GiB
check "--plot draws" is_picture frontier.svg
well_formed "--plot draws well-formed XML" frontier.svg
rows=$(grep -c -E '^(0 none|1 layer|2 sqrt|  act|  attn|  offload) ' out)
check "every policy has a row" test "$rows" = 6
check "a ladder of many plans" test "$(grep -c -E '% .* layers? 0' out)" -ge 20
check "the picture has the budget of the card" grep -q 'fits 40.0 GiB in all' frontier.svg
check "and the policy with host memory" grep -q 'offload +.* of host memory<' frontier.svg
must "--frontier within a budget" plan "${xl[@]}" --frontier --plot=tight.svg --memory-budget=20GiB
check "the floor is named where it binds" \
    grep -q 'nothing fits: parameters, gradients and optimiser alone take' out tight.svg
must "--frontier --json" plan "${xl[@]}" --frontier --json
gains() { # the points gained at level 2's memory, then halfway to level 1's
    awk -F'[:,]' '/"recompute": "sqrt"/ { at++ } /"gained_points"/ { if (at && seen < 2 && ++seen) print $2 }' out
}
mapfile -t gained < <(gains)
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a >= b) }'; }
check "auto gains 2 points in level 2's memory (${gained[0]})" at_least "${gained[0]}" 2
check "auto gains 10 points halfway to level 1 (${gained[1]})" at_least "${gained[1]}" 10
budget=$(values total_bytes <out | sed -n 5p)
must "one point of it" plan "${xl[@]}" --recompute=auto --memory-budget="$budget"B --json
check "a point's total is a budget that gives it" test "$(values total_bytes <out)" -le "$budget"

# ---- what fits ---------------------------------------------------------------------------------

must "--what-fits" plan --model=gpt2-xl --seq-len=1024 --what-fits=28GiB
check "says where learned positions end" grep -q 'learned positions for 1024' out
must "--what-fits of one level" plan "${tiny[@]:0:3}" --seq-len=32 --what-fits=20MiB --recompute=layer,auto --json
mv out fits.json
mapfile -t largest < <(values largest <fits.json)
total_of() { run plan "${tiny[@]:0:3}" --recompute=layer --json "$@" && values total_bytes <out; }
limit=$((20 * 1024 * 1024))
check "the batch fits to the byte" test "$(total_of --seq-len=32 --batch-size="${largest[0]}")" \
    = "$(values total_bytes <fits.json | head -n 1)"
check "one more does not" test "$(total_of --seq-len=32 --batch-size=$((largest[0] + 1)))" -gt $limit
check "the sequence fits" test "$(total_of --batch-size=1 --seq-len="${largest[1]}")" -le $limit
check "a longer one does not" test "$(total_of --batch-size=1 --seq-len=$((largest[1] + 64)))" -gt $limit
check "auto fits no less" test "${largest[2]}" -ge "${largest[0]}" -a "${largest[3]}" -ge "${largest[1]}"
must "nothing fits" plan --model=gpt2 --offload=none --what-fits=1GiB
check "then it says the smallest" grep -q '^nothing fits; the smallest is' out
must "a share of the device" plan "${tiny[@]:0:3}" --seq-len=32 --what-fits=1% --recompute=0

# ---- the timeline ---------------------------------------------------------------------------------

must "--timeline" plan "${tiny[@]}" --recompute=1 --timeline=timeline.svg --list-steps
check "--timeline draws" is_picture timeline.svg
well_formed "--timeline draws well-formed XML" timeline.svg
check "the picture names the peak's step" \
    grep -q "$(COLUMNS=200 "$TRAIN_GPT" plan "${tiny[@]}" -r 1 | sed -n 's/^1 layer .*[0-9]  //p')<" timeline.svg
check "--list-steps goes with it" grep -q 'backward of' out
must "over an older picture" plan "${tiny[@]}" --recompute=auto --timeline=timeline.svg --json
check "it is replaced" grep -q 'recompute=auto' timeline.svg

# ---- refusals -----------------------------------------------------------------------------------------

run plan "${tiny[@]}" --plot=x.svg
check "--plot alone is noted" test "$status $(grep -c 'W --plot: has no effect; .*--frontier' err)" = "0 1"
refused "a picture that is no SVG" 2 "--plot=x.png.*svg" plan --frontier --plot=x.png
refused "an empty name" 2 "--timeline" plan --recompute=1 --timeline=
refused "a timeline of no level" 2 "--timeline=x.svg.*--recompute" plan --timeline=x.svg
refused "a timeline of two levels" 2 "--timeline=x.svg.*--recompute" plan --recompute=1,2 --timeline=x.svg
refused "two reports" 2 "--what-fits.*--frontier" plan --frontier --what-fits=1GiB
refused "a timeline of a frontier" 2 "--timeline.*--frontier" plan --frontier --recompute=1 --timeline=x.svg
run plan "${tiny[@]}" --frontier --recompute=1
check "a frontier of one level: a note" test "$status $(grep -c 'W --recompute: has no effect' err)" = "0 1"
refused "a frontier of any batch" 2 "--batch-size" plan --frontier --batch-size=auto
run plan "${tiny[@]}" --what-fits=1MiB
check "a batch for what fits: a note" test "$status $(grep -c 'W --batch-size: has no effect' err)" = "0 1"
refused "no size" 2 "--what-fits=lots.*6GiB" plan --what-fits=lots
refused "an empty size" 2 "--what-fits" plan --what-fits=
cp text.txt mine.svg
refused "a picture over something else" 2 "--plot=mine.svg: is there already, and is no picture of train_gpt; name" \
    plan "${tiny[@]}" --frontier --plot=mine.svg
refused "a timeline too" 2 "--timeline=mine.svg: is there already, and is no picture" plan "${tiny[@]}" \
    --recompute=1 --timeline=mine.svg
check "which stays as it was" cmp text.txt mine.svg
refused "no such folder" 1 "--plot=absent/x.svg.*absent" plan "${tiny[@]}" --frontier --plot=absent/x.svg
mkdir folder.svg
refused "a folder's name" 1 "--timeline=folder.svg" plan "${tiny[@]}" --recompute=1 --timeline=folder.svg
check "the folder is left alone" test -d folder.svg
cp timeline.svg before.svg
(ulimit -f 4 && "$TRAIN_GPT" plan "${tiny[@]}" --recompute=1 --timeline=timeline.svg) >out 2>err
status=$?
check "a full disk is an error" test "$status" = 1 -a "$(grep -c -e '--timeline=timeline.svg' err)" = 1
check "and leaves the old picture" cmp timeline.svg before.svg
check "and nothing unfinished" test -z "$(find . -name '*.tmp')"

exit $((failures > 0))
