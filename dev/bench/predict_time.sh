#!/usr/bin/env bash
# How good is the predicted step time? For three model shapes: one --calibrate, then every level 0, 1, 2 and auto (in
# half the memory between levels 2 and 1) trained, what `plan` predicted beside the median of what the steps took.
#
#   dev/bench/predict_time.sh [--quick]      or: make bench BENCH=predict_time
#
# Prints a table and writes dev/bench/results/predict_time.md and .json. --quick is the first shape alone and writes
# nothing. The calibration belongs to the same run, the levels run in turn in three rounds, a time is the median over
# the rounds of a run's median step after two warm-up steps. About eight minutes on two cores that do nothing else.
# Exits with 1 if a prediction is more than 10 % off.
set -euo pipefail

quick=no
case "${1-}" in
    --quick) quick=yes ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"
export XDG_CACHE_HOME=$tmp/cache

warmup=2
status=0
rows=""
objects=""

# options_of LEVEL: how to ask for it; $budget is set for auto.
options_of() {
    printf -- '--recompute=%s' "$1"
    [ "$1" != auto ] || printf ' --memory-budget=%s' "$budget"
}

# measure TITLE ROUNDS STEPS OPTION...: a row and a JSON object per level.
measure() {
    local title=$1 rounds=$2 steps=$3 level round ms predicted ratio verdict
    shift 3
    "$train_gpt" plan --json --calibrate --recompute=0 --data="$data" "$@" > "$tmp/calibrated" 2> "$tmp/log"
    budget=$((($(predicted_bytes "$@" --recompute=1) + $(predicted_bytes "$@" --recompute=2)) / 2))
    declare -A times=()
    for ((round = 1; round <= rounds; ++round)); do
        for level in 0 1 2 auto; do
            # shellcheck disable=SC2046
            train "$steps" "$@" $(options_of "$level")
            ms=$(tail -n "+$((warmup + 1))" <<< "$steps_ms" | median)
            times[$level]+=$ms$'\n'
            say "$title, round $round: $level $(calculate "$ms") ms"
        done
    done
    for level in 0 1 2 auto; do
        ms=$(printf '%s' "${times[$level]}" | median)
        # shellcheck disable=SC2046
        predicted=$("$train_gpt" plan --json --data="$data" "$@" $(options_of "$level") \
            | sed -n 's/.*"predicted_step_ms": *\([0-9.]*\).*/\1/p')
        ratio=$(awk "BEGIN { printf \"%.3f\", $predicted / $ms }")
        verdict=pass
        holds "$ratio >= 0.9 && $ratio <= 1.1" || { verdict='**MISS**'; status=1; }
        rows+="| $title | $level | $(calculate "$predicted") | $(calculate "$ms") | $ratio | $verdict |"$'\n'
        objects+="${objects:+,}"$'\n'"  {\"model\": \"$title\", \"recompute\": \"$level\", "
        objects+="\"predicted_ms\": $predicted, \"step_ms\": $ms, \"ratio\": $ratio, "
        objects+="\"step_ms_of_rounds\": [$(printf '%s' "${times[$level]}" | paste -sd,)]}"
    done
}

if [ "$quick" = yes ]; then
    measure "gpt2-mini B=8 T=256" 1 6 --model=gpt2-mini --batch-size=8 --seq-len=256
else
    measure "gpt2-mini B=8 T=256" 3 8 --model=gpt2-mini --batch-size=8 --seq-len=256
    measure "llama-mini B=4 T=512" 3 8 --model=llama-mini --batch-size=4 --seq-len=512
    measure "GPT-2 124M B=2 T=256" 3 6 --model=gpt2 --vocab-size=50257 --batch-size=2 --seq-len=256
fi

report="# Predicted and measured step times on the CPU

$(about).

| model | --recompute | predicted ms | measured ms | ratio | within 10 % |
|---|---|---:|---:|---:|---|
$rows"
printf '%s\n' "$report"
[ "$quick" = yes ] || publish predict_time "$report" "$objects"
exit "$status"
