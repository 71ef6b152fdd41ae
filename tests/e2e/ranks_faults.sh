#!/bin/bash
# What goes wrong between ranks: one is killed, hangs, runs out of memory or disk, has other options or no data, or the
# run is asked to stop. Every rank ends soon, the log of rank 0 says once what began it, and the newest checkpoint goes
# on as if nothing had happened.
# shellcheck disable=SC2317  # functions are called through check and eventually
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

ranks_here

# The learning rate does not depend on the steps to come: a run may go on to any step and be the same run.
setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=256 --lr-schedule=constant --warmup=0)
long=("${setting[@]}" --steps=400)
timeout=5 patience=2 grace=1 end=20
if is_sanitized; then timeout=30 patience=15 grace=10 end=60; fi # They take ten times as long.
often=("${long[@]}" --checkpoint-every=2 "--comm-timeout=$timeout")

for zero in 0 2 3; do
    must_tcp_ranks "without faults, ZeRO $zero" 4 "${long[@]}" --zero=$zero --output-dir=whole$zero
done

# same_so_far WHOLE FOLDER: the curve is that of the whole run.
same_so_far() {
    curve "$2" >part.curve
    [ -s part.curve ] && cmp <(curve "$1" | head -n "$(wc -l <part.curve)") part.curve
}

# goes_on WHOLE FOLDER: from the newest checkpoint the run there goes on for a few steps, and is the whole run; says why
# not otherwise.
goes_on() {
    local step
    step=$(newest "$2")
    [ -n "$step" ] || { echo "there is no checkpoint"; return; }
    tcp_ranks 4 --resume="$2" --steps=$((step + 6)) --checkpoint-every=0
    if [ "${codes[*]}" != "0 0 0 0" ]; then
        echo "resume: exit codes ${codes[*]}, $(errors err.0)"
    elif ! grep -q "resumed from '$2/checkpoints/step-$(printf %08d "$step")', $step steps done" err.0; then
        echo "it did not go on from step $step"
    elif [ "$(newest "$2")" != $((step + 6)) ] || [ -n "$(find "$2" -name '.tmp*')" ]; then
        echo "its checkpoints are $(checkpoints "$2")"
    else
        same_so_far "$1" "$2" 2>&1
    fi
}

# checkpoints FOLDER: all that lies there.
checkpoints() { find "$1/checkpoints" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' '; }

verdict() { if [ -z "$2" ]; then ok "$1"; else not_ok "$1" "$2"; fi; }

# ---- a rank is killed ------------------------------------------------------------------------------------------

# names RANK FILE: one line of error, which says that this rank is gone, in one of the ways one can find out.
names() {
    [ "$(errors "$2" | wc -l)" -eq 1 ] && errors "$2" |
        grep -q -E "rank $1 \(.*died|rank $1 of 4 did not come|rank $1 at .* died|no answer from rank $1 "
}

# others RANK: those of four that are left.
others() {
    local rank
    for rank in 0 1 2 3; do [ "$rank" = "$1" ] || echo "$rank"; done
}

# well_ended VICTIM: its survivors have exit code 1, and those that can know say why; otherwise what is wrong.
well_ended() {
    local rank
    for rank in $(others "$1"); do
        [ "${codes[rank]}" = 1 ] || { echo "rank $rank: exit code ${codes[rank]}, $(errors "err.$rank")"; return; }
        [ "$1" != 0 ] && [ "$rank" != 0 ] && continue
        names "$1" "err.$rank" || { echo "the log of rank $rank: $(errors "err.$rank" | tr '\n' ';')"; return; }
    done
}

# strike VICTIM STEP: kills that process once the run in `killed` has done so many steps; for step 0 somewhere before.
strike() {
    local jitter
    jitter=$(printf '0.%03d' $((RANDOM % 200)))
    if [ "$2" -eq 0 ]; then sleep "$jitter"; else eventually 30 steps_done killed "$2"; fi
    kill -KILL "$1"
}

