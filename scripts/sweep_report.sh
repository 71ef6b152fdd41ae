#!/bin/sh
# Makes the tables of a sweep from its run folders: sweep.csv and sweep.md, the latter also on stdout.
#
#   scripts/sweep_report.sh FOLDER        (scripts/sweep.sh does this at its end)
#
# Memory, time and speed, predicted and measured, of every run; whether the loss curves of a batch size are equal bit
# for bit. Times are medians over the steps of a run but the first two. Exits with 1 if curves differ, 2 for bad usage.
set -eu
export LC_ALL=C

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }
die() { printf 'sweep_report: %s\n' "$2" >&2; exit "$1"; }

case $#${1-} in
    1-h | 1--help) usage; exit 0 ;;
    1*) ;;
    *) die 2 "name one folder of scripts/sweep.sh; see --help" ;;
esac
out=${1%/}
case $out in -*) out=./$out ;; esac
[ -f "$out/sweep.options" ] || die 1 "$1: holds no sweep of scripts/sweep.sh; name another folder"
batch_sizes=$(sed -n 's/^batch sizes: //p' "$out/sweep.options")
levels=$(sed -n 's/^levels: //p' "$out/sweep.options")
base_bytes=$(cat "$out/base_bytes" 2>/dev/null || :)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# number KEY FILE: the value of that key in the last line of the file that has it; nothing without such a line.
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" "$2" 2>/dev/null | tail -n 1; }

# recorded KEY FOLDER: what sweep.sh noted of a run.
recorded() { sed -n "s/^$1=//p" "$2/sweep.txt" 2>/dev/null || :; }

# What must not depend on how a step is computed.
curve() { sed 's/,"step_ms".*//' "$1/metrics.jsonl"; }

# median KEY FOLDER: over the steps of the run but the first two, or its last if there are no others.
median() {
    sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$2/metrics.jsonl" |
        awk '{ x[NR] = $1 } END { first = NR > 2 ? 3 : NR; for (i = first; i <= NR; i++) print x[i] }' | sort -g |
        awk '{ x[NR] = $1 } END { printf "%.3f", (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'
}

# row BATCH_SIZE LEVEL: tab-separated, in the order of the columns below, but for what needs several rows.
row() {
    folder=$out/b$1-r$2 curve='' step_ms='' speed='' steps='' loss='' allocated=''
    if [ "$(recorded status "$folder")" = finished ]; then
        curve "$folder" >"$temp/curve"
        [ -e "$temp/curve-$1" ] || cp "$temp/curve" "$temp/curve-$1"
        if cmp -s "$temp/curve" "$temp/curve-$1"; then curve=same; else curve=differs; fi
        step_ms=$(median step_ms "$folder")
        speed=$(median tokens_per_second "$folder")
        steps=$(number step "$folder/metrics.jsonl")
        loss=$(number loss "$folder/metrics.jsonl")
        allocated=$(number memory_bytes "$folder/metrics.jsonl")
    fi
    printf '%s\t' "$1" "$2" "${folder##*/}" "$(recorded status "$folder")" "$steps" \
        "$(number total_bytes "$folder/plan.json")" "$allocated" "$(recorded peak_rss_bytes "$folder")" \
        "$(number predicted_step_ms "$folder/plan.json")" "$step_ms" "$speed" "$loss" "$curve" \
        "$(recorded version "$folder")"
    recorded reason "$folder" | grep . || echo
}
for batch_size in $batch_sizes; do
    for level in $levels; do row "$batch_size" "$level"; done
done >"$temp/rows"

