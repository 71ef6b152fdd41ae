#!/bin/bash
# Tiles of tokens: the same curve, validation included, with every size of them and at every level; what is planned is
# allocated, and less; sizes are rounded to blocks and said; auto takes them where nothing else fits; what is no size is
# refused.
set -u
. tests/e2e/lib.bash

# 300 tokens, in blocks of 128: the third block has 44, and blocks begin inside of sequences.
base=(--layers=4 --channels=64 --heads=2 --seq-len=100 --batch-size=3 --block-tokens=128 --steps=4 --warmup=2
    --val-every=2 --val-sequences=5 --sample-length=0 --data=text.txt)
half=checkpoints/step-00000002

for model in gpt2-nano llama-nano; do
    must "$model" "${base[@]}" --model=$model --checkpoint-every=2 --output-dir=$model
    for mixture in "none 128" "layer 128" "layer 256" "sqrt 128" "act 128" "attn 200" "offload 1"; do
        read -r level tile <<<"$mixture"
        name=$model-$level-$tile
        must "$name" "${base[@]}" --model=$model --recompute="$level" --tile-tokens="$tile" --output-dir="$name"
        check "$name: the same curve" cmp <(curve $model) <(curve "$name")
    done
    must "$model goes on in tiles" --resume=$model/$half --tile-tokens=128 --recompute=2 --output-dir=$model-resumed
    check "$model goes on in tiles: the same curve" cmp <(curve $model | sed -n '/"step":3,/,$p') \
        <(curve $model-resumed | sed -n '/"step":3,/,$p')
done

# ---- What is said ----

must "rounded" "${base[@]}" --tile-tokens=129 --dry-run
check "rounded up to whole blocks, and said" \
    grep -q 'tiles: 256 tokens, in blocks of 128 (--tile-tokens=129, rounded up to whole blocks)' err
must "one tile" "${base[@]}" --tile-tokens=300 --dry-run
check "as many as there are: none, and said" grep -q 'tiles: none (--tile-tokens=300: a micro-batch has 300' err
must "none" "${base[@]}" --dry-run
check "nothing is said where nothing was asked" test "$(grep -c tiles err)" = 0

# ---- In how much memory ----

plan=(plan --json --model=llama-nano --channels=64 --heads=2 --layers=4 --vocab-size=257 --block-tokens=128
    --seq-len=2048 --max-seq-len=2048 --batch-size=1 --dtype=fp32)
in_json() { sed -n "s/^ *\"$1\": \([0-9][0-9]*\),*$/\1/p" out | head -n 1; }
run "${plan[@]}" --recompute=1
whole=$(in_json total_bytes) arena=$(in_json arena_bytes)
run "${plan[@]}" --recompute=1 --tile-tokens=128
tiled=$(in_json total_bytes) less=$(in_json arena_bytes)
check "tiles take less: an arena of $less bytes for one of $arena" test "$less" -lt $((arena * 2 / 3))
run "${plan[@]}" --recompute=1 --tile-tokens=auto --memory-budget="$whole"B
check "auto: none where all fits" test "$(in_json tile_tokens) $(in_json total_bytes)" = "0 $whole"
run "${plan[@]}" --recompute=1 --tile-tokens=auto --memory-budget=$((whole - 1))B
check "auto: the largest that fit" test "$(in_json tile_tokens)" = 512
run "${plan[@]}" --recompute=1 --tile-tokens=auto --memory-budget="$tiled"B
check "auto: down to a block" test "$(in_json tile_tokens) $(in_json total_bytes)" = "128 $tiled"
run "${plan[@]}" --recompute=auto --tile-tokens=auto --memory-budget="$tiled"B
check "a search has tiles, too" test "$status $(($(in_json total_bytes) <= tiled))" = "0 1"
run "${plan[@]:0:1}" "${plan[@]:2}" --recompute=1 --tile-tokens=128
check "the table of layers says so" grep -q 'tiled: .* for 128 tokens at a time' out

# ---- What is refused ----

for size in 0 -5 some 1.5 99999999999; do
    refused "--tile-tokens=$size" 2 "tile-tokens=$size: give a number of tokens" "${base[@]}" --tile-tokens=$size
done
refused "--block-tokens=0" 2 "block-tokens" "${base[@]}" --block-tokens=0
exit $((failures > 0))
