#!/bin/bash
# A run folder is that of one run: nothing of a start that was killed is taken for the next one's, a command that is
# repeated goes on with its run, and a run whose run.json is lost stays the one it was.
set -u
. tests/e2e/ranks.bash # for its ways to wait
. tests/e2e/lib.bash

make_text text.txt 20000 1
for size in 290 300; do
    must "learn a vocabulary" tokenize --train-bpe --vocab-size=$size --out=words$size text.txt
done
base=("${tiny[@]}" "${quiet[@]}" --data=text.txt --lr-schedule=constant --warmup=0)
step() { printf 'checkpoints/step-%08d' "$1"; }
run_id() { sed -n 's/.*"id": "\([0-9a-f]*\)".*/\1/p' "$1/run.json"; }

# ---- a start that was killed ------------------------------------------------------------------------------------

# killed FOLDER ARGUMENTS...: a run that is killed before its first checkpoint.
killed() {
    local folder=$1
    shift
    "$TRAIN_GPT" "${base[@]}" --steps=1000000 --output-dir="$folder" "$@" >out 2>err &
    local job=$!
    eventually 60 grep -q -s '"step":3,' "$folder/metrics.jsonl"
    kill -KILL $job
    wait $job 2>check.out
}
for kind in words bytes; do
    tokenizer=$kind
    [ $kind = bytes ] || tokenizer=words300/vocab.json
    must "a run of its own" "${base[@]}" --tokenizer=$tokenizer --steps=6 --output-dir=whole-$kind
    killed after-$kind --tokenizer=words290/vocab.json
    check "a killed start has left its tokenizer" cmp words290/vocab.json after-$kind/tokenizer/vocab.json
    must "another tokenizer" "${base[@]}" --tokenizer=$tokenizer --steps=4 --output-dir=after-$kind
    must "and on" --resume=after-$kind --steps=6
    check "$kind after a killed start: the curve of a run with a folder of its own" \
        cmp <(curve whole-$kind) <(curve after-$kind)
    must "generate" generate --run=after-$kind --length=3
    ok "$kind after a killed start: can be used"
done
check "bytes have no files" test ! -e after-bytes/tokenizer

mkdir -p mine/tokenizer
cp words290/* mine/tokenizer
refused "a tokenizer of no run in the folder" 2 "--output-dir=mine: 'mine/tokenizer' is there, of no run" \
    "${base[@]}" --tokenizer=bytes --steps=2 --output-dir=mine
must "the tokenizer of the folder itself" "${base[@]}" --tokenizer=mine/tokenizer --steps=2 --output-dir=mine
check "the tokenizer of the folder itself stays" diff -r words290 mine/tokenizer

# ---- a command that is repeated ---------------------------------------------------------------------------------

echo 'tokenizer = "words290"' >options.toml
for given in --tokenizer=words290 --config=options.toml; do
    command=("${base[@]}" "$given" --pack=auto -y 1 --output-dir="repeated$given")
    must "the first time" "${command[@]}" --steps=2
    must "the same command" "${command[@]}" --steps=4
    check "the same command goes on: $given" grep -q 'resumed from .*step-00000002' err
done
refused "the command with another tokenizer" 2 "--tokenizer=words300: the run began with '.*/words290'" \
    "${base[@]}" --tokenizer=words300 -y 1 --steps=6 --output-dir=repeated--tokenizer=words290

# ---- a run.json that is lost ------------------------------------------------------------------------------------

train whole --steps=4 --checkpoint-every=2 --keep-checkpoints=0
for damage in emptied removed; do
    rm -rf lost
    cp -r whole lost
    rm lost/run.json
    [ $damage = removed ] || touch lost/run.json
    "$TRAIN_GPT" --resume=lost --steps=1000000 --checkpoint-every=0 >out 2>err &
    job=$!
    eventually 60 grep -q '"step":6,' lost/metrics.jsonl
    kill -KILL $job
    wait $job 2>check.out
    check "run.json $damage: the run keeps its name" test "$(run_id lost)" = "$(run_id whole)"
    must "run.json $damage, and killed" --resume=lost --steps=6
    must "run.json $damage, an earlier checkpoint" --resume=lost/"$(step 2)" --steps=6
    ok "run.json $damage: every checkpoint can be gone on from"
done
rm -rf lost
cp -r whole lost
rm lost/run.json
ln -s run.json lost/run.json # A link to itself cannot be opened.
refused "a run.json that cannot be opened" 1 "cannot open 'lost/run.json'" --resume=lost --steps=6

exit $((failures > 0))
