#!/bin/bash
# Accidents, one after another, drawn from a seed: a run of a tiny model is killed, stopped, runs out of disk or memory,
# its data is cut while it reads, its clock jumps, the power goes, a rank of it hangs or lies. After each: a clear end
# (no crash, a line where it failed, nothing late); then the same command goes on, and the whole is, bit for bit, the
# run that had none.
#
#   tests/chaos/run.sh SECONDS [SEED]
#
# TRAIN_GPT and WORK_DIR as for end-to-end scripts; FAULTS is the library made of faults.cpp, without which only those
# accidents happen that need none. Prints a line per kind, and one with the seed and its number for what went wrong:
# the same seed draws the same accidents. Read by tests/e2e/chaos.sh and make chaos.
# shellcheck disable=SC2086,SC2317  # numbers need no quotes; functions are called by name
set -u
. tests/e2e/ranks.bash
. tests/chaos/power_cut.bash
. tests/e2e/lib.bash

seconds=${1:?SECONDS}
seed=${2:-1}
RANDOM=$seed
number=0

# draw N: a number from 0 to N - 1, in $drawn. (Not in a subshell: its numbers would be lost.)
draw() { drawn=$(((RANDOM << 15 | RANDOM) % $1)); }
one_of() {
    draw $#
    drawn=${*:$((drawn + 1)):1}
}

common=("${tiny[@]}" --data="$PWD/data.txt" --lr-schedule=constant --warmup=0 --steps=30 --checkpoint-every=4
    --keep-checkpoints=2 --val-every=7 --val-sequences=4 --sample-every=11 --sample-length=5 -y 1)
alone=("${common[@]}" --threads=1 --output-dir="$PWD/disk/run")
together=("${common[@]}" --total-batch-size=128 --zero=2 --output-dir="$PWD/team")

# ---- what there is without accidents -------------------------------------------------------------------------------

weights() { cat "$1"/checkpoints/step-00000030/model*.safetensors | cksum; }

cp text.txt data.txt
begin=$EPOCHREALTIME
mkdir disk
must "without accidents" "${alone[@]}"
run_ms=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%d", 1000 * (b - a) }')
mv disk/run whole
tcp_ranks 2 "${together[@]}"
[ "${codes[*]}" = "0 0" ] || { not_ok "ranks without accidents" "$(cat err.0)"; exit 1; }
mv team whole-team

# calls KIND: how many there are in a run.
declare -A calls=()
if [ -n "${FAULTS-}" ]; then
    for kind in full read page sync new map clock power; do
        CHAOS_COUNT=$PWD/count CHAOS_FAULT=$kind:0 CHAOS_DISK=$PWD/disk LD_PRELOAD=$FAULTS \
            "$TRAIN_GPT" "${alone[@]}" >out 2>err
        calls[$kind]=$(cat count)
        [ "${calls[$kind]}" -gt 0 ] || { not_ok "chaos: $kind" "the library sees no such call"; exit 1; }
        rm -rf disk/run disk.image
    done
fi

# ---- accidents -----------------------------------------------------------------------------------------------------

# Each leaves the run in the folder disk/run, or `team`, what it was in $what, exit codes in $ended, and the step that
# was said to be saved before a power cut in $saved.
saved=0
what=
ended=()

# in_the_middle SIGNAL...: signals to a run under way, at some moment; a sleep between two.
in_the_middle() {
    "$TRAIN_GPT" "${alone[@]}" >out 2>err &
    local pid=$! signal
    draw $((run_ms + run_ms / 5))
    what+=" after $drawn ms"
    sleep "$(printf '%d.%03d' $((drawn / 1000)) $((drawn % 1000)))"
    for signal in "$@"; do
        case $signal in
            [0-9]*) sleep "$signal" ;;
            *) kill "-$signal" $pid ;;
        esac
    done 2>/dev/null
    wait $pid 2>/dev/null
    ended=($?)
}
# with_fault FAULT: a run from its start to its end, with this one.
with_fault() {
    what+=" $1"
    CHAOS_FAULT=$1 LD_PRELOAD=$FAULTS "$TRAIN_GPT" "${alone[@]}" >out 2>err
    ended=($?)
}
# nth KIND: some call of that kind.
nth() { draw "${calls[$1]}"; nth=$((drawn + 1)); }

