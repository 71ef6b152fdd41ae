#!/bin/bash
# Whatever the backward computes again, and whatever the number of threads: the same losses and gradient norms, to the
# last digit.
set -u
. tests/e2e/lib.bash

same_curves() { # same_curves FOLDER FOLDER...: all equal to the first
    local first=$1 folder
    shift
    for folder in "$@"; do
        cmp -s <(curve "$first") <(curve "$folder") || { echo "$folder differs from $first"; return 1; }
    done
}

# Five layers: the segments of sqrt do not divide them. Odd sizes on purpose.
base=(--layers=5 --channels=40 --seq-len=29 --batch-size=3 --steps=6 --warmup=2)
dtypes=(fp32)
if bf16_works; then dtypes+=(bf16); else skip "bf16" "this processor or build has no bf16"; fi

for model in "gpt2-nano --heads=4" "llama-nano --heads=4 --kv-heads=2"; do
    read -r -a words <<<"$model"
    for dtype in "${dtypes[@]}"; do
        label="${words[0]} $dtype"
        folders=()
        for level in "${policies[@]}" 0 1 2; do
            folder=$label-$level
            must "$folder" "${base[@]}" "${quiet[@]}" --data=text.txt --model="${words[0]}" "${words[@]:1}" \
                --dtype="$dtype" --recompute="$level" --output-dir="$folder"
            folders+=("$folder")
        done
        check "$label: the same curve at every level" same_curves "${folders[@]}"

        for threads in 1 2 3; do
            must "$label, $threads threads" "${base[@]}" "${quiet[@]}" --data=text.txt --model="${words[0]}" \
                "${words[@]:1}" --dtype="$dtype" --recompute=2 --threads=$threads --output-dir="$label-t$threads"
        done
        check "$label: the same curve with 1, 2 and 3 threads" \
            same_curves "$label-none" "$label-t1" "$label-t2" "$label-t3"

        for level in 0 1 2; do
            must "$label, accumulated" "${base[@]}" "${quiet[@]}" --data=text.txt --model="${words[0]}" \
                "${words[@]:1}" --dtype="$dtype" --recompute=$level --total-batch-size=174 --output-dir="$label-a$level"
        done
        check "$label: the same curve at every level with two micro-batches" \
            same_curves "$label-a0" "$label-a1" "$label-a2"
    done
done

memory() { sed -n '1s/.*"memory_bytes":\([0-9]*\).*/\1/p' "$1/metrics.jsonl"; }
check "level 2 takes less memory than level 1, level 1 less than level 0" \
    test "$(memory "gpt2-nano fp32-2")" -lt "$(memory "gpt2-nano fp32-1")" -a \
    "$(memory "gpt2-nano fp32-1")" -lt "$(memory "gpt2-nano fp32-0")"

# Two micro-batches of 3 sequences hold the sequences of one of 6.
must "one micro-batch of 6" --model=gpt2-nano --layers=5 --channels=40 --heads=4 --seq-len=29 --batch-size=6 --steps=6 \
    --warmup=2 "${quiet[@]}" --data=text.txt --output-dir=six
close() {
    paste -d: <(curve six) <(curve "gpt2-nano fp32-a0") | awk -F'[:,]' '
        { difference = $4 - $12; if (difference > 1e-5 || difference < -1e-5) { print; bad = 1 } }
        END { exit bad || NR != 6 }'
}
check "two micro-batches learn what one of twice the size does" close

exit $((failures > 0))
