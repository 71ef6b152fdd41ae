#!/usr/bin/env bash
# Is --recompute=auto worth it? With the memory of level 1 it must not be slower than level 1, with that of level 2 it
# must be faster than level 2; both beside each other in one run, after one --calibrate. Then, without running them, its
# plans beside a bound, the levels and an older program: auto_plans.py.
#
#   dev/bench/auto.sh [--quick]      or: make bench BENCH=auto
#
# Prints a table and writes dev/bench/results/auto.md and .json. --quick is gpt2-mini in one round and writes nothing.
# The settings run in turn, three rounds; a time is the median over the rounds of a run's median step after two warm-up
# steps. About six minutes on two cores that do nothing else. Exits with 1 if a ratio misses its target; 1.02 is
# allowed for noise where "not slower" is asked.
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

# time_of NAME: the median over the rounds.
time_of() { printf '%s' "${times[$1]}" | median; }

# compare TITLE ROUNDS STEPS OPTION...: a row and a JSON object per level whose memory auto gets.
compare() {
    local title=$1 rounds=$2 steps=$3 level round ratio target verdict setting arguments
    shift 3
    "$train_gpt" plan --json --calibrate --recompute=0 --data="$data" "$@" > "$tmp/calibrated" 2> "$tmp/log"
    declare -A times=() bytes=()
    for level in 1 2; do bytes[$level]=$(predicted_bytes "$@" --recompute="$level"); done
    for ((round = 1; round <= rounds; ++round)); do
        for setting in 0 1 auto1 2 auto2; do
            case $setting in
                auto*) arguments="--recompute=auto --memory-budget=${bytes[${setting#auto}]}B" ;;
                *) arguments="--recompute=$setting" ;;
            esac
            # shellcheck disable=SC2086
            train "$steps" "$@" $arguments
            times[$setting]+=$(tail -n "+$((warmup + 1))" <<< "$steps_ms" | median)$'\n'
            say "$title, round $round: $setting $(calculate "$(tail -n 1 <<< "${times[$setting]%$'\n'}")") ms"
        done
    done
    local none
    none=$(time_of 0)
    for level in 1 2; do
        ratio=$(awk "BEGIN { printf \"%.3f\", $(time_of "auto$level") / $(time_of "$level") }")
        target=1.02
        [ "$level" = 1 ] || target=1.00
        verdict=pass
        holds "$ratio <= $target" || { verdict='**MISS**'; status=1; }
        rows+="| $title | $level | $(mib "${bytes[$level]}") | $(calculate "$(time_of "$level")") "
        rows+="| $(calculate "$(time_of "auto$level")") | $ratio | $target $verdict "
        rows+="| +$(calculate "100 * ($(time_of "$level") / $none - 1)") % "
        rows+="| +$(calculate "100 * ($(time_of "auto$level") / $none - 1)") % |"$'\n'
        objects+="${objects:+,}"$'\n'"  {\"model\": \"$title\", \"level\": $level, \"budget_bytes\": ${bytes[$level]}, "
        objects+="\"level_ms\": $(time_of "$level"), \"auto_ms\": $(time_of "auto$level"), \"none_ms\": $none, "
        objects+="\"ratio\": $ratio}"
    done
}

if [ "$quick" = yes ]; then
    compare "gpt2-mini B=8 T=256" 1 6 --model=gpt2-mini --batch-size=8 --seq-len=256
else
    compare "gpt2-mini B=8 T=256" 3 8 --model=gpt2-mini --batch-size=8 --seq-len=256
    compare "GPT-2 124M B=2 T=256" 3 6 --model=gpt2 --vocab-size=50257 --batch-size=2 --seq-len=256
fi

report="# auto in the memory of a level, on the CPU

$(about).

| model | memory of level | MiB | level ms | auto ms | auto / level | target | level over 0 | auto over 0 |
|---|---|---:|---:|---:|---:|---|---:|---:|
$rows"
printf '%s\n' "$report"
[ "$quick" = yes ] || publish auto "$report" "$objects"
[ "$quick" = yes ] || TRAIN_GPT=$train_gpt python3 "$root/dev/bench/auto_plans.py" || status=1
exit "$status"
