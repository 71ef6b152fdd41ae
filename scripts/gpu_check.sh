#!/usr/bin/env bash
# Everything that only an NVIDIA card can show, in one run: tests on the card, compute-sanitizer, equal bits at every
# --recompute level, predicted against real memory, and speed against PyTorch.
#
#   scripts/gpu_check.sh [--quick] [--out FOLDER]
#
# Runs from a source tree (after make and make build/release/gpu_tests) or from the package that make dist makes, on a
# card that nothing else uses. Under nine minutes on an H100; --quick has GPT-2 124M alone in the benchmarks and one
# sanitizer, and takes under four. Writes gpu_check.json, gpu_check.md, profiles.txt (operations against the roofline)
# and log.txt to FOLDER (gpu_check beside train_gpt). A failing step does not stop the others; one for which no time is
# left is skipped. Exits with 1 if anything failed or missed its target, 2 for bad usage.
#
# The benchmarks want a python3 with PyTorch 2 ($PYTHON names another); without it only our side is measured, and
# without python3 nothing is. CUDA's libraries are looked for in Python's nvidia packages and /usr/local/cuda* too.
# CUDA_VISIBLE_DEVICES chooses the card. $TRAIN_GPT and $GPU_TESTS name other programs, $SANITIZER_FILTER other tests
# for the sanitizers. --smoke tests this script: tiny models on the CPU, no tests, figures that mean nothing.
#
# Read next: dev/bench/gpu_vs_torch.py (the benchmarks).
set -uo pipefail
export LC_ALL=C

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }
say() { printf 'gpu_check: %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

quick=no smoke=no out=''
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes ;;
        --smoke) smoke=yes ;;
        --out=*) out=${1#*=} ;;
        --out)
            [ $# -gt 1 ] || die "--out: wants a folder; see --help"
            out=$2
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) die "$1: no such option; see --help" ;;
    esac
    shift
done

