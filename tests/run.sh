#!/bin/bash
# Runs all tests: the GoogleTest binaries, then every tests/e2e/*.sh. Or only those that take long: tests/long/*.sh.
#
#   tests/run.sh BUILD_DIR          (make test does this)
#   tests/run.sh BUILD_DIR long     (make test-long)
#
# BUILD_DIR holds `tests`, perhaps `cuda_tests`, and `train_gpt`; where it has no train_gpt, the one at the
# top is taken. The last line is "N passed, N failed", with ", N skipped" when some
# were. Exits 0 only if something passed and nothing failed; a crash, a sanitizer's
# report or a time-out is a failure and is named.
#
# One more of them run at a time than there are processors, since some wait most of the time, unit tests in as many
# shards; each one's output is shown when it has ended, or as it comes where one runs alone.
#
# An end-to-end script reads TRAIN_GPT (absolute path of the binary), BUILD_DIR and
# WORK_DIR (a fresh folder, removed afterwards), runs at the top of the tree and prints a line per
# test: "ok NAME", "not ok NAME: why" or "skip NAME: why". Whatever it leaves running
# is killed.
#
# Environment: GTEST_FILTER   which unit tests (see GoogleTest)
#              E2E_FILTER     which scripts, a pattern for their names without .sh (default *)
#              TEST_TIMEOUT   seconds for each script (default 600, long ones 3600; twice that under the thread
#                             sanitizer); the unit tests get three times that
#              TEST_JOBS      how many run at a time (default: processors and one)
#              LLMC_CUDA_SEED schedule of the kernels in cuda_tests (see dev/cuda_on_cpu/control.h)
set -u