accident_kill() { in_the_middle KILL; }
accident_term() { in_the_middle TERM; }
accident_stop() { in_the_middle STOP 0.2 CONT; }
accident_full() { nth full; with_fault full:$nth; }
accident_write() { nth full; one_of 5 28 122; with_fault write:$nth:$drawn; }
accident_read() { nth read; with_fault read:$nth:5; }
accident_page() { nth page; with_fault page:$nth; }
accident_sync() { nth sync; with_fault sync:$nth:5; }
accident_slow() { nth sync; with_fault slow:$nth:30; }
accident_new() { nth new; with_fault new:$nth; }
accident_map() { nth map; with_fault map:$nth; }
accident_clock() { nth clock; one_of -86400 -3600 3600 100000000; with_fault clock:$nth:$drawn; }
accident_power() {
    nth power
    what+=" $nth"
    CHAOS_DISK=$PWD/disk CHAOS_FAULT=power:$nth LD_PRELOAD=$FAULTS "$TRAIN_GPT" "${alone[@]}" >out 2>err &
    wait $! 2>/dev/null
    ended=($?)
    one_of none names some
    what+=", of what was not synced $drawn"
    mv disk disk.cut
    mv disk.image disk.cut.image
    disk_after_cut disk.cut "$drawn" disk "$nth"
    saved=$(as_said err)
    rm -rf disk.cut disk.cut.image
}
accident_cut() {
    rm -f err
    "$TRAIN_GPT" "${alone[@]}" >out 2>err &
    local pid=$!
    eventually 10 grep -s -q ' I memory' err # its data is open
    draw $((run_ms))
    what+=" after $drawn ms"
    sleep "$(printf '0.%03d' $((drawn % 1000)))"
    one_of 0 4096 10000
    truncate -s "$drawn" data.txt
    wait $pid
    ended=($?)
    cat text.txt >data.txt
}

# with_ranks SIGNAL [OPTION...]: two of them; the signal goes to one, in the middle.
with_ranks() {
    start_ranks 2 "${together[@]}" "${@:2}"
    draw 2
    local victim=$drawn
    draw $((2 * run_ms))
    what+=" rank $victim after $drawn ms"
    sleep "$(printf '%d.%03d' $((drawn / 1000)) $((drawn % 1000)))"
    kill "-$1" "${pids[victim]}" 2>/dev/null
    if [ "$1" = STOP ]; then # what it does after the others have given up
        sleep 3
        kill -CONT "${pids[victim]}" 2>/dev/null
    fi
    end_of_ranks 20
    ended=("${codes[@]}")
}
accident_rank_kill() { with_ranks KILL --comm-timeout=10; }
accident_rank_hang() { with_ranks STOP --comm-timeout=2; }
accident_rank_term() { with_ranks TERM --comm-timeout=10; }
accident_rank_lie() {
    draw 2
    local liar=$drawn
    draw 250
    what+=" rank $liar, lie $((drawn + 1))"
    with=()
    with[liar]="env CHAOS_FAULT=lie:$((drawn + 1)) LD_PRELOAD=$FAULTS"
    start_ranks 2 "${together[@]}" --comm-timeout=4
    with=()
    end_of_ranks 20
    ended=("${codes[@]}")
    rm -rf team # what was told wrongly may be in it
}

# ---- what must hold -------------------------------------------------------------------------------------------------

# clear_end LOG CODE ALLOWED: why this was none; nothing where it was.
clear_end() {
    local lines
    [[ " $3 " == *" $2 "* ]] || { echo "exit code $2: $(tail -n 3 "$1" | head -c 500)"; return; }
    [ "$2" = 1 ] || [ "$2" = 2 ] || return 0
    lines=$(errors "$1" | wc -l)
    [ "$lines" -le 2 ] || echo "$lines lines of error"
    [ "$lines" -gt 0 ] || [ -s "$1" ] || echo "exit code $2 without a word"
}