stages=(0 2 2 3)
for round in $(all_or "0 6 9 12 15" "$(seq -s' ' 0 15)"); do
    victim=$((round % 4)) # every rank, and of all rounds at every stage
    zero=${stages[round / 4]}
    for ((try = 0; try < 5; try++)); do # until the run is not over too soon
        rm -rf killed
        at=$((round % 5 > 0 ? RANDOM % 50 + 3 : 0)) # now and then while they come together
        start_ranks 4 "${often[@]}" "--zero=$zero" --output-dir=killed
        strike "${pids[victim]}" "$at" 2>/dev/null
        end_of_ranks $((timeout + grace))
        [ "${codes[victim]}" != 0 ] && break
    done
    why=$(well_ended $victim)
    if [ "$at" -gt 0 ] || [ -e killed/checkpoints/latest ]; then : "${why:=$(goes_on "whole$zero" killed)}"; fi
    verdict "kill $round: rank $victim, ZeRO $zero" "${why:+in step $at: $why}"
done

# Under mpirun, which would end the others itself unless it is told not to.
cat >noted <<'E2'
#!/bin/bash
# Runs train_gpt, and notes its process and its exit code.
rank=$OMPI_COMM_WORLD_RANK
"$TRAIN_GPT" "$@" 2>"err.$rank" &
echo $! >"pid.$rank"
wait $!
echo $? >"rc.$rank"
E2
chmod +x noted
mpirun=(mpirun --oversubscribe --bind-to none -np 4)
left_alone=(--mca orte_abort_on_non_zero_status 0 --enable-recovery)

all_noted() { [ "$(cat pid.? 2>/dev/null | wc -l)" -eq 4 ]; }

for victim in 0 3; do
    rm -rf killed pid.? rc.?
    "${mpirun[@]}" "${left_alone[@]}" ./noted --threads=1 "${often[@]}" --zero=2 --output-dir=killed >out 2>err &
    pids=($!)
    eventually 30 all_noted
    strike "$(cat pid.$victim)" $((RANDOM % 50 + 3))
    end_of_ranks $((timeout + grace + 1))
    why=
    [ "${codes[0]}" != late ] || why="mpirun did not return"
    for rank in 0 1 2 3; do codes[rank]=$(cat rc.$rank); done
    : "${why:=$(well_ended $victim)}"
    : "${why:=$(goes_on whole2 killed)}"
    verdict "kill under mpirun: rank $victim" "$why"
done

# ranks_of FOLDER: the processes that train there.
ranks_of() { pgrep -f -- "--output-dir=$PWD/$1( |\$)"; }
none_left() { ! ranks_of "$1" >/dev/null; }

for victim in 0 2; do
    rm -rf killed
    "${mpirun[@]}" "$TRAIN_GPT" --threads=1 "${often[@]}" --output-dir="$PWD/killed" >out 2>err &
    pids=($!)
    eventually 30 steps_done killed $((RANDOM % 50 + 3))
    for pid in $(pgrep -P "${pids[0]}"); do
        grep -s -q -z -x "OMPI_COMM_WORLD_RANK=$victim" "/proc/$pid/environ" && kill -KILL "$pid"
    done
    end_of_ranks $((timeout + grace + 1))
    why=
    [[ ${codes[0]} =~ ^[1-9] ]] || why="mpirun's exit code: ${codes[0]}"
    errors err | grep -q "rank $victim (.* died" || : "${why:=its log: $(tail -n 3 err | tr '\n' ' ')}"
    eventually 3 none_left killed || : "${why:=still there: $(ranks_of killed | tr '\n' ' ')}"
    : "${why:=$(goes_on whole0 killed)}"
    verdict "kill under plain mpirun: rank $victim" "$why"
done

# ---- a rank hangs ----------------------------------------------------------------------------------------------

