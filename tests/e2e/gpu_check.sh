#!/bin/bash
# scripts/gpu_check.py without a card: every part on the executor (or the CPU) and on stand-ins, going on where it
# stopped, what it says of programs that fail, hang or are not there, signals, odd folders.
set -u
root=$PWD
. tests/e2e/lib.bash

if ! command -v python3 >/dev/null; then
    skip "gpu_check.py" "no python3"
    exit 0
fi
emulated=$BUILD_DIR/train_gpt_cuda_on_cpu
[ ! -x "$emulated" ] || TRAIN_GPT=$emulated
own=$TRAIN_GPT
device=$(case $TRAIN_GPT in *_cuda_on_cpu) echo _cuda_on_cpu ;; esac) # how the script tells what it has
export TRAIN_GPT TMPDIR=$WORK_DIR/tmp OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=1
mkdir tmp fakes
unset PYTHON GPU_TESTS SANITIZER_FILTER CUDA_VISIBLE_DEVICES
[ ! -x "$BUILD_DIR/cuda_tests" ] || export GPU_TESTS=$BUILD_DIR/cuda_tests

gpu_check() {
    env "PATH=${SEARCHED:-$PATH}" "$root/scripts/gpu_check.py" "$@" >out 2>err
    status=$?
}
# says NAME CODE PATTERN ARGUMENTS...: it must end so, with one line of error that matches and no output.
says() {
    local name=$1 code=$2 pattern=$3
    shift 3
    gpu_check "$@"
    if [ $status -eq "$code" ] && [ "$(wc -l <err)" -eq 1 ] && grep -q -E -e "$pattern" err && [ ! -s out ]; then
        ok "$name"
    else
        not_ok "$name" "exit code $status: $(head -c 400 err | tr '\n' ' ')"
    fi
}
# program NAME: a program for the PATH or the environment, its text from stdin.
program() {
    cat >"fakes/$1"
    chmod +x "fakes/$1"
}
# found FILE EXPRESSION: of the results as `r`, its checks by (step, name) as `c`.
found() {
    python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
c = {(row["step"], row["name"]): row["verdict"] for row in r["checks"]}
assert eval("(" + sys.argv[2] + ")"), (sys.argv[2], r["checks"], r["left_out"])' "$1/gpu_check.json" "$2"
}

# ---- what is wrong is said in one line -------------------------------------------------------------

gpu_check --help
check "--help" test "$status $(grep -c '^  --minutes=N' out)" = "0 1"
gpu_check --list
check "--list names the parts, and what matters most first" test "$status $(head -n 1 out | tr -d ' 0-9')" = "0 tests"
says "an unknown option" 2 'unrecognized arguments: --fast; see gpu_check.py --help' --fast
says "minutes that are none" 2 '^gpu_check: --minutes=soon: must be a number' --minutes=soon
says "no minutes" 2 '^gpu_check: --minutes=0: must be' --dry --minutes=0
says "a value that is missing" 2 '^gpu_check: --out: wants a value' --dry --out
says "an unknown part" 2 '^gpu_check: --only=everything: choose from tests, bits' --dry --only=bits,everything
says "an earlier result that is not there" 2 '^gpu_check: --against=no.json: No such file' --dry --against=no.json
says "an earlier result that is none" 2 '^gpu_check: --against=text.txt: is no gpu_check.json' --dry --against=text.txt
echo '{"about": {}, "benchmarks": {"rows": [{"ours": {"median_ms": 1}}]}}' >odd.json
says "an earlier result that lacks something" 2 '^gpu_check: --against=odd.json: is no' --dry --against=odd.json
says "a folder that is a file" 2 '^gpu_check: --out=text.txt: cannot be written \(File exists\); choose another' \
    --dry --out=text.txt
TRAIN_GPT=$WORK_DIR/text.txt says "a program that cannot be run" 2 'text.txt: cannot be run; name another' --dry --out=a
PYTHON=no-python says "a Python that is not there" \
    2 '^gpu_check: PYTHON=no-python: there is no such program' --dry --out=a
mkdir few
ln -s "$(python3 -c 'import sys; print(sys.executable)')" few/python3
if [ -x "$(command -v nvidia-smi)" ]; then
    skip "no card" "there may be one"
