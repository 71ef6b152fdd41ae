#!/bin/bash
# Every recipe: its help, its plan, and its options, taken by a run of a tiny model or tried without one; what is too
# large is refused before anything is made.
set -u
recipes=$PWD/scripts/recipes kinds=$PWD/tests/golden/kinds
. tests/e2e/lib.bash
export TRAIN_GPT

# recipe NAME ARGUMENTS...: like run, of the recipe.
recipe() {
    "$recipes/$1.sh" "${@:2}" >out 2>err
    status=$?
}
# trains NAME ARGUMENTS...: it must plan, train and end with a run in new/, which is removed again.
trains() {
    recipe "$@" "${small[@]}" --output-dir=new
    check "$1 trains" test "$status $(grep -c '"loss"' new/metrics.jsonl 2>&1)" = "0 2"
    check "$1 has planned before" grep -q '^micro-batch ' out
    rm -rf new
}
small=(--layers=2 --channels=32 --heads=2 --steps=2 --warmup=0 --seq-len=32 --sample-length=8 --val-sequences=2)

for script in "$recipes"/*.sh; do
    name=$(basename "$script" .sh)
    recipe "$name"
    check "$name without arguments says what it is for" test "$status" -eq 2 -a "$(grep -c "$name.sh" err)" -ge 1
    check "$name says what it needs or does" test "$(wc -l <err)" -ge 8
done

trains shakespeare text.txt --batch-size=2
check "options of the recipe are there" grep -q '^dropout = 0.2$' <(
    recipe shakespeare text.txt --batch-size=2 "${small[@]}" --output-dir=there && cat there/config.toml)
check "those of its user take their places" grep -q '^batch-size = 2$' there/config.toml
trains llama_mini_text text.txt --batch-size=2

mkdir shards
ids shards/fineweb_train_000001.bin
ids shards/fineweb_val_000000.bin
trains gpt2_124m_fineweb shards --total-batch-size=128
check "its options are printed" grep -q '^train_gpt .*--learning-rate=6e-4' out

for name in shakespeare llama_mini_text gpt2_124m_fineweb; do
    recipe $name shards/fineweb_train_000001.bin --memory-budget=1MiB --output-dir=new
    check "$name is refused where it does not fit" test "$status" -eq 1 -a ! -e new
    check "$name says what it needs" grep -q -e 'is not enough\|needs' err
done
recipe shakespeare text.txt 5
check "an argument that is no option" test "$status $(cat err)" = "2 shakespeare.sh: '5': give options as --name=value"

recipe llama3_70b_lora_4x80gb nowhere text.txt
check "the plan of 70B fits into 80 GB" grep -q '^within --memory-budget=74GB' out

# ---- 8B in full: the plan is for a card; a tiny model stands in for the run ----

export HOST_MEMORY=64GB
recipe llama3_8b_full_24gb llama3-8b text.txt --device=cuda:77
check "8B with 64 GB: the smaller state fits" grep -q 'state in fp32 does not fit; with 8-bit' err
tr -s ' \n' ' ' <out >line # It may be more than one.
check "by plan" grep -q 'within --memory-budget=22.5GiB .* host memory (--host-memory-budget): auto' line
check "and the card is asked for" test "$status" -ne 0 -a "$(grep -c ' E --device=cuda:77' err)" -eq 1
HOST_MEMORY=20GB recipe llama3_8b_full_24gb llama3-8b text.txt
check "8B with 20 GB is refused" test "$status" -eq 1 -a "$(grep -c ' E --recompute=auto: ' err)" -eq 2 -a ! -e runs
recipe llama3_8b_full_24gb nowhere text.txt
check "no model" test "$status" -ne 0 -a "$(grep -c ' E --model=nowhere: neither a preset' err)" -eq 1
if bf16_works; then
    # shellcheck disable=SC2046
    token_file low.bin uint16 $(seq 400 | awk '{ print $1 * 7 % 29 }')
    recipe llama3_8b_full_24gb "$kinds/llama_biases" low.bin --tokenizer=none --device=cpu \
        --seq-len=16 --batch-size=2 --total-batch-size=32 --memory-budget=1GiB --host-memory-budget=1GiB --dry-run
    check "a tiny model in its place" test "$status $(grep -c ' E ' err)" = "0 0"
fi
exit $((failures > 0))
