#!/bin/bash
# Trains small models with two builds and compares every loss, gradient norm and the checksum of all parameters, bit for
# bit: both families, every policy and auto, fp32 and bf16, 1 to 3 ranks, ZeRO 0 to 3, one and several micro-batches.
#
#   dev/same_bits.sh OLD NEW [--quick]      paths of two train_gpt; same chunk of the classifier for both
#
# Prints a line per difference and a summary; exits 1 if there is one. Needs mpirun for more than one rank.
set -u
[ $# -ge 2 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
for program in "$1" "$2"; do
    [ -x "$program" ] || { echo "same_bits: no program $program" >&2; exit 2; }
done
old=$(realpath "$1") new=$(realpath "$2") quick=${3:-}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 2
awk 'BEGIN {
    srand(7)
    words = "the quick brown fox jumps over a lazy dog "
    for (i = 0; i < 3000; ++i) printf "%s%s", substr(words, 1 + int(rand() * 30), 9), i % 12 ? " " : "\n"
}' >text.txt

policies="none layer sqrt act attn offload auto"
rank_settings="1:0 2:0 2:1 2:2 2:3 3:0 3:1 3:2 3:3"
[ "$quick" = --quick ] && policies="none sqrt" rank_settings="1:0 2:1 2:3"
same=0 different=0

# train BINARY FOLDER RANKS OPTIONS...: metrics.jsonl without the times.
train() {
    local binary=$1 folder=$2 ranks=$3
    shift 3
    local -a launch=()
    [ "$ranks" -gt 1 ] && launch=(mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$ranks")
    OMP_NUM_THREADS=1 "${launch[@]}" "$binary" --data=text.txt --output-dir="$folder" --check-ranks --seed=3 \
        --batch-size=2 --seq-len=32 --steps=5 --val-every=0 --sample-length=0 --log-level=warn --threads=1 --warmup=2 \
        --logits-chunk=24 --device=cpu "$@" >"$folder.log" 2>&1 || { cat "$folder.log"; return 1; }
    sed -E 's/"(step_ms|tokens_per_second|mfu|memory_bytes)":[^,}]*,?//g' "$folder/metrics.jsonl"
}

compare() {
    local name=$1 ranks=$2
    shift 2
    rm -rf a b
    if train "$old" a "$ranks" "$@" >old.txt && train "$new" b "$ranks" "$@" >new.txt && [ -s old.txt ] &&
        cmp -s old.txt new.txt; then
        same=$((same + 1))
    else
        different=$((different + 1))
        echo "different: $name"
        diff old.txt new.txt | head -4
    fi
}

gpt2="--model=gpt2-nano --layers=5 --channels=48 --heads=6"
llama="--model=llama-nano --layers=5 --channels=48 --heads=6 --kv-heads=2"
for dtype in fp32 bf16; do
    for family in gpt2 llama; do
        [ "$family" = gpt2 ] && model=$gpt2 || model=$llama
        for setting in $rank_settings; do
            ranks=${setting%:*} zero=${setting#*:}
            for policy in $policies; do
                for tokens in $((64 * ranks)) $((64 * ranks * 3)); do
                    # shellcheck disable=SC2086  # a list of options
                    compare "$family $dtype $policy, $ranks ranks, ZeRO $zero, $tokens tokens per update" "$ranks" \
                        $model --dtype=$dtype --recompute=$policy --zero=$zero --total-batch-size=$tokens
                done
            done
        done
        for ranks in 1 2; do
            # shellcheck disable=SC2086
            compare "$family $dtype rank-invariant, $ranks ranks" "$ranks" $model --dtype=$dtype --rank-invariant \
                --zero=$((ranks - 1)) --total-batch-size=768
        done
    done
done
echo "$same settings with the same bits, $different with others"
[ "$different" -eq 0 ]