else
    SEARCHED=$WORK_DIR/few says "no card: nvidia-smi is named, and the dry mode" \
        2 '^gpu_check: no nvidia-smi here.*--dry' --out=a
fi
check "nothing is left of them" test -z "$(ls -A tmp)" -a ! -e "a/gpu_check.json"

# ---- all of it -----------------------------------------------------------------------------------------

mkdir target
ln -s target link
gpu_check --dry --minutes=0.0001 --out=link
check "without time everything is left out, which is no failure" \
    test "$status $(grep -c 'left out for want of time: tests, bits:none, .*goes on' err)" = "0 1"
check "and told" found target 'len(r["left_out"]) > 30 and not r["parts"]'
gpu_check --dry --out=link
cp out first
check "every part ends well" test $status -eq 0
check "nothing is left out" found target 'not r["left_out"] and len(r["parts"]) > 30'
check "the same bits at seven settings" \
    found target 'sum(step == "bits" and v == "pass" for (step, name), v in c.items()) == 7'
check "the memory that was predicted" \
    found target 'sum(step == "memory" and v == "pass" for (step, name), v in c.items()) == 7'
check "no miss" found target '"miss" not in c.values()'
check "both sides of three models, at the levels" found target \
    'len([row for row in r["benchmarks"]["rows"] if row["ours"] and row["ours"]["median_ms"]]) == 16
     and len([row for row in r["benchmarks"]["rows"] if row["torch"] and row["torch"]["median_ms"]]) == 6'
check "level 0 is measured twice" found target 'len(r["benchmarks"]["rows"][0]["ours"]["runs"]) == 2'
check "PyTorch's attention and by what" found target \
    'len(r["benchmarks"]["attention"]) == 3 and all(row["backend"] for row in r["benchmarks"]["attention"])'
check "every operation against the roofline" found target \
    'all(len(rows) > 10 and rows[0]["ms"] > 0 for rows in r["benchmarks"]["operations"].values())'
check "a long context, offloading, generation" found target 'all(any(key.startswith(part) for key in r["parts"])
    for part in ("long:", "speed:gpt2-xl:ours:offload", "generate"))'
check "variants: unfused, timed, own products, portable kernels, LoRA, QLoRA, tiles, each in its bytes" found target \
    'sum(step == "variants" and v == "pass" for (step, name), v in c.items()) == 10'
check "and told beside what they are variants of" grep -q '^| GPT-2 124M .*--kernels=portable | .* | [0-9.]* |$' out
if [ -n "${GPU_TESTS-}" ]; then
    check "tests and sanitizers" found target 'c["tests", "gpu_tests"] == "pass" and
        all(c["sanitizer", tool] == "pass" for tool in ("memcheck", "racecheck", "initcheck"))'
fi
check "the table that is printed is gpu_check.md" cmp out target/gpu_check.md
check "profiles" grep -q '^forward of att' target/profiles.txt
check "the link is still one" test -L link
check "no scratch is left" \
    test -z "$(ls -A tmp)$(ls -A target | grep -v -E '^(gpu_check.(json|md)|profiles.txt|log.txt)$')"

# ---- again ----------------------------------------------------------------------------------------------

gpu_check --dry --out=target --against=target/gpu_check.json
check "a second call does nothing again" test "$status $(grep -c -E 'ms a step|: bits' err)" = "0 0"
check "and compares" \
    found target 'r["against"]["rows"] and all(row[3] in ("1.000", "") for row in r["against"]["rows"])'
gpu_check --dry --out=target --again --only=bits:none,long
check "only what was asked for is made again" test "$(grep -c 'ms a step' err) $(grep -c ': bits: ' err)" = "1 1"
check "the rest is kept" found target 'len(r["parts"]) > 30'
other=other$device
cp "$TRAIN_GPT" "$other"
echo >>"$other"
TRAIN_GPT=$WORK_DIR/$other says "results of another build" 2 'another build, .*--again' --dry --out=target
export TRAIN_GPT=$own
cp -r target damaged
head -c 1000 target/gpu_check.json >damaged/gpu_check.json
says "results that are cut off" 2 'damaged/gpu_check.json: cannot be continued; give --again' --dry --out=damaged
gpu_check --dry --again --only=bits:none --out=damaged
check "--again begins anew" found damaged 'len(r["parts"]) == 1'

# ---- folders with odd names, and those that cannot be -------------------------------------------------------------

