#!/usr/bin/env bash
# What does recomputing cost on the CPU, and what does it save? Times training steps at every --recompute policy, the
# policies in turn, several rounds: gpt2-mini with B = 12, T = 256, and GPT-2 124M with B = 4, T = 256.
#
#   dev/bench/levels.sh [--quick]      or: make bench BENCH=levels
#
# Prints a table and writes dev/bench/results/levels.md and .json. --quick is gpt2-mini alone, in one round of fewer
# steps, and writes nothing. A time is the median over the rounds of a run's median step after two warm-up steps.
# Memory is the peak resident set of the process, its last checkpoint included, beside the prediction for the model.
# About twelve minutes on two cores that do nothing else. Exits with 1 if level 1 takes more than 1.25 times, or level 2
# more than 1.5 times, as long as level 0.
set -euo pipefail

quick=no
case "${1-}" in
    --quick) quick=yes ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"

policies="none layer sqrt act attn"
declare -A target=([layer]=1.25 [sqrt]=1.5)
declare -A level=([none]=0 [layer]=1 [sqrt]=2 [act]="" [attn]="")
warmup=2
status=0
rows=""
objects=""

# measure TITLE ROUNDS STEPS OPTION...: adds a row and a JSON object per policy.
measure() {
    local title=$1 rounds=$2 steps=$3 policy round ms ratio predicted verdict
    shift 3
    declare -A times=() peaks=()
    for ((round = 1; round <= rounds; ++round)); do
        for policy in $policies; do
            train "$steps" "$@" --recompute="$policy"
            ms=$(tail -n "+$((warmup + 1))" <<< "$steps_ms" | median)
            times[$policy]+=$ms$'\n'
            peaks[$policy]+=$peak$'\n'
            say "$title, round $round: $policy $(calculate "$ms") ms, $(mib "$peak") MiB"
        done
    done
    local reference
    reference=$(printf '%s' "${times[none]}" | median)
    for policy in $policies; do
        ms=$(printf '%s' "${times[$policy]}" | median)
        peak=$(printf '%s' "${peaks[$policy]}" | median | awk '{ printf "%.0f", $1 }')
        predicted=$(predicted_bytes "$@" --recompute="$policy")
        ratio=$(awk "BEGIN { printf \"%.3f\", $ms / $reference }")
        verdict=""
        if [ -n "${target[$policy]-}" ]; then
            verdict=pass
            holds "$ratio <= ${target[$policy]}" || { verdict='**MISS**'; status=1; }
            verdict="${target[$policy]} $verdict"
        fi
        rows+="| $title | ${level[$policy]:+${level[$policy]} }$policy | $(calculate "$ms") | $ratio | $verdict "
        rows+="| $(mib "$predicted") | $(mib "$peak") |"$'\n'
        objects+="${objects:+,}"$'\n'"  {\"model\": \"$title\", \"policy\": \"$policy\", \"step_ms\": $ms, "
        objects+="\"ratio\": $ratio, \"predicted_bytes\": $predicted, \"peak_bytes\": $peak, "
        objects+="\"step_ms_of_rounds\": [$(printf '%s' "${times[$policy]}" | paste -sd,)]}"
    done
}

if [ "$quick" = yes ]; then
    measure "gpt2-mini B=12 T=256" 1 5 --model=gpt2-mini --batch-size=12 --seq-len=256
else
    measure "gpt2-mini B=12 T=256" 3 10 --model=gpt2-mini --batch-size=12 --seq-len=256
    measure "GPT-2 124M B=4 T=256" 3 7 --model=gpt2 --vocab-size=50257 --batch-size=4 --seq-len=256
fi

report="# Recomputing on the CPU

$(about).

| model | policy | step ms | times level 0 | target | predicted MiB | resident MiB |
|---|---|---:|---:|---|---:|---:|
$rows"
printf '%s\n' "$report"
[ "$quick" = yes ] || publish levels "$report" "$objects"
exit $status