if [ $# -lt 1 ] || [ ! -d "$1" ] || { [ $# -gt 1 ] && [ "$*" != "$1 long" ]; }; then
    echo "usage: tests/run.sh BUILD_DIR [long]" >&2
    exit 2
fi
build=$(cd "$1" && pwd)
export BUILD_DIR=$build
cd "$(dirname "$0")/.." || exit 2

default_limit=600
[ "${2-}" != long ] || default_limit=3600
limit=${TEST_TIMEOUT:-$default_limit}
temp=$(mktemp -d "${TMPDIR:-/tmp}/train_gpt_tests.XXXXXX") || exit 2
cleanup() {
    local group
    for group in "$temp"/*/group; do
        [ ! -s "$group" ] || kill -KILL -- "-$(cat "$group")" 2>/dev/null
    done
    chmod -R u+rwX "$temp" 2>/dev/null # a test may have made a folder read-only
    rm -rf "$temp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ -x "$build/train_gpt" ]; then
    export TRAIN_GPT=$build/train_gpt
else
    export TRAIN_GPT=$PWD/train_gpt
fi
if [ -f dev/lint/leaks.supp ]; then
    export LSAN_OPTIONS="suppressions=$PWD/dev/lint/leaks.supp:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"
fi
# The thread sanitizer does not know libgomp's barriers, so that under it OpenMP has one thread; what is left are the
# program's own threads.
if ldd "$TRAIN_GPT" 2>/dev/null | grep -q libtsan; then
    export OMP_THREAD_LIMIT=1 OMP_NUM_THREADS=1 # Both: or a warning says that there could have been more.
    limit=${TEST_TIMEOUT:-$((4 * default_limit))}
    # Where a rank ends in the middle of a step, by another's error, a thread that has done its work and is not waited
    # for yet is no leak; and std::thread and std::async leave no other.
    rules="suppressions=$PWD/dev/lint/races.supp:exitcode=66:report_thread_leaks=0"
    export TSAN_OPTIONS="$rules${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
fi
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

# How a command ended, in words, from its exit status; nothing if it simply ended.
ending() {
    if [ "$1" -eq 124 ]; then
        echo "did not finish in $2 s"
    elif [ "$1" -gt 128 ]; then
        echo "crashed (SIG$(kill -l $(($1 - 128)) 2>/dev/null || echo " $(($1 - 128))"))"
    elif [ "$1" -ne 0 ]; then
        echo "exited with status $1"
    fi
}

# ---- one job: a program's tests or a script, in a subshell of its own -------------------

# A job has a folder: `log` is what it wrote, `result` one line per fact, "passed N", "skipped N", "failed NAME", and
# `group` the group of processes that it is while it runs.
note() { echo "$*" >>"$folder/result"; }

# run_limited SECONDS COMMAND...: runs COMMAND with a fresh WORK_DIR and no input, its output in the job's log, and
# returns its status, 124 on a time-out. timeout(1) makes a process group, which is cleared afterwards.
run_limited() {
    local seconds=$1 status begin=$SECONDS
    shift
    export WORK_DIR=$folder/work
    export TEST_TMPDIR=$WORK_DIR
    mkdir "$WORK_DIR"
    timeout -k 10 "$seconds" "$@" </dev/null >"$folder/log" 2>&1 &
    echo $! >"$folder/group"
    wait $! 2>/dev/null # without the shell's own remarks on killed jobs
    status=$?
    kill -KILL -- "-$(cat "$folder/group")" 2>/dev/null
    : >"$folder/group"
    chmod -R u+rwX "$WORK_DIR" && rm -rf "$WORK_DIR"
    # After a time-out that TERM did not end, timeout(1) kills and says 137.
    [ "$status" -eq 137 ] && [ $((SECONDS - begin)) -ge "$seconds" ] && status=124
    return $status
}

# run_unit_tests PROGRAM SHARD: GoogleTest's report file is written at the very end: where it exists it is complete,
# where it does not, the binary died, and the log says how far it had come.
run_unit_tests() {
    local program=$1 report=$folder/report.xml seconds=$((3 * limit)) status why total bad off skip name names
    # Threads that spin while they wait would take the processor from the other jobs.
    export OMP_WAIT_POLICY=passive
    GTEST_TOTAL_SHARDS=$lanes GTEST_SHARD_INDEX=$2 run_limited "$seconds" \
        "$build/$program" --gtest_color=no --gtest_output="xml:$report"
    status=$?
    why=$(ending "$status" "$seconds")

    if [ -s "$report" ]; then
        read -r total bad off < <(sed -n \
            's/^<testsuites tests="\([0-9]*\)" failures="\([0-9]*\)" disabled="\([0-9]*\)".*/\1 \2 \3/p' "$report")
        skip=$(grep -c '<testcase .*result="skipped"' "$report")
        names=$(sed -n 's/^\[  FAILED  \] \([^ ,]*[./][^ ,]*\).* ([0-9]* ms)$/\1/p' "$folder/log")
    else
        total=$(grep -c -e '^\[       OK \]' -e '^\[  FAILED  \].* ms)$' -e '^\[  SKIPPED \].* ms)$' "$folder/log")
        bad=$(grep -c '^\[  FAILED  \].* ms)$' "$folder/log")
        off=0
        skip=$(grep -c '^\[  SKIPPED \].* ms)$' "$folder/log")
        names=$(sed -n 's/^\[  FAILED  \] \([^ ,]*\).* ms)$/\1/p' "$folder/log")
        name=$(sed -n 's/^\[ RUN      \] //p' "$folder/log" | tail -n 1)
        note "failed $program: it ${why:-ended early} in ${name:-its start-up}; the tests after it did not run"
    fi
    note "passed $((total - bad - off - skip))"
    note "skipped $((skip + off))"
    for name in $names; do
        note "failed $name"
        bad=$((bad - 1))
    done
    while [ "$bad" -gt 0 ]; do # counted by GoogleTest, but not found by name
        note "failed a test of $program"
        bad=$((bad - 1))
    done
    # All tests passed, and yet: a leak, or a crash while the program ends.
    if [ -s "$report" ] && [ "$status" -ne 0 ] && [ -z "$names" ]; then
        note "failed $program: it $why after its last test"
    fi
}

run_script() {
    local script=$1 name=${1#tests/} status why line
    if [ ! -x "$script" ]; then
        : >"$folder/log"
        note "failed $name: not executable"
        return
    fi
    run_limited "$limit" "$script"
    status=$?
    while IFS= read -r line; do
        case $line in
            "ok "*) note "passed 1" ;;
            "skip "*) note "skipped 1" ;;
            "not ok "*) note "failed $name: ${line#not ok }" ;;
        esac
    done <"$folder/log"
    why=$(ending "$status" "$limit")
    if [ -n "$why" ] && { ! grep -q '^not ok ' "$folder/log" || [ "$status" -ge 124 ]; }; then
        note "failed $name: the script $why"
    elif [ ! -s "$folder/result" ]; then
        note "failed $name: the script reported no test"
    fi
}