root=$(cd "$(dirname "$0")/.." && pwd)
out=${out:-$root/gpu_check}
case $out in /*) ;; *) out=./$out ;; esac # one that begins with a dash is a folder, too
if ! mkdir -p "$out" || ! : > "$out/log.txt"; then die "--out=$out: cannot be written; choose another folder"; fi
out=$(cd "$out" && pwd)
tmp=$(mktemp -d) || exit 2
log=$out/log.txt
# What runs at the moment, and the signal that ends it: timeout(1) hands TERM on, train_gpt would write a checkpoint.
job='' job_signal=TERM
cleanup() {
    [ -z "$job" ] || kill "-$job_signal" "$job" 2> /dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

device=cuda
[ "$smoke" = no ] || device=cpu
total_seconds=530
[ "$quick" = no ] || total_seconds=235
python=$(command -v "${PYTHON:-python3}") || python=''
export CUDA_DEVICE_ORDER=PCI_BUS_ID # nvidia-smi's
gpu=${CUDA_VISIBLE_DEVICES:-0}
gpu=${gpu%%,*}

# ---- what was found: rows of the summary ------------------------------------------------------

step=''
rows=''    # of the Markdown table
objects='' # of the JSON list
misses=0

json() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037\177-\377' | sed 's/[\\"]/\\&/g')"; }

# record NAME VERDICT FIGURE: VERDICT is pass, miss or skip.
record() {
    local shown=$2
    if [ "$2" = miss ]; then
        misses=$((misses + 1))
        shown='**MISS**'
    fi
    rows+="| $step | ${1//|//} | $shown | ${3//|//} |"$'\n'
    objects+="${objects:+,}"$'\n'"  {\"step\": $(json "$step"), \"name\": $(json "$1"), "
    objects+="\"verdict\": \"$2\", \"figure\": $(json "$3")}"
    say "$step: $1: $2${3:+, $3}"
}

left() { echo $((total_seconds - SECONDS)); }

# limited SECONDS COMMAND...: runs it for so long at most, or for what is left of the whole; 124 says it was not enough.
limited() {
    local seconds=$1 status
    shift
    [ "$seconds" -le "$(left)" ] || seconds=$(left)
    [ "$seconds" -ge 1 ] || return 124
    timeout -k 5 "$seconds" "$@" < /dev/null &
    job=$! job_signal=TERM
    wait "$job"
    status=$?
    job=''
    [ "$status" -ne 137 ] || status=124
    return "$status"
}

# smi FIELD: what nvidia-smi says of the card; nothing if it cannot.
smi() {
    nvidia-smi "--query-gpu=$1" --format=csv,noheader,nounits -i "$gpu" 2> /dev/null | head -n 1 | grep -vi -e 'n/a' \
        -e 'not supported' -e error
}

# number KEY FILE: the first value of that key in JSON.
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" "$2" | head -n 1; }

mib() { awk "BEGIN { printf \"%.1f\", $1 / 1048576 }"; }

# ---- the programs, and the libraries they miss ---------------------------------------------------

first_program() {
    local program
    for program; do
        [ -x "$program" ] && [ -f "$program" ] && realpath "$program" && return
    done
    return 1
}
train_gpt=$(first_program "${TRAIN_GPT:-}" "$root/train_gpt" "$root/build/release/train_gpt") ||
    die "no $root/train_gpt; run make, or take the package of make dist"
gpu_tests=$(first_program "${GPU_TESTS:-}" "$root/bin/gpu_tests" "$root/build/release/gpu_tests") || gpu_tests=''

# Those the loader misses, and cuBLASLt, which the programs open by name when they first need it.
missing_libraries() {
    local opened
    opened=$(grep -aom1 'libcublasLt\.so\.[0-9]*' "$train_gpt")
    {
        ldd "$train_gpt" ${gpu_tests:+"$gpu_tests"} 2> /dev/null | awk '/=> not found/ { print $1 }'
        if [ -n "$opened" ] && ! ldconfig -p 2> /dev/null | grep -q "$opened" &&
            ! (IFS=:; for folder in ${LD_LIBRARY_PATH-}; do [ ! -e "$folder/$opened" ] || exit 0; done; exit 1); then
            echo "$opened"
        fi
    } | sort -u
}

library_folders() {
    [ -z "$python" ] || "$python" -c 'import glob, sys
for path in sys.path: print(*glob.glob(path + "/nvidia/*/lib"), sep="\n")' 2> /dev/null
    printf '%s\n' "${CUDA_HOME:-/usr/local/cuda}/lib64" /usr/local/cuda*/lib{64,} /usr/local/cuda*/targets/*/lib
}

# Only for our programs: PyTorch brings its own.
library_path=''
missing=$(missing_libraries)
if [ -n "$missing" ]; then
    while read -r folder; do
        for library in $missing; do
            [ -e "$folder/$library" ] || continue
            case :$library_path: in *:"$folder":*) ;; *) library_path+=${library_path:+:}$folder ;; esac
        done
    done < <(library_folders)
fi
with_libraries=(env)
if [ -n "$library_path" ]; then
    with_libraries+=("LD_LIBRARY_PATH=$library_path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
    missing=$(LD_LIBRARY_PATH=${with_libraries[1]#*=} missing_libraries)
    say "the loader does not find all libraries; added to LD_LIBRARY_PATH: $library_path"
fi
{
    printf '#!/bin/sh\nexec env'
    printf ' %q' "${with_libraries[@]:1}" "$train_gpt"
    printf ' "$@"\n'
} > "$tmp/train_gpt"
chmod +x "$tmp/train_gpt"

# A mebibyte of text that no model can learn; --vocab-size makes room for more than its bytes.
data=$tmp/text.txt
head -c 786432 /dev/urandom | base64 > "$data"
model=(--model=gpt2 --vocab-size=50257 --batch-size=4 --seq-len=1024 --dtype=bf16)
[ "$smoke" = no ] || model=(--model=gpt2-nano --batch-size=2 --seq-len=64)
model+=(--data="$data" --device="$device")

# ---- 1. what is here -------------------------------------------------------------------------------

describe() {
    step=describe
    date=$(date +%F)
    version=$("$tmp/train_gpt" --version 2>> "$log") || version='train_gpt does not start'
    name=$(smi name) driver=$(smi driver_version)
    cuda=$(nvidia-smi 2> /dev/null | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/\1/p' | head -n 1)
    about="$date, ${name:-no card}, driver ${driver:-none} (CUDA ${cuda:-none}), $version"
    about_json="{\"date\": $(json "$date"), \"gpu\": $(json "$name"), \"driver\": $(json "$driver"), "
    about_json+="\"cuda\": $(json "$cuda"), \"version\": $(json "$version"), \"quick\": $(json "$quick"), "
    about_json+="\"smoke\": $(json "$smoke")"
    local field
    for field in compute_cap memory.total memory.used clocks.max.sm clocks.max.memory clocks.sm clocks.memory \
        power.limit temperature.gpu mig.mode.current ecc.mode.current; do
        about_json+=", $(json "$field"): $(json "$(smi "$field")")"
    done
    about_json+="}"
    if [ -n "$missing" ]; then
        record libraries miss "not found: $(echo "$missing" | paste -sd' '); install CUDA, or pip's nvidia packages"
    elif [ -n "$library_path" ]; then
        record libraries pass "$library_path"
    else
        record libraries pass "found by the loader"
    fi
    if "$tmp/train_gpt" "${model[@]}" --dry-run > "$tmp/dry" 2>&1; then
        record "train_gpt on the card" pass "$(sed -n 's/.*train_gpt .* on \(.*\)/\1/p' "$tmp/dry" | head -n 1)"
    else
        record "train_gpt on the card" miss "$(tail -n 1 "$tmp/dry")"
    fi
    cat "$tmp/dry" >> "$log"
}

# ---- 2. the kernels' tests, 3. under compute-sanitizer ------------------------------------------------

# The last summary line of GoogleTest that the pattern finds.
tests_that() { sed -n "s/^\[  $1 *\] \([0-9]*\) tests\{0,1\}[.,]*.*/\1/p" "$2" | tail -n 1; }