for victim in 2 0; do
    rm -rf hung
    start_ranks 4 "${long[@]}" --zero=2 --checkpoint-every=2 "--comm-timeout=$patience" --output-dir=hung
    eventually 30 steps_done hung 5
    stopped=${pids[victim]}
    kill -STOP "$stopped"
    unset "pids[victim]"
    end_of_ranks $((patience * 2 + 4))
    why=
    for rank in $(others $victim); do
        [ "${codes[rank]}" = 1 ] || : "${why:=rank $rank: exit code ${codes[rank]}, $(errors "err.$rank")}"
        [ $victim -ne 0 ] && [ "$rank" -ne 0 ] && continue
        errors "err.$rank" |
            grep -q "rank $victim (.*) has not answered for $patience.* s: it was at .*--comm-timeout" ||
            : "${why:=the log of rank $rank: $(errors "err.$rank")}"
    done
    verdict "rank $victim hangs: the others end and name it" "$why"
    kill -CONT "$stopped"
    pids=("$stopped")
    end_of_ranks $((patience * 2 + 4))
    check "rank $victim comes back: it ends, too" test "${codes[0]}" = 1
    verdict "rank $victim hung: the run goes on" "$(goes_on whole2 hung)"
done

rm -rf hung
start_ranks 4 "${setting[@]}" --steps=60 --zero=2 --comm-timeout=30 --output-dir=hung
eventually 30 steps_done hung 5
kill -STOP "${pids[1]}"
# Long enough to be seen by the watch, which hears of every rank twice a second.
sleep 1.2
kill -CONT "${pids[1]}"
end_of_ranks 60
check "a rank that is slow for a while does no harm" test "${codes[*]}" = "0 0 0 0"
check "a rank that is slow for a while changes nothing" same_so_far whole2 hung

# ---- a rank fails ----------------------------------------------------------------------------------------------

# all_end NAME RANK PATTERN [CODE]: one exit code everywhere, 1 or the given one; the log has one error, of that rank (a
# pattern), which matches; and no other rank says anything.
all_end() {
    local why='' rank
    [[ ${codes[*]} =~ ^${4-1}(\ ${4-1})+$ ]] || why="exit codes ${codes[*]}"
    [ "$(errors err.0 | wc -l)" -eq 1 ] || : "${why:=not one line of error}"
    errors err.0 | grep -q -E "^rank $2 \(.*\): $3" || : "${why:=the error does not match $3}"
    for rank in "${!codes[@]}"; do
        [ "$rank" -eq 0 ] || [ ! -s "err.$rank" ] || : "${why:=rank $rank says something}"
    done
    verdict "$1" "${why:+$why: $(grep -h -v ' I ' err.? | head -c 400 | tr '\n' ' ')}"
    with=()
    also=()
}

# start_and_end COUNT ARGUMENTS...
start_and_end() {
    rm -f err.? out.?
    start_ranks "$@"
    end_of_ranks "$end"
}

short=("${tiny[@]}" "${quiet[@]}" --total-batch-size=256 --steps=20 --zero=2 "--comm-timeout=$timeout")
with_text=("${short[@]}" --data=text.txt)
new=(--output-dir="$PWD/new")
mkdir elsewhere other
make_text other/text.txt 19000 8
cp text.txt same.txt

with[2]="env -C elsewhere"
start_and_end 4 "${with_text[@]}" "${new[@]}"
all_end "a rank without the data" 2 "--data: 'text.txt' does not exist"
check "a rank without the data: no run folder" test ! -e new

with[1]="env -C other"
start_and_end 4 "${with_text[@]}" "${new[@]}"
all_end "a rank with other data" "[0-3]" "the ranks .* differently: rank 1 .*18053 tokens.*, rank 0 .*19004 tokens" 2

also=(--data=text.txt --data=text.txt --data=text.txt --data=same.txt)
start_and_end 4 "${short[@]}" "${new[@]}"
all_end "a rank with another --data" "[0-3]" ".*: rank 3 has 'data = \"same.txt\"', rank 0 has 'data = \"text.txt\"'" 2