# ---- all jobs ---------------------------------------------------------------------------

kind=e2e
[ "${2-}" != long ] || kind=long
# Large ones first: they take longest, and none of them is left to run alone at the end.
# shellcheck disable=SC2012,SC2086  # names of this tree, a pattern
mapfile -t scripts < <(ls -S tests/$kind/${E2E_FILTER:-*}.sh 2>/dev/null)
lanes=${TEST_JOBS:-$(($(nproc) + 1))}

jobs=() # "run_unit_tests PROGRAM SHARD" or "run_script FILE"
add_unit_tests() {
    local shard
    for ((shard = 0; shard < lanes; ++shard)); do
        jobs+=("run_unit_tests $1 $shard")
    done
}
if [ $kind = e2e ]; then
    # The kernels' tests are built where CUDA's headers are. They take longest.
    if [ -x "$build/cuda_tests" ]; then
        add_unit_tests cuda_tests
        scripts=(dev/cuda_on_cpu/asm_check.sh "${scripts[@]}")
    fi
    if [ -x "$build/tests" ]; then
        add_unit_tests tests
    else
        jobs+=("note failed unit tests: there is no $build/tests")
    fi
fi
for script in "${scripts[@]}"; do
    jobs+=("run_script $script")
done

begin() {
    folder=$temp/$1
    mkdir "$folder"
    : >"$folder/log"
    : >"$folder/result"
    echo "$SECONDS" >"$folder/begin"
    (
        trap - EXIT
        # shellcheck disable=SC2086  # a function and its arguments
        ${jobs[$1]}
    ) &
    job_of[$!]=$1
}

# What a job is called.
title() {
    local words
    read -ra words <<<"${jobs[$1]}"
    case ${words[0]} in
        run_unit_tests) echo "${words[1]}, part $((words[2] + 1)) of $lanes" ;;
        run_script) echo "${words[1]#tests/}" ;;
        *) echo "tests" ;;
    esac
}

hidden=(-e '^\[.RUN' -e '^\[---')
passed=0
failed=0
skipped=0
failures=()
times=() # "SECONDS NAME"

take_result() {
    local folder=$temp/$1 what rest
    times+=("$((SECONDS - $(cat "$folder/begin"))) $(title "$1" | sed 's/, part .*//')")
    if [ "$together" -gt 1 ]; then
        echo "== $(title "$1")"
        grep -v "${hidden[@]}" "$folder/log"
    fi
    while read -r what rest; do
        case $what in
            passed) passed=$((passed + rest)) ;;
            skipped) skipped=$((skipped + rest)) ;;
            failed)
                failed=$((failed + 1))
                failures+=("$rest")
                ;;
        esac
    done <"$folder/result"
    rm -rf "$folder"
}

declare -A job_of=()
together=$((lanes < ${#jobs[@]} ? lanes : ${#jobs[@]}))
next=0
while [ $next -lt ${#jobs[@]} ] || [ ${#job_of[@]} -gt 0 ]; do
    while [ $next -lt ${#jobs[@]} ] && [ ${#job_of[@]} -lt "$together" ]; do
        begin $next
        next=$((next + 1))
    done
    if [ "$together" -eq 1 ]; then
        echo "== $(title $((next - 1)))"
        tail -n +1 -s 0.1 -f --pid="${!job_of[*]}" "$folder/log" 2>/dev/null |
            grep --line-buffered -v "${hidden[@]}" &
        viewer=$!
    fi
    wait -n -p ended "${!job_of[@]}" # in the background, so that a signal to this script acts at once
    [ "$together" -gt 1 ] || wait "$viewer"
    take_result "${job_of[$ended]}"
    unset "job_of[$ended]"
done

# ---- summary -----------------------------------------------------------------------------

if [ ${#times[@]} -gt 1 ]; then
    echo
    echo "of $SECONDS s the longest:" \
        "$(printf '%s\n' "${times[@]}" | sort -rn | head -n 12 | awk '{printf "%s%s %s", sep, $2, $1; sep = ", "}')"
fi
if [ "$failed" -gt 0 ]; then
    echo
    printf 'FAILED %s\n' "${failures[@]}"
fi
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