run_gpu_tests() {
    step=tests
    local status passed failed skipped names
    if [ -z "$gpu_tests" ]; then
        [ "$smoke" = no ] || { record gpu_tests skip "--smoke"; return; }
        record gpu_tests miss "not there; make build/release/gpu_tests"
        return
    fi
    limited 150 "${with_libraries[@]}" "$gpu_tests" --gtest_color=no > "$tmp/tests" 2>&1
    status=$?
    cat "$tmp/tests" >> "$log"
    passed=$(tests_that 'PASSED' "$tmp/tests") failed=$(tests_that 'FAILED' "$tmp/tests")
    skipped=$(tests_that 'SKIPPED' "$tmp/tests")
    case $status in
        0)
            if [ "${passed:-0}" -gt 0 ]; then
                record gpu_tests pass "$passed passed${skipped:+, $skipped skipped}"
            else
                record gpu_tests miss "no test passed"
            fi ;;
        124) record gpu_tests miss "did not end, last $(sed -n 's/^\[ RUN      \] //p' "$tmp/tests" | tail -n 1)" ;;
        *)
            names=$(sed -n 's/^\[  FAILED  \] \([^ ,]*[.][^ ,]*\).* ms)$/\1/p' "$tmp/tests" | head -n 3 | paste -sd' ')
            [ -n "$names" ] || names="status $status, $(tail -n 1 "$tmp/tests")"
            record gpu_tests miss "${passed:-0} passed, ${failed:-?} failed: $names" ;;
    esac
}