odd=$(printf -- "-it's an \xff\nodd one")
gpu_check --dry --only=bits:none --out "$odd"
check "a name that is not UTF-8, with a dash, a blank and a line end" test -s "./$odd/gpu_check.md" -a $status -eq 0
if [ "$(id -u)" -ne 0 ]; then
    mkdir -m 500 closed
    says "a folder that cannot be written" 2 '^gpu_check: --out=closed: cannot be written' --dry --out=closed
fi
mkdir locked
(exec 9>locked/gpu_check.lock && flock 9 && exec sleep 60) &
holder=$!
for _ in $(seq 50); do flock -n locked/gpu_check.lock true || break; sleep 0.1; done
says "two at one folder" 2 '^gpu_check: --out=locked: .* is at work there' --dry --out=locked
kill $holder
wait $holder 2>/dev/null

# ---- programs that fail -------------------------------------------------------------------------------------------

# of NAME STEP VERDICT PATTERN: the verdict on what the last call found in `fail`.
of() {
    local row='row["step"] == "'"$2"'" and row["verdict"] == "'"$3"'"'
    local found_figure='__import__("re").search(r"""'"$4"'""", row["figure"])'
    found fail "any($row and $found_figure for row in r[\"checks\"])" && test $status -eq "$5"
}
judged() { # judged NAME STEP VERDICT PATTERN CODE [ENVIRONMENT...] -- ARGUMENTS...
    local name=$1 step=$2 result=$3 pattern=$4 code=$5 environment=()
    shift 5
    while [ "$1" != -- ]; do environment+=("$1"); shift; done
    shift
    rm -rf fail
    env "${environment[@]}" "$root/scripts/gpu_check.py" --dry --out=fail "$@" >out 2>err
    status=$?
    check "$name" of "$name" "$step" "$result" "$pattern" "$code"
}
program failing <<'F'
#!/bin/sh
echo '[ RUN      ] A.Good'; echo '[       OK ] A.Good (0 ms)'
echo '[ RUN      ] A.Bad/1'; echo '[  FAILED  ] A.Bad/1, where GetParam() = 7 (0 ms)'
echo '[ RUN      ] Nccl.OneRankMovesAndAddsNothing'; echo 'x.cpp:9: Skipped'; echo 'no NCCL here'
echo '[  SKIPPED ] Nccl.OneRankMovesAndAddsNothing (0 ms)'
echo '[  PASSED  ] 1 test.'; echo '[  SKIPPED ] 1 test, listed below:'; echo '[  FAILED  ] 1 test, listed below:'
exit 1
F
program crashing <<'F'
#!/bin/sh
echo '[ RUN      ] A.Bad'
kill -SEGV $$
F
printf '#!/bin/sh\necho "[  PASSED  ] 0 tests."\n' | program empty
printf '#!/bin/sh\necho "[ RUN      ] A.Long"; echo $$ >>pids; exec sleep 50\n' | program hanging
judged "a test that fails is named" tests miss '1 passed, 1 failed: A.Bad/1' 1 GPU_TESTS=fakes/failing -- --only=tests
check "and NCCL is not there" found fail 'c["tests", "NCCL, one rank"] == "skip"'
judged "tests that crash" tests miss 'status -11 in A.Bad' 1 GPU_TESTS=fakes/crashing -- --only=tests
judged "no test at all" tests miss 'no test passed' 1 GPU_TESTS=fakes/empty -- --only=tests
GPU_TESTS=fakes/hanging gpu_check --dry --only=tests --minutes=0.15 --out=hang
check "tests for which the time is too short are left out" \
    test "$status $(grep -c 'left out for want of time: tests;' err)" = "0 1"
check "and ended" test -s pids -a -z "$(for pid in $(cat pids); do kill -0 "$pid" 2>/dev/null && echo "$pid"; done)"

program compute-sanitizer <<'F'
#!/bin/sh
echo '========= ERROR SUMMARY: 3 errors'; echo '[  PASSED  ] 5 tests.'; exit 99
F
tests=(GPU_TESTS=fakes/empty "PATH=$WORK_DIR/fakes:$PATH")
judged "errors that a sanitizer finds" \
    sanitizer miss 'ERROR SUMMARY: 3 errors, status 99' 1 "${tests[@]}" -- --only=sanitizer
