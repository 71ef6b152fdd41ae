#!/usr/bin/env bash
# How good is the predicted step time? Six shapes, each at some levels: what `plan` predicts from its probe of 50 ms and
# after --calibrate, beside the median of what the steps of a training took.
#
#   dev/bench/predict_time.sh [--quick] [--levels="0 1 2 auto"] [--rounds=N] [-- OPTION...]
#                                                                            or: make bench BENCH=predict_time
#
# Prints a table. With neither --quick (the first shape at level 0, once) nor further options of train_gpt (such as
# --threads=1) it writes dev/bench/results/predict_time.md and .json, too. auto has the memory halfway between levels 2
# and 1. Probes, calibrations and trainings alternate, in --rounds rounds (3): a time is the median over the rounds, of
# a run's median step after two warm-up steps. About twenty minutes on two cores that do nothing else, five for level 0
# alone. Exits with 1 if a prediction is more than 15 % off, or after --calibrate 8 %.
set -euo pipefail

quick=no
levels="0 1 2 auto"
rounds=3
more=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes levels=0 rounds=1 ;;
        --levels=*) levels=${1#*=} ;;
        --rounds=*) rounds=${1#*=} ;;
        --) shift; more=("$@"); break ;;
        *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"

warmup=2
status=0
rows=""
objects=""

# options_of LEVEL: how to ask for it; $budget is set for auto.
options_of() {
    printf -- '--recompute=%s' "$1"
    [ "$1" != auto ] || printf ' --memory-budget=%sB' "$budget"
}

# predicted_ms CACHE OPTION...: the step time that `plan` says, with the calibrations of that cache.
predicted_ms() {
    local cache=$1
    shift
    XDG_CACHE_HOME=$cache "$train_gpt" plan --json --data="$data" "$@" 2> "$tmp/log" \
        | sed -n 's/.*"predicted_step_ms": *\([0-9.]*\).*/\1/p'
}

# judge PREDICTED MEASURED ALLOWED: sets $error, in percent, and $verdict.
judge() {
    error=$(awk "BEGIN { printf \"%+.1f\", 100 * ($1 / $2 - 1) }")
    verdict=
    holds "$error <= $3 && $error >= -$3" || { verdict=' **MISS**'; status=1; }
}

# measure TITLE STEPS OPTION...: a row and a JSON object per level.
measure() {
    local title=$1 steps=$2 level round took probed calibrated cells
    shift 2
    set -- "$@" ${more[@]+"${more[@]}"}
    budget=$((($(predicted_bytes "$@" --recompute=1) + $(predicted_bytes "$@" --recompute=2)) / 2))
    declare -A times=() probes=() calibrations=()
    for ((round = 1; round <= rounds; ++round)); do
        rm -rf "$tmp/cache"
        predicted_ms "$tmp/cache" "$@" --calibrate --recompute=0 > "$tmp/calibrated"
        for level in $levels; do
            # shellcheck disable=SC2046
            {
                probes[$level]+=$(predicted_ms "$tmp/none" "$@" $(options_of "$level"))$'\n'
                calibrations[$level]+=$(predicted_ms "$tmp/cache" "$@" $(options_of "$level"))$'\n'
                train "$steps" "$@" $(options_of "$level")
            }
            times[$level]+=$(tail -n "+$((warmup + 1))" <<< "$steps_ms" | median)$'\n'
            say "$title, round $round: $level $(calculate "$(tail -n 1 <<< "${times[$level]%$'\n'}")") ms"
        done
    done
    for level in $levels; do
        took=$(printf '%s' "${times[$level]}" | median)
        probed=$(printf '%s' "${probes[$level]}" | median)
        calibrated=$(printf '%s' "${calibrations[$level]}" | median)
        judge "$probed" "$took" 15
        cells="$(calculate "$probed") | $error %$verdict"
        objects+="${objects:+,}"$'\n'"  {\"model\": \"$title\", \"recompute\": \"$level\", \"step_ms\": $took, "
        objects+="\"probed_ms\": $probed, \"probed_error\": \"$error %\", "
        judge "$calibrated" "$took" 8
        rows+="| $title | $level | $(calculate "$took") | $cells | $(calculate "$calibrated") | $error %$verdict |"$'\n'
        objects+="\"calibrated_ms\": $calibrated, \"calibrated_error\": \"$error %\", "
        objects+="\"step_ms_of_rounds\": [$(printf '%s' "${times[$level]}" | paste -sd,)]}"
    done
}

# A processor without bf16 dot products measures fp32 in their place.
half=bf16
"$train_gpt" plan --model=gpt2-nano --dtype=bf16 > "$tmp/log" 2>&1 || half=fp32

measure "gpt2-mini 8 x 256, fp32" 8 --model=gpt2-mini -b 8 -t 256 --dtype=fp32
if [ "$quick" = no ]; then
    measure "gpt2-mini 12 x 256, $half" 8 --model=gpt2-mini -b 12 -t 256 --dtype=$half
    measure "llama-mini 4 x 512, fp32" 8 --model=llama-mini -b 4 -t 512 --dtype=fp32
    measure "SmolLM2 135M 1 x 512, fp32" 5 --model=smollm2-135m --vocab-size=49152 -b 1 -t 512 --dtype=fp32
    measure "GPT-2 124M 2 x 256, fp32" 6 --model=gpt2 --vocab-size=50257 -b 2 -t 256 --dtype=fp32
    measure "GPT-2 124M 2 x 1024, $half" 5 --model=gpt2 --vocab-size=50257 -b 2 -t 1024 --dtype=$half
fi

report="# Predicted and measured step times on the CPU

$(about)${more[*]+; with ${more[*]}}.

| model | --recompute | measured ms | from the probe ms | error (15 %) | calibrated ms | error (8 %) |
|---|---|---:|---:|---:|---:|---:|
$rows"
printf '%s\n' "$report"
[ "$quick" = yes ] || [ ${#more[@]} -gt 0 ] || publish predict_time "$report" "$objects"
exit "$status"