# One rank over NCCL, from the log of the tests: skipped where NCCL is not installed.
report_nccl() {
    [ -s "$tmp/tests" ] || return 0
    if grep -q '^\[       OK \] Nccl[.]' "$tmp/tests"; then
        record "NCCL, one rank" pass "reductions and gathers in order with the kernels"
    elif grep -q '^\[  SKIPPED \] Nccl[.]' "$tmp/tests"; then
        record "NCCL, one rank" skip "$(sed -n '/^\[ RUN .*Nccl/,/SKIPPED/p' "$tmp/tests" | grep -i nccl | sed -n 2p)"
    else
        record "NCCL, one rank" miss "the test failed, or is not in gpu_tests"
    fi
}

# sanitize TOOL OPTION...
sanitize() {
    local tool=$1 status summary failed
    shift
    if [ "$quick" = yes ] && [ "$tool" != memcheck ]; then
        record "$tool" skip "--quick"
    elif [ -z "$gpu_tests" ]; then
        record "$tool" skip "no gpu_tests"
    elif [ -z "$sanitizer" ]; then
        record "$tool" skip "no compute-sanitizer"
    elif [ "$(left)" -lt 10 ]; then
        record "$tool" skip "no time was left"
    else
        limited 40 "${with_libraries[@]}" "$sanitizer" --tool "$tool" --error-exitcode 99 "$@" "$gpu_tests" \
            --gtest_color=no "--gtest_filter=${SANITIZER_FILTER:--*Training*:*MoreHostMemory*}" > "$tmp/sanitizer" 2>&1
        status=$?
        cat "$tmp/sanitizer" >> "$log"
        summary=$(sed -n 's/^=* *\([A-Z]* SUMMARY:.*\)/\1/p' "$tmp/sanitizer" | tail -n 1)
        if [ "$status" -eq 124 ]; then
            record "$tool" miss "did not end, last $(sed -n 's/^\[ RUN      \] //p' "$tmp/sanitizer" | tail -n 1)"
        elif [ "$status" -eq 0 ] && [ -n "$summary" ]; then
            record "$tool" pass "$summary, $(tests_that PASSED "$tmp/sanitizer") tests"
        elif [ -n "$summary" ]; then
            failed=$(tests_that FAILED "$tmp/sanitizer")
            record "$tool" miss "$summary, status $status, ${failed:-no} tests failed"
        else
            record "$tool" skip "compute-sanitizer cannot run here: $(tail -n 1 "$tmp/sanitizer")"
        fi
    fi
}

run_sanitizers() {
    step=sanitizer
    sanitizer=$(command -v compute-sanitizer) || sanitizer=$(first_program "${CUDA_HOME:-}/bin/compute-sanitizer" \
        /usr/local/cuda/bin/compute-sanitizer) || sanitizer=''
    sanitize memcheck
    sanitize racecheck
    sanitize initcheck
}

# ---- 4. the same bits at every level, 5. the memory they take --------------------------------------------

used_mib() {
    local used
    used=$(smi memory.used)
    echo "${used:-0}"
}

# three_steps OPTION...: trains until three steps are in metrics.jsonl, then ends the process without a checkpoint. Sets
# $peak_mib, the most that nvidia-smi showed in use.
three_steps() {
    local run=$tmp/run end=$((SECONDS + 60)) used
    rm -rf "$run"
    peak_mib=0
    [ "$(left)" -ge 5 ] || { echo "no time was left" > "$tmp/run.log"; return 1; }
    "$tmp/train_gpt" "${model[@]}" --steps=1000 --val-every=0 --sample-length=0 --output-dir="$run" --log-level=warn \
        "$@" < /dev/null > "$tmp/run.log" 2>&1 &
    job=$! job_signal=KILL
    while [ "$(wc -l 2> /dev/null < "$run/metrics.jsonl" || echo 0)" -lt 3 ]; do
        kill -0 "$job" 2> /dev/null || break
        [ "$SECONDS" -lt "$end" ] || { echo "no third step in 60 s" >> "$tmp/run.log"; break; }
        sleep 0.1
        used=$(used_mib)
        [ "$used" -le "$peak_mib" ] || peak_mib=$used
    done
    used=$(used_mib) # once more: modules are loaded when they are first used
    [ "$used" -le "$peak_mib" ] || peak_mib=$used
    kill -KILL "$job" 2> /dev/null
    wait "$job" 2> /dev/null
    job=''
    cat "$tmp/run.log" >> "$log"
    head -n 3 "$run/metrics.jsonl" > "$tmp/metrics" 2> /dev/null
    [ "$(wc -l < "$tmp/metrics")" -eq 3 ]
}

