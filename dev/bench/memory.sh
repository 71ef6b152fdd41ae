#!/usr/bin/env bash
# Is the predicted memory the real one? Trains GPT-2 124M (B = 4, T = 1024) for three steps at levels 0, 1 and 2 and
# compares the peak resident set of the process with what `train_gpt plan` predicts plus a base: what a process needs
# besides its model (code, libraries, stacks, their buffers). The base is measured in the same run, as the resident set
# of the same command with a tiny model less the prediction for that.
#
#   dev/bench/memory.sh [--quick]      or: make bench BENCH=memory
#
# --quick takes B = 1, T = 128. The process is measured from start to end, its last checkpoint included. Needs up to
# 6 GiB of memory and 2 GiB in $TMPDIR; about four minutes on two cores. Exits with 1 if a difference is above 5 %.
set -euo pipefail

batch="--batch-size=4 --seq-len=1024"
case "${1-}" in
    --quick) batch="--batch-size=1 --seq-len=128" ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"

# shellcheck disable=SC2206  # to be split
common=(--model=gpt2 --vocab-size=50257 $batch)
tiny=("${common[@]}" --layers=1 --heads=1 --channels=32 --recompute=0)
steps=3
worst=5 # per cent

train "$steps" "${tiny[@]}"
base=$((peak - $(predicted_bytes "${tiny[@]}")))
say "base: $(mib "$base") MiB"

status=0
rows=""
for level in 0 1 2; do
    predicted=$(predicted_bytes "${common[@]}" --recompute="$level")
    train "$steps" "${common[@]}" --recompute="$level"
    difference=$(awk "BEGIN { printf \"%+.1f\", 100 * ($peak / ($predicted + $base) - 1) }")
    verdict=pass
    holds "$difference >= -$worst && $difference <= $worst" || { verdict='**MISS**'; status=1; }
    rows+="| $level | $(mib "$predicted") | $(mib $((predicted + base))) | $(mib "$peak") "
    rows+="| $difference % | $verdict |"$'\n'
    say "level $level: measured $(mib "$peak") MiB, $difference %"
done

cat <<REPORT
Peak resident memory of GPT-2 124M, $batch, in MiB ($(about)).
Base: $(mib "$base") MiB.

| level | predicted | predicted + base | measured | difference | within $worst % |
|---|---:|---:|---:|---:|---|
$rows
REPORT
exit $status