# A run that failed as it wrote a line of metrics has said so and saved the step: that line alone is missing.
lacks_one_line() {
    [ "${ended[0]}" = 1 ] && [ "$(grep -c '^<' difference)" -eq 1 ] && ! grep -q '^>' difference &&
        grep -q 'is saved: go on with' err.accident && echo "$what" >>lost_lines
}

# is_whole FOLDER WHOLE CODE: the run that has gone on is the one without accidents.
is_whole() {
    local left
    [ "$3" = 0 ] || { echo "going on: exit code $3: $(tail -n 3 err | head -c 500)"; return; }
    diff <(curve "$2") <(curve "$1") >difference 2>&1 || lacks_one_line ||
        { echo "the curve is another one: $(head -c 400 difference | tr '\n' ' ')"; return; }
    [ "$(weights "$1")" = "$(weights "$2")" ] || { echo "the weights are others"; return; }
    grep -q 'nothing left to do' err && return # the next checkpoint clears up, and there is none to come
    left=$(find "$1" -name '*.tmp' -o -name '.tmp-*')
    [ -z "$left" ] || echo "left behind: $left"
}

# judge KIND: why the accident was not survived; nothing where it was.
judge() {
    local why='' rank
    case $1 in
        rank_*)
            for rank in 0 1; do
                [ "${ended[rank]}" != 1 ] || [ "$rank" = 1 ] || why=$(clear_end err.0 "${ended[0]}" 1)
                case ${ended[rank]} in 0 | 1 | 2 | 137 | 143) ;; *) : "${why:=rank $rank: ${ended[rank]}}" ;; esac
            done
            [ -n "$why" ] || {
                tcp_ranks 2 "${together[@]}"
                cat err.0 >err
                why=$(is_whole team whole-team "$((codes[0] + codes[1]))")
            }
            ;;
        *)
            case $1 in
                kill | power) why=$(clear_end err "${ended[0]}" "0 137") ;;
                term) why=$(clear_end err "${ended[0]}" "0 143") ;;
                stop | slow | clock) why=$(clear_end err "${ended[0]}" "0") ;;
                *) why=$(clear_end err "${ended[0]}" "0 1 2") ;;
            esac
            cp err err.accident
            [ -n "$why" ] || {
                run "${alone[@]}"
                why=$(is_whole disk/run whole "$status")
                [ "$(goes_on_from err 30)" -ge "$saved" ] || : "${why:=step $saved was saved, and is lost}"
            }
            ;;
    esac
    echo "$why"
}

kinds=(kill term stop cut)
[ -z "${FAULTS-}" ] || kinds+=(full full write write write read page sync slow new new new map clock power power)
rare=(rank_kill rank_hang rank_term)
[ -z "${FAULTS-}" ] || rare+=(rank_lie)

declare -A happened=()
deadline=$((SECONDS + seconds))
while [ $SECONDS -lt $deadline ]; do
    number=$((number + 1))
    draw 12
    if [ "$drawn" -eq 0 ]; then one_of "${rare[@]}"; else one_of "${kinds[@]}"; fi
    kind=$drawn
    what=$kind
    saved=0
    rm -rf disk disk.image team
    mkdir disk
    accident_$kind
    why=$(judge "$kind")
    [ -z "$why" ] || not_ok "chaos: seed $seed, accident $number" "$what: $why"
    happened[$kind]=$((${happened[$kind]:-0} + 1))
done
for kind in "${!happened[@]}"; do ok "chaos: $kind, ${happened[$kind]} times"; done
lost=$(wc -l 2>/dev/null <lost_lines || echo 0)
echo "chaos: seed $seed: $number accidents, $failures not survived; lines of metrics lost: $lost"

exit $((failures > 0))
