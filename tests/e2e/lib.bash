# What the end-to-end scripts share: a text, a tiny model, and ways to run and to judge. Sourced at the top of the tree
# (not executable, so tests/run.sh does not run it); afterwards the current folder is WORK_DIR, which is empty.
#
# train_gpt is run through `run`, which leaves its exit code in $status and its output in the files out and err.
# shellcheck shell=bash disable=SC2034  # $status, $tiny and $policies are for the scripts

: "${TRAIN_GPT:?is set by tests/run.sh}" "${WORK_DIR:?is set by tests/run.sh}"
cd "$WORK_DIR" || exit 1
export LC_ALL=C
export XDG_CACHE_HOME=$WORK_DIR/.cache # neither the user's calibrations count nor are any left to him

failures=0
status=0

# The smallest model of a family that still has several layers and heads, and a batch to go with it.
tiny=(--layers=3 --channels=32 --heads=2 --batch-size=2 --seq-len=32)
quiet=(--sample-length=0 --val-every=0)
policies=(none layer sqrt act attn offload)

# all_or SOME ALL: words; SOME in `make test`, ALL where LLMC_LONG_TESTS asks for it (tests/long/all_cases.sh).
all_or() { if [ -n "${LLMC_LONG_TESTS-}" ]; then echo "$2"; else echo "$1"; fi; }

# Whether the program is built with a sanitizer: it then takes some seconds to start, and several times the memory.
is_sanitized() { ldd "$TRAIN_GPT" | grep -q 'lib[at]san'; }
# By the thread sanitizer, under which OpenMP has one thread.
is_thread_sanitized() { ldd "$TRAIN_GPT" | grep -q libtsan; }

ok() { echo "ok $1"; }
skip() { echo "skip $1: $2"; }
not_ok() {
    echo "not ok $1: $2"
    failures=$((failures + 1))
}

# check NAME COMMAND...: passes if the command succeeds.
check() {
    local name=$1
    shift
    if "$@" >check.out 2>&1; then
        ok "$name"
    else
        not_ok "$name" "failed: $*; $(head -c 400 check.out | tr '\n' ' ')"
    fi
}

run() {
    "$TRAIN_GPT" "$@" >out 2>err
    status=$?
}

# must NAME ARGUMENTS...: runs, and ends the script where the run does not succeed, since the rest would be pointless.
must() {
    local name=$1
    shift
    run "$@"
    [ "$status" -eq 0 ] && return
    not_ok "$name" "exit code $status: $* -- $(tail -n 3 err | tr '\n' ' ')"
    exit 1
}

# on_executor WHAT: from here on $TRAIN_GPT is the program whose CUDA kernels run on the CPU, and $on_cpu what it was. A
# failure, with a skip of WHAT, where that is not built.
on_executor() {
    local emulated=$BUILD_DIR/train_gpt_cuda_on_cpu
    if [ ! -x "$emulated" ]; then
        skip "$1" "built without CUDA's headers"
        return 1
    fi
    on_cpu=$TRAIN_GPT
    TRAIN_GPT=$emulated
}

# train FOLDER ARGUMENTS...: a run of the tiny model on text.txt that must succeed, with neither samples nor validation.
train() {
    local folder=$1
    shift
    must "train $folder" "${tiny[@]}" "${quiet[@]}" --data=text.txt --output-dir="$folder" "$@"
}

# What must not depend on how a step is computed: step, loss, learning rate, gradient norm, validation loss.
curve() { sed 's/,"step_ms".*//' "$1/metrics.jsonl"; }

# make_text FILE BYTES SEED: sentences of a few words, the same on every machine.
make_text() {
    awk -v bytes="$2" -v state="$3" '
        function draw(n) { state = (state * 16807) % 2147483647; return int(state / 2147483647 * n) }
        BEGIN {
            count = split("the and of lord said unto king day man earth house father went came all him them with", word)
            while (written < bytes) {
                text = word[draw(count) + 1] (draw(9) == 0 ? ".\n" : " ")
                printf "%s", text
                written += length(text)
            }
        }' >"$1"
}

# bytes VALUE SIZE: an integer as little-endian bytes.
bytes() {
    local value=$1 text='' i
    for ((i = 0; i < $2; i++)); do
        printf -v text '%s\\x%02x' "$text" $((value >> (8 * i) & 255))
    done
    printf '%b' "$text"
}

# token_file FILE uint16|uint32 TOKEN...: an llm.c token file.
token_file() {
    local file=$1 magic=20240520 version=1 size=2 token
    [ "$2" = uint16 ] || { magic=20240801 version=7 size=4; }
    shift 2
    {
        bytes $magic 4
        bytes $version 4
        bytes $# 4
        head -c 1012 /dev/zero
        for token in "$@"; do
            bytes "$token" $size
        done
    } >"$file"
}

# ids FILE: a token file of a text's bytes. spoil FILE: gives it ids that no vocabulary has, while it is read.
ids() {
    {
        bytes 20240520 4
        bytes 1 4
        bytes 20000 4
        head -c 1012 /dev/zero
        tr '\n' ' ' <text.txt | head -c 20000 | sed 's/./&\x00/g'
    } >"$1"
}
spoil() { head -c 40000 /dev/zero | tr '\0' '\377' | dd of="$1" bs=1024 seek=1 conv=notrunc status=none; }

# refused NAME CODE PATTERN ARGUMENTS...: the command must end with that exit code and one line of error that matches
# the (grep -E) pattern, and leave nothing behind: no temporary files and no run folder `new` or `runs`.
refused() {
    local name=$1 code=$2 pattern=$3 why=
    shift 3
    run "$@"
    if [ "$status" -ne "$code" ]; then
        why="exit code $status, not $code"
    elif [ "$(grep -c -v '^[0-9:]* [IW] ' err)" -ne 1 ] || [ "$(grep -c '^[0-9:]* E ' err)" -ne 1 ]; then
        why="not exactly one line of error"
    elif ! grep '^[0-9:]* E ' err | grep -q -E -e "$pattern"; then
        why="the error does not match '$pattern'"
    elif [ -s out ]; then
        why="something on stdout"
    else
        why=$(leftovers)
    fi
    if [ -z "$why" ]; then
        ok "$name"
    else
        not_ok "$name" "$why: $* -- $(grep -v '^[0-9:]* I ' err | head -c 400 | tr '\n' ' ')"
    fi
}

leftovers() {
    local left
    left=$(find . \( -name '*.tmp' -o -name '.tmp-*' \) -print)
    [ -z "$left" ] || echo "left behind: $left"
    [ ! -e new ] && [ ! -e runs ] || echo "a run folder was made"
}

# confined ARGUMENTS...: like run, with 2 GB of address space. (A sanitizer reserves more than that: then unconfined.)
confined() {
    local limit=2000000
    (ulimit -v $limit && "$TRAIN_GPT" --version) >out 2>err || limit=unlimited
    (ulimit -v $limit && exec "$TRAIN_GPT" "$@") >out 2>err
    status=$?
}

# bf16_works: whether this processor and build can train in bf16.
bf16_works() {
    run "${tiny[@]}" --data=text.txt --dtype=bf16 --dry-run
    [ "$status" -eq 0 ]
}

make_text text.txt 20000 7
