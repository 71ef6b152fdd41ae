#!/bin/bash
# Limits that bind are known before they are run into: address space and data, threads, processors, stacks, folders for
# caches. What the environment says about threads is heard, and what it says wrongly ends nothing.
# shellcheck disable=SC2317  # functions are called through check
set -u
unset OMP_NUM_THREADS OMP_THREAD_LIMIT OMP_PLACES OMP_PROC_BIND GOMP_CPU_AFFINITY OMP_STACKSIZE OMP_WAIT_POLICY
. tests/e2e/lib.bash

setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --device=cpu)
fresh=0
# runs NAME PATTERN COMMAND...: a new training under COMMAND, which must end well, and say the pattern.
runs() {
    fresh=$((fresh + 1))
    "${@:3}" "$TRAIN_GPT" "${setting[@]}" --output-dir="run$fresh" >out 2>err
    status=$?
    check "$1" test "$status $([ -e "run$fresh/checkpoints/latest" ] && grep -c -E -e "$2" err)" = "0 1"
    [ "$status" = 0 ] || tail -n 2 err
}
# limited ULIMIT-OPTION VALUE COMMAND...
limited() { (ulimit "$1" "$2" && shift 2 && exec "$@"); }

# ---- memory ----

# A model of which level 0 wants much more than a process of this program is without one.
big=(--layers=12 --channels=128 --heads=2 --batch-size=16 --seq-len=256 --data=text.txt "${quiet[@]}" --steps=1
    --device=cpu)
if limited -v 400000 "$TRAIN_GPT" --version >out 2>err; then
    for option in -v -d; do
        name="address space (ulimit -v)"
        [ $option = -v ] || name="data (ulimit -d)"
        limited $option 400000 "$TRAIN_GPT" "${big[@]}" --recompute=auto --output-dir="auto$option" >out 2>err
        status=$?
        check "$name: --recompute=auto plans within it and trains" test "$status" = 0
        within=$(sed -n 's/.* the fastest within \([0-9]*\)[0-9.]* MiB: .*/\1/p' err)
        check "$name: which is what is left" test "${within:-9999}" -lt 391
        limited $option 400000 "$TRAIN_GPT" "${big[@]}" --recompute=none --output-dir="none$option" >out 2>err
        status=$?
        check "$name: a refusal names it" test "$status $(grep -c -F " MiB, by $name. By level: none" err)" = "1 1"
        check "$name: and leaves nothing" test ! -e "none$option"
        limited $option 400000 "$TRAIN_GPT" "${big[@]}" --recompute=auto --memory-budget=80% \
            --output-dir="share$option" >out 2>err
        check "$name: --memory-budget=80% is of it" test $? = 0
        part=$(sed -n 's/.* the fastest within \([0-9]*\)[0-9.]* MiB: .*/\1/p' err)
        check "$name: 80 %" test "${part:-9999}" -lt "${within:-0}"
        limited $option 400000 "$TRAIN_GPT" "${big[@]}" --memory-budget=4GiB --output-dir="much$option" >out 2>err
        check "$name: more than it is refused" test "$? $(grep -c -F "in all, by the limit of $name" err)" = "2 1"
        limited $option 400000 "$TRAIN_GPT" --model=gpt2 --data=text.txt --recompute=auto --output-dir="large$option" \
            >out 2>err
        status=$?
        check "$name: auto's refusal names it, too" test "$status $(
            grep -c -F ", by $name, is not enough for it" err)" = "1 1"
    done
else
    skip "limits of address space and data" "this build reserves more (a sanitizer)"
fi

# ---- control groups ----

# in_group CONTROLLER FILE VALUE COMMAND...: in a control group of version 1 or 2 of its own.
in_group() {
    local groups=/sys/fs/cgroup group
    group=$groups/$1/train_gpt_test_$$
    [ -d "$groups/$1" ] || group=$groups/train_gpt_test_$$
    mkdir "$group" 2>/dev/null
    (echo "$3" >"$group/$2" && echo $BASHPID >"$group/cgroup.procs" && exec "${@:4}")
    status=$?
    rmdir "$group"
    return $status
}
limit=memory/memory.limit_in_bytes
[ -d /sys/fs/cgroup/memory ] || limit=memory/memory.max
if is_sanitized; then
    skip "control groups" "this build takes more memory (a sanitizer)"