# What must not depend on how a step is computed.
curve() { sed 's/,"step_ms".*//' "$tmp/metrics"; }

# settled MIB: waits until the card is back at so much in use, as the driver frees what a killed process held.
settled() {
    local i
    for ((i = 0; i < 30; ++i)); do
        [ "$(used_mib)" -gt $(($1 + 8)) ] || return 0
        sleep 0.1
    done
}

memory_rows=''
memory_objects=''

# memory_row LABEL PREDICTED BEFORE_MIB
memory_row() {
    local allocated overhead=''
    step=memory
    allocated=$(number memory_bytes "$tmp/metrics")
    if [ "$2" = "$allocated" ]; then
        record "$1: allocated as predicted" pass "$(mib "$allocated") MiB"
    else
        record "$1: allocated as predicted" miss "predicted ${2:-nothing}, allocated ${allocated:-nothing} bytes"
    fi
    [ -n "$allocated" ] || return
    [ "$peak_mib" -eq 0 ] || overhead=$(awk "BEGIN { printf \"%.1f\", $peak_mib - $3 - $allocated / 1048576 }")
    memory_rows+="| $1 | $(mib "${2:-0}") | $(mib "$allocated") | ${overhead:+$((peak_mib - $3))} | $overhead |"$'\n'
    memory_objects+="${memory_objects:+,}"$'\n'"  {\"level\": \"$1\", \"predicted_bytes\": ${2:-null}, "
    memory_objects+="\"memory_bytes\": $allocated, \"nvidia_smi_before_mib\": $3, "
    memory_objects+="\"nvidia_smi_peak_mib\": $peak_mib, \"overhead_mib\": ${overhead:-null}}"
}

check_levels() {
    local level levels before predicted budget reference=''
    step=bits
    if ! "$tmp/train_gpt" plan --json "${model[@]}" > "$tmp/plan" 2>> "$log"; then
        record "every level" miss "train_gpt plan fails, see log.txt"
        return
    fi
    levels=$(sed -n 's/.*"recompute": *"\([^"]*\)".*/\1/p' "$tmp/plan")
    # For auto: half-way between the first two levels.
    budget=$(sed -n 's/.*"total_bytes": *\([0-9]*\).*/\1/p' "$tmp/plan" | awk 'NR <= 2 { sum += $1 }
        END { printf "%.0f", sum / 2 }')
    before=$(used_mib)
    for level in $levels auto; do
        step=bits
        local options=(--recompute="$level") label=$level
        [ "$level" != auto ] || options+=(--memory-budget="$budget") label="auto in $(mib "$budget") MiB"
        predicted=''
        ! "$tmp/train_gpt" plan --json "${model[@]}" "${options[@]}" > "$tmp/plan" 2>> "$log" ||
            predicted=$(number total_bytes "$tmp/plan")
        if ! three_steps "${options[@]}"; then
            record "$label" miss "$(tail -n 1 "$tmp/run.log")"
            settled "$before"
            continue
        fi
        if [ -z "$reference" ]; then
            reference=$(curve)
            record "$label: loss and gradient norm of 3 steps" pass "the reference: loss $(curve | tail -n 1 |
                sed 's/.*"loss"://; s/,.*//')"
        elif [ "$(curve)" = "$reference" ]; then
            record "$label: loss and gradient norm of 3 steps" pass "equal to the last bit"
        else
            record "$label: loss and gradient norm of 3 steps" miss "$(curve | tail -n 1)"
        fi
        memory_row "$label" "$predicted" "$before"
        settled "$before"
    done
}