also[1]=--learning-rate=0.01
start_and_end 4 "${with_text[@]}" "${new[@]}"
all_end "a rank with another option" "[0-3]" \
    ".*: rank 1 has 'learning-rate = 0.01', rank 0 has 'learning-rate = 0.003'; give all the same" 2

also=(--zero=1 --zero=2)
start_and_end 2 "${short[@]/--zero=2/--data=text.txt}" "${new[@]}"
all_end "a rank with another stage" "[01]" ".*: rank 1 has 'zero = 2', rank 0 has 'zero = 1'" 2

check "after all of them: no run folder" test ! -e new

# Room for the program, but not for what it computes in.
large=("${quiet[@]}" --layers=2 --channels=64 --heads=2 --batch-size=128 --seq-len=256 --steps=2 --data=text.txt)
with[1]="prlimit --as=400000000"
if ${with[1]} "$TRAIN_GPT" --version >out 2>err; then
    start_and_end 2 "${large[@]}" "${new[@]}"
    all_end "a rank with too little memory" "[01]" \
        ".*not enough memory: .* available is .*, by .* of rank 1\\. By level"
    check "a rank with too little memory: no run folder" test ! -e new
else
    with=()
    skip "a rank with too little memory" "the program does not start in 400 MB: a sanitizer"
fi

# ---- after training began, on one rank alone ----------------------------------------------------------------------

# all_saved NAME FOLDER: there is a checkpoint of the last step that was done, and no other.
all_saved() {
    local steps
    steps=$(grep -c '"loss"' "$2/metrics.jsonl")
    check "$1: saved" test "$(checkpoints "$2")" = "$(printf 'latest step-%08d ' "$steps")"
}

of_ids=(--layers=1 --channels=16 --heads=1 --batch-size=2 --seq-len=32 --sample-length=0 --tokenizer=none
    --total-batch-size=256 --steps=1000000 "--comm-timeout=$timeout")
ids data.bin
cp data.bin val.bin
cp data.bin val.bin other
with[2]="env -C other"
start_ranks 4 "${of_ids[@]}" --zero=2 --data=data.bin --val-every=0 --output-dir="$PWD/data"
eventually 30 steps_done data 3
spoil other/data.bin
end_of_ranks "$end"
all_end "a rank's data turn bad" 2 ".*token 65535 in 'data.bin'.*; step [0-9]+ is saved: go on with --resume=$PWD/data"
all_saved "a rank's data turn bad" data

cp val.bin other/data.bin
with[1]="env -C other"
start_ranks 4 "${of_ids[@]}" --zero=3 --data=val.bin --val-data=data.bin --val-every=20 --val-sequences=16 \
    --output-dir="$PWD/val"
eventually 30 steps_done val 1
spoil other/data.bin
end_of_ranks "$end"
all_end "a rank's validation data turn bad" 1 ".*token 65535 in 'data.bin'.*; step [0-9]+ is saved: go on with --re"
all_saved "a rank's validation data turn bad" val

# The folder of the page goes while rank 0 waits for a reader of its first sample.
mkdir gone
full_pipe
echo 'exec "$@" >pipe' >into_pipe
with[0]="bash into_pipe"
start_ranks 4 "${with_text[@]/--sample-length=0/--sample-length=5}" --sample-every=1 --profile=gone/trace.json \
    --output-dir=profile
eventually 30 steps_done profile 1
rmdir gone
read_pipe
end_of_ranks "$end"
with=()
all_end "a page that rank 0 cannot write" 0 ".*gone/trace.json.*; step 3 is saved: go on with --resume=profile"
all_saved "a page that rank 0 cannot write" profile

for zero in 0 3; do # Samples of rank 0 alone, and of all together.
    must_tcp_ranks "samples, ZeRO $zero" 2 "${setting[@]/--sample-length=0/--sample-length=5}" --steps=5 \
        --sample-every=2 "--zero=$zero" "--output-dir=samples$zero"
    check "samples between steps, ZeRO $zero" test "$(grep -c '^---- sample after' out.0)" = 3