elif in_group memory ${limit#*/} 200M true 2>/dev/null; then
    in_group memory ${limit#*/} 200M "$TRAIN_GPT" "${big[@]}" --recompute=auto --output-dir=group >out 2>err
    check "a control group: --recompute=auto plans within it, and is not killed" test $? = 0
    within=$(sed -n 's/.* the fastest within \([0-9]*\)[0-9.]* MiB: .*/\1/p' err)
    check "a control group: which is what is left" test "${within:-9999}" -lt 200
    in_group memory ${limit#*/} 200M "$TRAIN_GPT" "${big[@]}" --output-dir=group2 >out 2>err
    check "a control group: a refusal names it" test "$? $(
        grep -c " E not enough memory: .*, by /sys/fs/cgroup/.*/${limit#*/}. By level" err)" = "1 1"
    setting+=(--threads=9)
    runs "a control group with few threads" "W threads 9 wanted, 3 possible: .*pids.max" in_group pids pids.max 7
    setting=("${setting[@]:0:${#setting[@]}-1}")
else
    skip "control groups" "needs root, and control groups that can be written"
fi

# ---- threads ----

# Here OpenMP shall have several, whose barriers that sanitizer does not know.
if is_thread_sanitized; then
    skip "limits of threads, stacks and processors" "the thread sanitizer"
    exit $((failures > 0))
fi

# Limits of processes do not bind root; somebody who runs nothing else is somebody new.
somebody=(setpriv --reuid=54321 --regid=54321 --clear-groups)
chmod 777 .
if [ "$(id -u)" = 0 ] && "${somebody[@]}" test -x "$TRAIN_GPT" -a -w . 2>/dev/null; then
    at_most() { limited -u "$1" "${somebody[@]}" "${@:2}"; }
    export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # By a thread of its own.
    runs "no other thread is possible" "W threads [0-9]+ wanted, 1 possible: .*ulimit -u" at_most 1
    setting+=(--threads=9)
    runs "few threads are possible" "W threads 9 wanted, 3 possible: .*ulimit -u" at_most 7
    at_most 7 "$TRAIN_GPT" tokenize --tokenizer=bytes --threads=9 --out=few/tokens text.txt >out 2>err
    check "few threads: tokenize" test "$? $(grep -c "W threads 9 wanted, 3 possible" err)" = "0 1"
    at_most 7 "$TRAIN_GPT" plan --threads=9 --frontier "${tiny[@]}" >out 2>err
    check "few threads: plan --frontier" test $? = 0
    setting=("${setting[@]:0:${#setting[@]}-1}")
    (ulimit -u 1 && exec "${somebody[@]}" "$TRAIN_GPT" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1000000 \
        --output-dir=alone) >out 2>err &
    job=$!
    until grep -q loss alone/metrics.jsonl 2>/dev/null || ! kill -0 $job; do sleep 0.05; done
    kill -TERM $job
    wait $job
    check "without any other thread SIGTERM is answered" test "$?:$(ls alone/checkpoints | grep -c step-)" = 0:1
else
    skip "limits of processes" "needs root and setpriv"
fi
run "${setting[@]}" --threads=100000 --output-dir=new
check "more threads than there may be: refused" test "$status $(grep -c ' E --threads' err)" = "2 1"

runs "OMP_NUM_THREADS counts, and is named" "I threads 1 on [0-9]+ cores?, by OMP_NUM_THREADS=1,4; --threads" \
    env OMP_NUM_THREADS=1,4
check "in the banner" grep -q -E ' I train_gpt .*, 1 thread(,|$)' err
OMP_NUM_THREADS=1 run "${setting[@]}" --threads=2 --dry-run
check "--threads wins" grep -q ' I train_gpt .*, 2 threads' err
runs "OMP_NUM_THREADS of another machine" "I train_gpt .*, $(nproc) threads?" env OMP_NUM_THREADS=100000
runs "OMP_NUM_THREADS that is no number" "I train_gpt .* thread" env OMP_NUM_THREADS=many
OMP_THREAD_LIMIT=1 run "${setting[@]}" --threads=3 --output-dir=limit
check "OMP_THREAD_LIMIT" test "$status $(grep -c 'W threads 3 wanted, 1 possible: OMP_THREAD_LIMIT$' err)" = "0 1"
for size in 1000G 16k 1; do
    runs "OMP_STACKSIZE=$size" "W OMP_STACKSIZE: a thread cannot have a stack of [0-9]+ bytes; the usual size is" \
        env OMP_STACKSIZE=$size
done
for kib in 256 1024 unlimited; do
    runs "a stack of $kib KiB" "I train_gpt" limited -s $kib
done

# ---- processors ----

threads() { sed -n 's/.* I train_gpt .*, \([0-9]*\) threads\{0,1\}\(, .*\)\{0,1\}$/\1/p' err; }
runs "as it comes" "I train_gpt"
all=$(threads)
last=$(nproc --all)
runs "processors that are not there" "W GOMP_CPU_AFFINITY: processors $last-$((last + 1)) are not there" \
    env GOMP_CPU_AFFINITY="0-$((last + 1))"
check "those that exist are used" test "$(threads)" = "$all"
check "a warning once" test "$(grep -c ' W GOMP_CPU_AFFINITY' err)" = 1
runs "processors none of which is there" "W GOMP_CPU_AFFINITY: .* are not there.*; threads are not bound" \
    env GOMP_CPU_AFFINITY="$last $((last + 3))"
check "all are used" test "$(threads)" = "$all"
runs "places that are not there" "I train_gpt" env OMP_PLACES="{0},{$last},{$((last + 1))}"
runs "with the user's way to wait" "W GOMP_CPU_AFFINITY" env OMP_WAIT_POLICY=passive GOMP_CPU_AFFINITY="$((last + 1)) 0"
for bind in true close spread; do
    runs "OMP_PROC_BIND=$bind" "I train_gpt" env OMP_PROC_BIND=$bind
    check "OMP_PROC_BIND=$bind costs no core" test "$(threads)" = "$all"
done
if taskset -c 0 true 2>/dev/null; then
    runs "one processor" "I train_gpt" taskset -c 0
    check "one processor, one thread" test "$(threads)" = 1
    runs "of which the environment knows nothing" "I train_gpt" taskset -c 0 env GOMP_CPU_AFFINITY=0-1
    check "is one thread all the same" test "$(threads)" = 1
fi

# ---- folders ----

setting+=(--calibrate)
kept="W --calibrate: the times that were measured are used, but not kept"
runs "a home that cannot be written" "$kept" env -u XDG_CACHE_HOME HOME=/proc
runs "a home that is no folder" "$kept" env -u XDG_CACHE_HOME HOME=/dev/null
runs "a cache that cannot be written" "$kept" env XDG_CACHE_HOME=/proc/cache
runs "no home at all" "$kept" env -u XDG_CACHE_HOME -u HOME
check "nothing is kept in the current folder then" test ! -e .cache
runs "a home" "I calibrated: .*are kept in '.*/home/.cache/train_gpt/times" env -u XDG_CACHE_HOME HOME="$PWD/home"
for profile in home/.cache/train_gpt/profile-*.toml; do rm "$profile" && mkdir -p "$profile/no file"; done
runs "a profile that cannot be written" "W --calibrate: no profile of this device is kept" \
    env -u XDG_CACHE_HOME HOME="$PWD/home"
run plan "${tiny[@]}" --calibrate --memory-budget=1GiB --recompute=auto
check "plan --calibrate" test "$status" = 0
token_file ids.bin uint16 $(seq 900)
touch -d '1 hour ago' ids.bin
HOME=/proc XDG_CACHE_HOME='' run "${tiny[@]}" "${quiet[@]}" --data=ids.bin --tokenizer=none --steps=2 --output-dir=ids
check "token files, with such a home" test "$status" = 0
gzip -k text.txt
TMPDIR=/nowhere run "${tiny[@]}" "${quiet[@]}" --data=text.txt.gz --steps=2 --output-dir=packed
check "a TMPDIR that is not there" test "$status" = 0

# Limits that leave room for the program, but not for the libraries that compute, which end in a crash then.
if ! is_sanitized; then
    program=$(ulimit -v 400000 && "$TRAIN_GPT" "${tiny[@]}" --steps=1 --dry-run --data=text.txt >out 2>err && echo runs)
    for kib in 90000 100000 110000 120000 130000 140000 150000 160000; do
        (ulimit -v $kib && "$TRAIN_GPT" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1 --output-dir=narrow) \
            >out 2>err
        status=$?
        [ "$status" -le 2 ] || [ "$status" = 127 ] || break
    done
    check "an address space that is too narrow to compute in: no crash" test "$program:$((status < 128))" = runs:1
    for kib in 5000 20000 40000 60000; do
        (ulimit -d $kib && "$TRAIN_GPT" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1 --output-dir=narrow) \
            >out 2>err
        status=$?
        [ "$status" = 1 ] && grep -q "E data (ulimit -d) is limited to" err || break
    done
    check "too little room for data: said, with the limit" test "$status:$kib" = 1:60000
else
    skip "narrow limits" "a sanitizer"
fi

exit $((failures > 0))