# ---- 6. to 8. speed, attention, roofline -----------------------------------------------------------------

run_benchmarks() {
    step=benchmarks
    local options=() status verdict name figure
    if [ -z "$python" ]; then
        record gpu_vs_torch skip "no python3"
        return
    fi
    [ "$quick" = no ] || options+=(--quick)
    [ "$smoke" = no ] || options+=(--smoke --device=cpu --models=gpt2)
    if [ "$(left)" -lt 20 ]; then
        record gpu_vs_torch skip "no time was left"
        return
    fi
    options+=(--seconds="$(($(left) - 5))" --output-dir="$tmp/bench")
    TRAIN_GPT=$tmp/train_gpt limited "$(left)" "$python" "$root/dev/bench/gpu_vs_torch.py" "${options[@]}" \
        > /dev/null 2> "$tmp/bench.log"
    status=$?
    cat "$tmp/bench.log" >> "$log"
    if [ -s "$tmp/bench/gpu_vs_torch.tsv" ]; then
        while IFS=$'\t' read -r step name verdict figure; do
            record "$name" "$verdict" "$figure"
        done < "$tmp/bench/gpu_vs_torch.tsv"
        cp "$tmp/bench/profiles.txt" "$out/"
    fi
    # 1 says that a target was missed, which a row says already.
    if [ "$status" -gt 1 ] || [ ! -s "$tmp/bench/gpu_vs_torch.tsv" ]; then
        step=benchmarks
        record gpu_vs_torch miss "status $status: $(tail -n 1 "$tmp/bench.log")"
    fi
}

# ---- telling -----------------------------------------------------------------------------------------------

write_report() {
    local benchmarks=null
    [ ! -s "$tmp/bench/gpu_vs_torch.json" ] || benchmarks=$(cat "$tmp/bench/gpu_vs_torch.json")
    printf '{"about": %s,\n"seconds": %d,\n"checks": [%s\n],\n"memory": [%s\n],\n"benchmarks": %s}\n' \
        "$about_json" "$SECONDS" "$objects" "$memory_objects" "$benchmarks" > "$tmp/gpu_check.json"
    {
        printf '# train_gpt on a GPU\n\n%s. Made by scripts/gpu_check.sh%s in %d s.\n' "$about" "$1" "$SECONDS"
        if [ -s "$tmp/bench/gpu_vs_torch.md" ]; then
            printf '\n'
            cat "$tmp/bench/gpu_vs_torch.md"
        fi
        if [ -n "$memory_rows" ]; then
            printf '\nMemory in MiB, GPT-2 124M, 4 x 1024 tokens, bf16; CUDA takes some itself beyond what is '
            printf 'allocated (context, modules):\n\n'
            printf '| level | predicted | allocated | nvidia-smi, peak less before | CUDA |\n'
            printf '|---|---:|---:|---:|---:|\n%s' "$memory_rows"
        fi
        printf '\n| step | check | verdict | figure |\n|---|---|---|---|\n%s' "$rows"
    } > "$tmp/gpu_check.md"
    # Whole or not there.
    for report in gpu_check.json gpu_check.md; do
        if ! cp "$tmp/$report" "$out/.$report.tmp" || ! mv "$out/.$report.tmp" "$out/$report"; then
            rm -f "$out/.$report.tmp"
            say "$out/$report: cannot be written"
            exit 1
        fi
    done
    printf '\n'
    cat "$out/gpu_check.md"
}

if [ "$smoke" = no ] && ! command -v nvidia-smi > /dev/null; then
    die "no nvidia-smi here: this needs a machine with an NVIDIA card and its driver"
fi
describe
run_gpu_tests
report_nccl
run_sanitizers
check_levels
run_benchmarks
made_by=''
[ "$quick" = no ] || made_by+=' --quick'
[ "$smoke" = no ] || made_by+=' --smoke'
write_report "$made_by"
say "results in $out; $misses failed or missed"
[ "$misses" -eq 0 ]
