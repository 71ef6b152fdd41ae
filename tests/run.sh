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
# An end-to-end script reads TRAIN_GPT (absolute path of the binary), BUILD_DIR and
# WORK_DIR (a fresh folder, removed afterwards), runs at the top of the tree and prints a line per
# test: "ok NAME", "not ok NAME: why" or "skip NAME: why". Whatever it leaves running
# is killed.
#
# Environment: GTEST_FILTER   which unit tests (see GoogleTest)
#              E2E_FILTER     which scripts, a pattern for their names without .sh (default *)
#              TEST_TIMEOUT   seconds for each script (default 600, long ones 3600); the unit tests get three times that
#              LLMC_CUDA_SEED schedule of the kernels in cuda_tests (see dev/cuda_on_cpu/control.h)
set -u

folder=e2e
[ "${2-}" != long ] || folder=long
if [ $# -lt 1 ] || [ ! -d "$1" ] || { [ $# -gt 1 ] && [ "$*" != "$1 long" ]; }; then
    echo "usage: tests/run.sh BUILD_DIR [long]" >&2
    exit 2
fi
build=$(cd "$1" && pwd)
export BUILD_DIR=$build
cd "$(dirname "$0")/.." || exit 2

default_limit=600
[ $folder = e2e ] || default_limit=3600
limit=${TEST_TIMEOUT:-$default_limit}
temp=$(mktemp -d "${TMPDIR:-/tmp}/train_gpt_tests.XXXXXX") || exit 2
job=
cleanup() {
    [ -z "$job" ] || kill -KILL -- "-$job" 2>/dev/null
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
    export OMP_THREAD_LIMIT=1
    export TSAN_OPTIONS="suppressions=$PWD/dev/lint/races.supp:exitcode=66${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
fi
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

passed=0
failed=0
skipped=0
failures=()
times=() # "SECONDS NAME" of every program and script

fail() {
    failed=$((failed + 1))
    failures+=("$1")
}

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

# run_limited SECONDS FILTER COMMAND...: runs COMMAND with a fresh WORK_DIR and no input,
# keeps its output in $temp/log, shows it through FILTER as it comes, and returns its
# status, 124 on a time-out. timeout(1) makes a process group, which is cleared afterwards.
run_limited() {
    local seconds=$1 filter=$2 status begin=$SECONDS
    shift 2
    export WORK_DIR=$temp/work
    export TEST_TMPDIR=$WORK_DIR
    mkdir "$WORK_DIR"
    : >"$temp/log"
    timeout -k 10 "$seconds" "$@" </dev/null >"$temp/log" 2>&1 &
    job=$!
    { # without the shell's own remarks on killed jobs
        tail -n +1 -s 0.1 -f --pid="$job" "$temp/log" | $filter &
        wait $! # rather than in the foreground, so that a signal to this script acts at once
        wait "$job"
        status=$?
    } 2>/dev/null
    kill -KILL -- "-$job" 2>/dev/null
    job=
    chmod -R u+rwX "$WORK_DIR" && rm -rf "$WORK_DIR"
    # After a time-out that TERM did not end, timeout(1) kills and says 137.
    [ "$status" -eq 137 ] && [ $((SECONDS - begin)) -ge "$seconds" ] && status=124
    return $status
}

# ---- unit tests ----------------------------------------------------------------------

# GoogleTest's report file is written at the very end: where it exists it is complete,
# where it does not, the binary died, and the log says how far it had come.
run_unit_tests() {
    local program=$1 report=$temp/report.xml seconds=$((3 * limit)) status why total bad off skip name names
    local begin=$SECONDS
    rm -f "$report"
    run_limited "$seconds" "grep --line-buffered -v -e ^\\[.RUN -e ^\\[---" \
        "$build/$program" --gtest_color=no --gtest_output="xml:$report"
    status=$?
    times+=("$((SECONDS - begin)) $program")
    why=$(ending "$status" "$seconds")

    if [ -s "$report" ]; then
        read -r total bad off < <(sed -n \
            's/^<testsuites tests="\([0-9]*\)" failures="\([0-9]*\)" disabled="\([0-9]*\)".*/\1 \2 \3/p' "$report")
        skip=$(grep -c '<testcase .*result="skipped"' "$report")
        names=$(sed -n 's/^\[  FAILED  \] \([^ ,]*[./][^ ,]*\).* ([0-9]* ms)$/\1/p' "$temp/log")
    else
        total=$(grep -c -e '^\[       OK \]' -e '^\[  FAILED  \].* ms)$' -e '^\[  SKIPPED \].* ms)$' "$temp/log")
        bad=$(grep -c '^\[  FAILED  \].* ms)$' "$temp/log")
        off=0
        skip=$(grep -c '^\[  SKIPPED \].* ms)$' "$temp/log")
        names=$(sed -n 's/^\[  FAILED  \] \([^ ,]*\).* ms)$/\1/p' "$temp/log")
        name=$(sed -n 's/^\[ RUN      \] //p' "$temp/log" | tail -n 1)
        fail "$program: it ${why:-ended early} in ${name:-its start-up}; the tests after it did not run"
    fi
    passed=$((passed + total - bad - off - skip))
    skipped=$((skipped + skip + off))
    for name in $names; do
        fail "$name"
        bad=$((bad - 1))
    done
    while [ "$bad" -gt 0 ]; do # counted by GoogleTest, but not found by name
        fail "a test of $program"
        bad=$((bad - 1))
    done
    # All tests passed, and yet: a leak, or a crash while the program ends.
    if [ -s "$report" ] && [ "$status" -ne 0 ] && [ -z "$names" ]; then
        fail "$program: it $why after its last test"
    fi
}

# ---- end to end ------------------------------------------------------------------------

run_script() {
    local script=$1 name=${1#tests/} status why before=$((passed + failed + skipped)) line bad=0
    local begin=$SECONDS
    echo "== $name"
    run_limited "$limit" cat "$script"
    status=$?
    times+=("$((SECONDS - begin)) $name")
    while IFS= read -r line; do
        case $line in
            "ok "*) passed=$((passed + 1)) ;;
            "skip "*) skipped=$((skipped + 1)) ;;
            "not ok "*)
                fail "$name: ${line#not ok }"
                bad=1
                ;;
        esac
    done <"$temp/log"
    why=$(ending "$status" "$limit")
    if [ -n "$why" ] && { [ "$bad" -eq 0 ] || [ "$status" -ge 124 ]; }; then
        fail "$name: the script $why"
    elif [ $((passed + failed + skipped)) -eq "$before" ]; then
        fail "$name: the script reported no test"
    fi
}

if [ $folder = long ]; then
    : # no unit tests
elif [ -x "$build/tests" ]; then
    echo "== unit tests"
    run_unit_tests tests
else
    fail "unit tests: there is no $build/tests"
fi

# Built where CUDA's headers are.
if [ $folder = e2e ] && [ -x "$build/cuda_tests" ]; then
    echo "== tests of the CUDA kernels, on the CPU"
    run_unit_tests cuda_tests
    run_script dev/cuda_on_cpu/asm_check.sh
fi

for script in tests/$folder/${E2E_FILTER:-*}.sh; do
    if [ -x "$script" ]; then
        run_script "$script"
    elif [ -e "$script" ]; then
        fail "${script#tests/}: not executable"
    fi
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
