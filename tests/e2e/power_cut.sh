#!/bin/bash
# The power goes: of all that was not synced, nothing is left, or the names without what the files held, or some of it.
# What a run or a command has said to be saved is there, and a run goes on from it, bit for bit.
# shellcheck disable=SC2317  # functions are called by name
set -u
. tests/e2e/ranks.bash
. tests/chaos/power_cut.bash
. tests/e2e/lib.bash

faults=$BUILD_DIR/faults.so
if [ ! -e "$faults" ] || is_sanitized; then
    skip "power cuts" "a sanitizer, or no $faults"
    exit 0
fi

# on_disk CUT COMMAND...: with an image of the folder disk, and a cut before the change of that number; 0: none.
faulty= # words before a program
on_disk() {
    rm -rf disk.image
    faulty="env CHAOS_DISK=$PWD/disk CHAOS_FAULT=power:$1 LD_PRELOAD=$faults ${counting-}"
    shift
    if [ "$1" = two_ranks ]; then "$@"; else $faulty "$@"; fi >out 2>err &
    wait $!
    status=$?
    faulty=
} 2>/dev/null # without the shell's own remarks on killed jobs
count_changes() {
    echo 0 >count
    counting="CHAOS_COUNT=$PWD/count" on_disk 0 "$@"
}

# ---- trainings -----------------------------------------------------------------------------------------------------

steps=12
common=("${tiny[@]}" --data="$PWD/text.txt" --tokenizer="$PWD/words" --lr-schedule=constant --warmup=0 --steps=$steps
    --checkpoint-every=4 --val-every=5 --val-sequences=4 --sample-every=7 --sample-length=5)

