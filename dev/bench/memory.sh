#!/usr/bin/env bash
# Is the predicted memory the real one? Trains GPT-2 124M (B = 4, T = 1024) for three steps at levels 0, 1 and 2, with
# everything in host memory (--offload=all), each update at once and delayed, and by adapters, on a base in fp32 and in
# NF4. Compares the peak resident set of the process with what `train_gpt plan` predicts of both memories plus a base:
# what a process needs besides its model (code, libraries, stacks, their buffers). The base is measured in the same run,
# as the resident set of the same command with a tiny model less the prediction for that.
#
#   dev/bench/memory.sh [--quick] [--only=WORD]      or: make bench BENCH=memory
#
# Prints a table; a whole one, of full size, goes to dev/bench/results/memory.md and .json. --quick takes B = 1, T =
# 128; --only the settings with that word. The process is measured from start to end, its last checkpoint included.
# Needs up to 6 GiB of memory and 2 GiB in $TMPDIR; about ten minutes on two cores. Exits with 1 if a difference is
# above 5 %, or 2 % with everything in host memory, or by adapters.
set -euo pipefail

batch="--batch-size=4 --seq-len=1024" only="" quick=no
for argument in "$@"; do
    case $argument in
        --quick) batch="--batch-size=1 --seq-len=128" quick=yes ;;
        --only=*) only=${argument#*=} ;;
        *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"

# shellcheck disable=SC2206  # to be split
common=(--model=gpt2 --vocab-size=50257 $batch)
tiny=("${common[@]}" --layers=1 --heads=1 --channels=32 --recompute=0)
steps=3

# predicted_both OPTION...: bytes of the device and of the host together, which on a CPU are one memory.
predicted_both() {
    "$train_gpt" plan --json --data="$data" "$@" |
        sed -n 's/.*"\(total\|host\)_bytes": *\([0-9]*\).*/\2/p' | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

train "$steps" "${tiny[@]}"
base=$((peak - $(predicted_both "${tiny[@]}")))
say "base: $(mib "$base") MiB"

status=0
rows=""
objects=""
for setting in "5 0" "5 1" "5 2" "2 0 --offload=all --update=now" "2 1 --offload=all --update=now" \
    "2 1 --offload=all --update=delayed" "2 2 --offload=all --update=delayed" "2 0 --lora=16" "2 1 --lora=16" \
    "2 1 --lora=16 --base-format=nf4" "2 1 --lora=16 --base-format=nf4-double --offload=parameters"; do
    [[ $setting == *"$only"* ]] || continue
    read -r worst level places <<<"$setting"
    read -r -a options <<<"--recompute=$level $places"
    predicted=$(predicted_both "${common[@]}" "${options[@]}")
    train "$steps" "${common[@]}" "${options[@]}"
    difference=$(awk "BEGIN { printf \"%+.1f\", 100 * ($peak / ($predicted + $base) - 1) }")
    verdict=pass
    holds "$difference >= -$worst && $difference <= $worst" || { verdict='**MISS**'; status=1; }
    rows+="| $level $places | $(mib "$predicted") | $(mib $((predicted + base))) | $(mib "$peak") "
    rows+="| $difference % | $worst % | $verdict |"$'\n'
    objects+="${objects:+,}"$'\n'"  {\"level\": $level, \"options\": \"$places\", \"predicted_bytes\": $predicted, "
    objects+="\"base_bytes\": $base, \"peak_bytes\": $peak, \"percent\": ${difference#+}, \"at_most\": $worst}"
    say "level $level $places: measured $(mib "$peak") MiB, $difference %"
done

report="# Peak resident memory, predicted and measured

$(about). GPT-2 124M, $batch, MiB. Base: $(mib "$base") MiB.

| level | predicted | predicted + base | measured | difference | within | |
|---|---:|---:|---:|---:|---:|---|
$rows"
printf '%s\n' "$report"
[[ -n $only || $quick = yes ]] || publish memory "$report" "$objects"
exit $status