printf '#!/bin/sh\necho no driver; exit 1\n' | program compute-sanitizer
judged "a sanitizer that cannot run" \
    sanitizer skip 'cannot run here: no driver' 0 "${tests[@]}" -- --only=sanitizer:memcheck
rm fakes/compute-sanitizer

# A train_gpt whose numbers depend on the level, one that fails there, and one that needs more than it says.
program "turning$device" <<F
#!/bin/sh
case " \$* " in
    *" plan "*) ;;
    *=sqrt*) set -- "\$@" --seed=5 ;;
    *=act*) echo 'no such thing' >&2; exit 1 ;;
    *=attn* | *--tile-tokens=*) set -- "\$@" --optimizer=lion ;;
esac
exec '$TRAIN_GPT' "\$@"
F
turning=TRAIN_GPT=fakes/turning$device
judged "other bits at a level" bits miss 'loss .*: not the same' 1 "$turning" -- --only=bits:none,bits:sqrt
judged "a level that fails" bits miss 'no such thing' 1 "$turning" -- --only=bits:act
judged "more memory than was predicted" \
    memory miss 'predicted [0-9]+, allocated [0-9]+' 1 "$turning" -- --only=bits:attn
judged "a variant that needs more than was predicted" \
    variants miss 'predicted [0-9]+, allocated' 1 "$turning" -- --only=variants:llama3.2-1b:tiles-131072
judged "a measurement that fails" \
    speed miss 'no such thing' 1 "TRAIN_GPT=fakes/broken$device" -- --only=speed:gpt2:ours:none \
    < <(printf '#!/bin/sh\necho no such thing >&2\nexit 1\n' | program "broken$device")
printf '#!/bin/sh\nexit 1\n' | program no-torch
judged "no PyTorch: ours alone" speed skip 'has no torch' 0 "PYTHON=$WORK_DIR/fakes/no-torch" -- --only=speed:gpt2
check "is measured" found fail 'r["benchmarks"]["rows"][0]["ours"]["median_ms"] > 0'
printf '#!/bin/sh\n[ "$1" != -c ] || exec echo 2.11.0 True\necho "RuntimeError: odd" >&2\nexit 1\n' | program bad-torch
judged "a PyTorch that fails" \
    speed skip 'RuntimeError: odd' 0 "PYTHON=$WORK_DIR/fakes/bad-torch" -- --only=speed:gpt2:torch

# ---- libraries ----------------------------------------------------------------------------------------------------

printf '#!/bin/sh\n# libcublasLt.so.99\necho train_gpt x\n' | program train_gpt
printf '#!/bin/sh\n' | program nvidia-smi
real() {
    SEARCHED=$WORK_DIR/fakes:$PATH TRAIN_GPT=fakes/train_gpt GPU_TESTS=fakes/empty gpu_check --only=attention \
        --out=fail "$@"
}
rm -rf fail
real
check "a library that is nowhere" of "" describe miss 'not found: libcublasLt.so.99; install' 1
mkdir -p "site packages/nvidia/cublas/lib"
: >"site packages/nvidia/cublas/lib/libcublasLt.so.99"
PYTHONPATH="$WORK_DIR/site packages" real --again
check "one among Python's packages" of "" describe pass 'site packages/nvidia/cublas/lib' 0

# ---- signals --------------------------------------------------------------------------------------------------------

# stopped SIGNAL CODE: in the middle of the hanging tests.
stopped() {
    rm -rf pids stop
    GPU_TESTS=fakes/hanging "$root/scripts/gpu_check.py" --dry --only=bits:none,tests --out=stop >out 2>err &
    local job=$!
    for _ in $(seq 300); do [ ! -s pids ] || break; sleep 0.1; done
    kill -"$1" $job
    wait $job
    status=$?
    check "$1 ends it" test $status -eq "$2" -a -s pids
    check "and what it runs" test -z "$(for pid in $(cat pids); do kill -0 "$pid" 2>/dev/null && echo "$pid"; done)"
    check "without scratch, lock or half a file" test -z "$(ls -A tmp)$(ls -A stop | grep -v '^log.txt$')"
}
stopped TERM 143
stopped HUP 129
set -m # so that INT is not ignored
stopped INT 130
set +m
gpu_check --dry --only=bits:none --out=stop
check "the same folder goes on" found stop '"bits:none" in r["parts"]'
exit $((failures > 0))