# state RUN: what of it must be there, as text: weights, names, the curve, options and tokenizer.
state() {
    (
        cd "$1" || exit 1
        echo checkpoints/*
        cat checkpoints/latest checkpoints/best 2>/dev/null
        cksum checkpoints/step-*/*model*.safetensors tokenizer/*
        curve .
    ) 2>&1
}

# survives STEP COMMAND...: why the run is not what it was to be: the command goes on from this step or a later one, and
# ends as the run that had no accident, in `whole`. Nothing where it does.
survives() {
    local step=$1 from
    shift
    "$@" >out 2>err || { echo "exit code $?: $(tail -n 2 err | head -c 400)"; return; }
    from=$(goes_on_from err $steps)
    [ "$from" -ge "$step" ] || { echo "step $step was saved, and it goes on from $from"; return; }
    diff <(state whole) <(state disk/run) >difference 2>&1 ||
        echo "it is another one: $(head -c 400 difference | tr '\n' ' ')"
}

# cut_everywhere NAME STRIDE PREPARE COMMAND...: cuts before every so many changes. PREPARE makes the folder disk.
cut_everywhere() {
    local name=$1 stride=$2 prepare=$3 cut what step why cuts=0 bad=0
    shift 3
    $prepare
    count_changes "$@"
    [ "$status" = 0 ] || { not_ok "$name" "exit code $status: $(tail -n 2 err)"; return; }
    rm -rf whole
    mv disk/run whole
    for ((cut = 1; cut <= $(cat count) && bad < 3; cut += stride)); do
        $prepare
        on_disk "$cut" "$@"
        case $status in
            0 | 137) ;;
            *) not_ok "$name, cut $cut" "exit code $status: $(tail -n 2 err)"; return ;;
        esac
        step=$(as_said err)
        rm -rf disk.cut disk.cut.image
        mv disk disk.cut
        mv disk.image disk.cut.image
        for what in none names some; do
            disk_after_cut disk.cut $what disk "$cut"
            why=$(survives "${goes_from:-$step}" "$@")
            [ -n "$why" ] || why=$($also_holds)
            [ -z "$why" ] || { not_ok "$name, cut $cut, $what" "$why"; bad=$((bad + 1)); }
            rm -rf disk
            cuts=$((cuts + 1))
        done
    done
    [ "$bad" -gt 0 ] || check "$name: $cuts power cuts" [ "$cuts" -gt 9 ]
}
goes_from=   # where the command says so itself
also_holds=: # in the end; says what does not

empty_disk() { rm -rf disk && mkdir disk; }

must "a tokenizer" tokenize --train-bpe --vocab-size=300 --out=words text.txt
alone=("$TRAIN_GPT" "${common[@]}" --threads=1 --output-dir="$PWD/disk/run" --resume=1)
cut_everywhere "a run that keeps few" "$(all_or 59 1)" empty_disk "${alone[@]}" --keep-checkpoints=1 --keep-best
cut_everywhere "a new run" "$(all_or 41 1)" empty_disk "${alone[@]}"
cp -r whole first

# What somebody else has made a moment before: with the same image, so that it is not on the disk yet.
empty_disk
on_disk 0 bash -c 'mkdir disk/run && exec "$@"' bash "${alone[@]}"
rm -rf after
disk_after_cut disk none after
check "a folder that was there stays" diff <(state first) <(state after/run)

empty_disk
on_disk 0 env -C disk "$TRAIN_GPT" "${common[@]}" --threads=1
rm -rf after
disk_after_cut disk none after
check "a run in runs/ stays" diff <(state first) <(state after/runs/*)

# Back to an earlier checkpoint with another rate: the later ones are in the run, or put aside, and all that is theirs.
run_to_its_end() { empty_disk && cp -r first disk/run; }
abandoned_from() { state "$1" | grep -v -e ' checkpoints/step-00000004/' -e '^checkpoints/'; }
no_branch_lost() {
    local place
    for place in disk/run disk/run/abandoned/*; do
        diff <(abandoned_from first) <(abandoned_from "$place") >/dev/null && return
    done
    echo "the branch that was left is lost"
}
goes_from=4
also_holds=no_branch_lost
back=("$TRAIN_GPT" --resume="$PWD/disk/run/checkpoints/step-00000004" --learning-rate=0.001 --steps=$steps --threads=1)
cut_everywhere "back to an earlier step" "$(all_or 47 1)" run_to_its_end "${back[@]}"
goes_from=
also_holds=:

# Checkpoints that share a file of frozen weights, by links.
cut_everywhere "frozen weights" "$(all_or 97 1)" empty_disk "${alone[@]}" --freeze='wte,layers.0-1.*'

# ---- ranks -----------------------------------------------------------------------------------------------------------

# two_ranks ARGUMENTS...: the cut is before a change of rank 0; the other ends at its own next one, or without rank 0.
two_ranks() {
    with=("$faulty" "${faulty:+$faulty CHAOS_FAULT= CHAOS_COUNT=/dev/null}")
    start_ranks 2 "$@"
    with=()
    end_of_ranks 60
    cat err.0 >&2
    return "${codes[0]}"
}
cut_everywhere "ranks" "$(all_or 61 7)" empty_disk \
    two_ranks "${common[@]}" --total-batch-size=128 --zero=2 --output-dir="$PWD/disk/run" --resume=1

# ---- commands --------------------------------------------------------------------------------------------------------

# stays NAME OUTPUT ARGUMENTS...: what the command has written into the folder disk when it ends.
stays() {
    local name=$1 output=$2 what why=''
    shift 2
    empty_disk
    on_disk 0 "$TRAIN_GPT" "$@"
    [ "$status" = 0 ] || { not_ok "$name" "exit code $status: $(tail -n 2 err)"; return; }
    for what in none names some; do
        rm -rf after
        disk_after_cut disk $what after
        diff -r -x '.tmp-*' "disk/$output" "after/$output" >difference 2>&1 || why="$what: $(head -c 400 difference)"
    done
    if [ -z "$why" ]; then ok "$name stays"; else not_ok "$name" "$why"; fi
}
stays "tokenize, token files" new tokenize --tokenizer=bytes --out=disk/new/of text.txt
for format in hf llmc gguf; do
    stays "export --format=$format" model export --run=first --format=$format --out=disk/model
done
must "export" export --run=first --out=model
stays "import" run import --from=model --out=disk/run
stays "report" page.html report first --out=disk/page.html

exit $((failures > 0))
