#!/usr/bin/env bash
# What do smaller formats of optimiser state cost in quality? Trains the demo model and gpt2-mini on the demo text, in
# bf16 with two micro-batches per update, with fp32 state and with every smaller format, and compares the validation
# losses at the end.
#
#   dev/bench/formats.sh [--only=WORD] [--quick|--long|--demo SEED...]      or: make bench BENCH=formats
#
# Prints a table and writes dev/bench/results/formats.md and .json; --quick has a tenth of the steps and writes nothing,
# --long has ten times as many. --demo trains the demo alone, as long as `make train` does and at its rate (2,000
# updates, 3e-3), from each of the seeds, and adds their rows to dev/bench/results/formats_demo.md; half an hour a
# seed on two cores. --only takes the formats with that word. Where the processor has no bf16 dot products everything
# is fp32, with masters as it is. About three minutes on two cores, half an hour with --long. Exits with 1 if a loss
# is more than 0.5 % above that of fp32 state, or 1 % with all formats together.
set -euo pipefail

tenths=10 seeds=() only=""
case "${1-}" in --only=*) only=${1#*=} && shift ;; esac
case "${1-}" in
    --quick) tenths=1 ;;
    --long) tenths=100 ;;
    --demo) seeds=("${@:2}") ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"

data=$root/data/demo.txt
[ -e "$data" ] || (cd "$root" && data/demo.sh) >&2
dtype=bf16
"$train_gpt" --data="$data" --dtype=bf16 --dry-run > /dev/null 2>&1 || dtype=fp32

status=0
rows=""
objects=""

# loss_of OPTION...: trains; the last validation loss.
loss_of() {
    rm -rf "$tmp/run"
    "$train_gpt" --data="$data" --sample-length=0 --output-dir="$tmp/run" --log-level=warn "$@" ||
        die "train_gpt $* failed"
    sed -n 's/.*"val_loss":\([0-9.]*\).*/\1/p' "$tmp/run/metrics.jsonl" | tail -n 1
    rm -rf "$tmp/run"
}

# compare TITLE STEPS OPTION... -- OPTION...: a row and a JSON object per format. After -- options of training alone.
compare() {
    local title=$1 steps=$(($2 * tenths / 10)) setting arguments loss base='' difference target verdict bytes option
    local shape=() training=()
    for option in "${@:3}"; do
        if [ "$option" = -- ] || [ ${#training[@]} -gt 0 ]; then training+=("$option"); else shape+=("$option"); fi
    done
    training=("${training[@]:1}" "--steps=$steps" "--val-every=$steps")
    [ ${#seeds[@]} -gt 0 ] || training+=("--warmup=$((steps / 12))")
    for setting in "fp32 state" "moments bf16" "moments 8bit" "no masters" "gradients bf16" "all, moments 8bit"; do
        [[ $setting == "fp32 state" || $setting == *"$only"* ]] || continue
        target=0.5
        case $setting in
            "fp32 state") arguments="" ;;
            "moments bf16") arguments="--moments=bf16" ;;
            "moments 8bit") arguments="--moments=8bit" ;;
            "no masters") arguments="--masters=none" ;;
            "gradients bf16") arguments="--gradients=bf16" ;;
            all*) arguments="--moments=${setting##* } --masters=none --gradients=bf16" target=1 ;;
        esac
        if [ $dtype = fp32 ]; then
            [ "$setting" = "no masters" ] && continue
            arguments=${arguments/--masters=none/}
        fi
        # shellcheck disable=SC2086
        loss=$(loss_of "${shape[@]}" "${training[@]}" --dtype=$dtype $arguments)
        # shellcheck disable=SC2086
        bytes=$(predicted_bytes "${shape[@]}" --dtype=$dtype --recompute=0 $arguments)
        base=${base:-$loss}
        difference=$(awk "BEGIN { printf \"%+.2f\", 100 * ($loss / $base - 1) }")
        verdict="pass"
        holds "$difference <= $target" || { verdict='**MISS**'; status=1; }
        [ "$setting" = "fp32 state" ] && verdict="" target=""
        rows+="| $title, $steps updates | $setting | $(mib "$bytes") | $loss | $difference % "
        rows+="| ${target:+$target % }$verdict |"$'\n'
        objects+="${objects:+,}"$'\n'"  {\"model\": \"$title\", \"state\": \"$setting\", \"dtype\": \"$dtype\", "
        objects+="\"steps\": $steps, \"total_bytes\": $bytes, \"val_loss\": $loss, \"percent_above_fp32\": $difference}"
        say "$title, $setting: $loss ($difference %)"
    done
}

# At rates at which two trainings that differ in a last bit stay near each other: otherwise chance decides the digits.
if [ ${#seeds[@]} -gt 0 ]; then
    for seed in "${seeds[@]}"; do
        compare "demo, seed $seed" 2000 --batch-size=8 --total-batch-size=2048 -- --seed="$seed"
        printf '%s' "$rows" >> "$root/dev/bench/results/formats_demo.md"
        rows=""
    done
    exit "$status"
fi
compare "demo" 150 --batch-size=8 --total-batch-size=2048 -- --learning-rate=1e-3
compare "gpt2-mini" 60 --model=gpt2-mini --batch-size=4 --seq-len=128 --total-batch-size=1024 -- \
    --learning-rate=5e-4 --val-sequences=160

report="# Validation loss with smaller formats of optimiser state

$(about).
Demo text, $dtype parameters and activations, two micro-batches per update; MiB are planned, activations included.

| model | state | MiB | validation loss | above fp32 state | at most |
|---|---|---:|---:|---:|---|
$rows"
printf '%s\n' "$report"
[[ $tenths = 1 || -n $only ]] || publish formats "$report" "$objects"
exit "$status"
