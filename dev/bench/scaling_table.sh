#!/usr/bin/env bash
# The tables of dev/notes/scaling.md, as Markdown: what `plan --ranks` says of large models on many H100s. Planned, not
# measured; nothing is allocated and no GPU is needed.
#
#   dev/bench/scaling_table.sh [--quick]      or: make bench BENCH=scaling_table
#
# Takes seconds. Exits with 1 if a line of a table is not in the notes as it should be, unless there are no notes.
# --quick is the first model alone.
set -euo pipefail

models="gpt2-xl llama2-7b llama3-8b llama3-70b"
case "${1-}" in
    --quick) models=gpt2-xl ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"

# Sequences and tokens of a rank's micro-batch.
declare -A batch=([gpt2-xl]=8 [llama2-7b]=2 [llama3-8b]=1 [llama3-70b]=1)
declare -A context=([gpt2-xl]=1024 [llama2-7b]=4096 [llama3-8b]=8192 [llama3-70b]=8192)
card=80000000000 # bytes

# ask MODEL RANKS STAGE MICRO_BATCHES [OPTION...]: sets $memory, $sent (bytes), $hides (bytes per second, empty: nothing
# does), $step and $exposed (milliseconds of an update).
ask() {
    local B=${batch[$1]} T=${context[$1]} json
    json=$("$train_gpt" plan --json --model="$1" --ranks="$2" --zero="$3" --recompute=1 --dtype=bf16 \
        --device-profile=h100 --batch-size="$B" --seq-len="$T" --total-batch-size=$((B * T * $2 * $4)) "${@:5}")
    memory=$(number total_bytes) sent=$(number communication_bytes_per_update)
    hides=$(number hiding_bytes_per_second) step=$(number predicted_step_ms)
    exposed=$(number exposed_communication_ms)
}
number() { sed -n "s/.*\"$1\": *\([0-9.e+]*\).*/\1/p" <<< "$json"; }

gigabytes() { awk "BEGIN { printf \"%.${2-1}f\", $1 / 1e9 }"; }
share() { awk "BEGIN { printf \"%.0f %%\", 100 * $1 / $2 }"; }

# bold_if CONDITION TEXT
bold_if() { if holds "$1"; then printf '**%s**' "$2"; else printf '%s' "$2"; fi; }

memory_table() {
    local model ranks stage
    printf '| model, per rank | ranks | ZeRO 0 | 1 | 2 | 3 |\n|---|---:|---:|---:|---:|---:|\n'
    for model in $models; do
        for ranks in 8 64 256 1024; do
            printf '| %s, %s × %s | %s |' "$model" "${batch[$model]}" "${context[$model]}" "$ranks"
            for stage in 0 1 2 3; do
                ask "$model" "$ranks" "$stage" 1
                printf ' %s |' "$(bold_if "$memory <= $card" "$(gigabytes "$memory")")"
            done
            printf '\n'
        done
    done
}

traffic_table() {
    local model ranks stage
    printf '| model | ranks | sent: ZeRO 0 | 1 | 2 | 3 | hidden from: ZeRO 0 | 1 | 2 | 3 |\n'
    printf '|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n'
    for model in $models; do
        for ranks in 8 64 256 1024; do
            local all_sent='' all_hide=''
            for stage in 0 1 2 3; do
                ask "$model" "$ranks" "$stage" 1
                all_sent+=" $(gigabytes "$sent") |"
                all_hide+=" $([ -n "$hides" ] && gigabytes "$hides" 0 || echo never) |"
            done
            printf '| %s | %s |%s%s\n' "$model" "$ranks" "$all_sent" "$all_hide"
        done
    done
}

micro_batch_table() {
    local model count stage
    printf '| model, 64 ranks | micro-batches | ZeRO 0 | 1 | 2 | 3 |\n|---|---:|---:|---:|---:|---:|\n'
    for model in $models; do
        for count in 1 4 16; do
            printf '| %s | %s |' "$model" "$count"
            for stage in 0 1 2 3; do
                ask "$model" 64 "$stage" "$count"
                printf ' %s |' "$(share "$exposed" "$step")"
            done
            printf '\n'
        done
    done
}

batch_table() {
    local count
    printf '| llama3-8b, 64 ranks, ZeRO 3 | GB per rank | ms per sequence and rank | not hidden | hidden from, GB/s |\n'
    printf '|---|---:|---:|---:|---:|\n'
    for count in 1 2 4 8; do
        batch[llama3-8b]=$count
        ask llama3-8b 64 3 1
        printf '| %s × 8192 | %s | %s | %s | %s |\n' "$count" "$(gigabytes "$memory")" "$(calculate "$step / $count")" \
            "$(share "$exposed" "$step")" "$(gigabytes "$hides" 0)"
    done
}

invariant_table() {
    local stage
    printf '| gpt2-xl, 8 ranks, 4 micro-batches each | sent, GB | with --rank-invariant | GB per rank | with |\n'
    printf '|---|---:|---:|---:|---:|\n'
    for stage in 0 1 2 3; do
        ask gpt2-xl 8 "$stage" 4
        local plain_sent=$sent plain_memory=$memory
        ask gpt2-xl 8 "$stage" 4 --rank-invariant
        printf '| ZeRO %s | %s | %s | %s | %s |\n' "$stage" "$(gigabytes "$plain_sent")" "$(gigabytes "$sent")" \
            "$(gigabytes "$plain_memory")" "$(gigabytes "$memory")"
    done
}

for table in memory traffic micro_batch batch invariant; do
    "${table}_table"
    [ $table = invariant ] || echo
done | tee "$tmp/tables"

notes=$root/dev/notes/scaling.md
[ -e "$notes" ] || exit 0
missing=$(grep -v -x -F -f "$notes" "$tmp/tables" || :)
[ -z "$missing" ] || { say "not in dev/notes/scaling.md:"; printf '%s\n' "$missing" >&2; exit 1; }