done

# ---- the disk is full ------------------------------------------------------------------------------------------

# Of each rank alone: its file may not grow so large.
for rank in 0 2; do
    rm -rf full
    must_tcp_ranks "before the disk is full" 4 "${with_text[@]}" --output-dir=full
    with[rank]="prlimit --fsize=30000"
    start_and_end 4 --resume=full --steps=26 --checkpoint-every=2
    all_end "rank $rank cannot write" $rank ".*model-0000$((rank + 1))-of-00004.safetensors': File too large"
    check "rank $rank could not write: nothing half-written" \
        test "$(checkpoints full)" = "latest step-00000020 "
    tcp_ranks 4 --resume=full --steps=24
    check "rank $rank could not write: afterwards the run goes on" test "${codes[*]} $(newest full)" = "0 0 0 0 24"
done

# Of all: a file system too small for a checkpoint, and one with too few files.
small() { mkdir full && mount -t tmpfs -o "$1" none full; }
rm -rf full
if small size=900k 2>/dev/null; then
    trap 'umount full' EXIT
    start_and_end 4 "${with_text[@]}" --output-dir=full
    all_end "no room for a checkpoint" 0 \
        "step 20 could not be saved: no room for a checkpoint in 'full/checkpoints': .* needed, .* free"
    umount full && rmdir full && small size=8m,nr_inodes=12
    start_and_end 4 "${with_text[@]}" --output-dir=full
    all_end "no room for a rank's part" "[0-3]" \
        "step 20 could not be saved: cannot create '.*-of-00004.safetensors': No space left on device"
    check "no room for a rank's part: nothing half-written" test -z "$(checkpoints full)"
    umount full
    trap - EXIT
else
    skip "a full disk" "file systems cannot be mounted here"
fi

# ---- asked to stop ---------------------------------------------------------------------------------------------

# stopped NAME CODES WHOLE: the run in `asked` ended with these, after one checkpoint of the last step, and it goes on.
stopped() {
    local steps why=
    steps=$(grep -c '"loss"' asked/metrics.jsonl)
    [ "${codes[*]}" = "$2" ] || why="exit codes ${codes[*]}"
    [ "$(checkpoints asked)" = "$(printf 'latest step-%08d ' "$steps")" ] ||
        : "${why:=$steps steps, and the checkpoints $(checkpoints asked)}"
    none_left asked || : "${why:=still there: $(ranks_of asked | tr '\n' ' ')}"
    : "${why:=$(goes_on "$3" asked)}"
    verdict "$1" "$why"
}

endless=("${setting[@]}" --zero=2 --steps=100000 --output-dir="$PWD/asked")

for signal in USR1 TERM; do
    for who in "all ranks" "rank 0" "rank 3"; do
        rm -rf asked
        start_ranks 4 "${endless[@]}"
        eventually 30 steps_done asked 3
        case $who in
            all*) kill -$signal "${pids[@]}" ;;
            *) kill -$signal "${pids[${who#rank }]}" ;;
        esac
        end_of_ranks "$end"
        stopped "SIG$signal to $who" "0 0 0 0" whole2
    done
done

# mpirun hands SIGUSR1 to its ranks at once, but SIGTERM after a second; then it kills them, and says it was ended.
for expected in USR1:0 TERM:1; do
    signal=${expected%:*}
    rm -rf asked
    "${mpirun[@]}" "$TRAIN_GPT" --threads=1 "${endless[@]}" >out 2>err &
    pids=($!)
    eventually 30 steps_done asked 3
    kill "-$signal" "${pids[0]}"
    end_of_ranks "$end"
    eventually 5 none_left asked
    rm -rf whole
    must_ranks "SIG$signal to mpirun" 4 "${setting[@]}" --zero=2 "--steps=$(($(newest asked) + 6))" \
        --output-dir=whole
    stopped "SIG$signal to mpirun" "${expected#*:}" whole
done

exit $((failures > 0))