# coincide BATCH_SIZE: lines for the report on the curves of that batch size, and against those of the $first.
coincide() {
    awk -F'\t' -v batch_size="$1" '
        $1 == batch_size && $13 == "same" { same = same " " $2; count++ }
        $1 == batch_size && $13 == "differs" { other = other " " $2 }
        END {
            if (other != "") print "- Batch size " batch_size ": the loss curves **DIFFER**:" other " from" same "."
            else if (count > 1) print "- Batch size " batch_size ": the loss curves of" same " are equal bit for bit."
        }' "$temp/rows"
    [ -e "$temp/curve-$1" ] || return 0
    grep '"loss"' "$temp/curve-$1" >"$temp/losses-$1"
    first=${first:-$1}
    [ "$first" = "$1" ] || paste -d: "$temp/losses-$first" "$temp/losses-$1" |
        awk -F'[:,]' -v batch_size="$1" -v first="$first" '
            { d = $4 - $12; d = d < 0 ? -d : d; if (d > most) most = d }
            END { printf "- Batch sizes %s and %s: their losses differ by %.1e at most.\n", first, batch_size, most }'
}
first=''
for batch_size in $batch_sizes; do coincide "$batch_size"; done >"$temp/coincide"

# The rows are read twice: level 0 may come after what is compared with it.
awk -F'\t' -v base="$base_bytes" -v csv="$temp/sweep.csv" -v md="$temp/table" '
    function mib(bytes) { return bytes == "" ? "" : sprintf("%.1f", bytes / 1048576) }
    function rounded(x, format) { return x == "" ? "" : sprintf(format, x) }
    function quoted(text) { gsub(/"/, "\"\"", text); return text == "" ? "" : "\"" text "\"" }
    NR == FNR { if (($2 == "0" || $2 == "none") && $10 > 0) level0[$1] = $10; next }
    FNR == 1 {
        print "batch_size,recompute,run,status,steps,predicted_bytes,allocated_bytes,peak_rss_bytes,measured_bytes," \
            "predicted_step_ms,step_ms,tokens_per_second,overhead,final_loss,curve,version,reason" >csv
        print "| batch size | recompute | predicted MiB | measured MiB | predicted ms | measured ms | tokens/s " \
            "| over level 0 | final loss | status |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---|" >md
    }
    {
        measured = $8 != "" && base != "" ? $8 - base : ""
        overhead = $10 > 0 && $1 in level0 ? $10 / level0[$1] - 1 : ""
        print $1 "," $2 "," $3 "," $4 "," $5 "," $6 "," $7 "," $8 "," rounded(measured, "%.0f") "," $9 "," $10 "," $11 \
            "," rounded(overhead, "%.4f") "," $12 "," $13 "," quoted($14) "," quoted($15) >csv
        print "| " $1 " | " $2 " | " mib($6) " | " mib(measured) " | " rounded($9, "%.1f") " | " \
            rounded($10, "%.1f") " | " rounded($11, "%.0f") " | " \
            (overhead == "" ? "" : sprintf("%+.1f %%", 100 * overhead)) " | " \
            rounded($12, "%.4f") " | " $4 ($13 == "differs" ? ", **DIFFERS**" : "") " |" >md
    }' "$temp/rows" "$temp/rows"
{
    printf '# Sweep over batch size and recompute level\n\n%s with' \
        "$(cut -f 14 "$temp/rows" | grep . | sort -u | paste -s -d, | sed 's/,/, /g')"
    # shellcheck disable=SC2016  # backquotes for Markdown
    sed -n 's/^option: \(.*\)$/ `\1`/p' "$out/sweep.options" | tr -d '\n'
    printf '.\n'
    [ -z "$base_bytes" ] || awk -v base="$base_bytes" 'BEGIN {
        printf "Measured memory: peak resident less %.1f MiB for the program itself.\n", base / 1048576 }'
    echo
    cat "$temp/table"
    echo
    cat "$temp/coincide"
    awk -F'\t' '$15 != "" { print "- " $3 ": " $15 }' "$temp/rows"
} >"$temp/sweep.md"
mv "$temp/sweep.csv" "$temp/sweep.md" "$out/"
cat "$out/sweep.md"
! grep -q DIFFER "$temp/coincide" || die 1 "loss curves that must be equal differ; see $out/sweep.md"
