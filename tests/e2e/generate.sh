#!/bin/bash
# Text from a trained model: what the options do, and that the same command gives the same text.
set -u
. tests/e2e/lib.bash

train run --steps=150 --learning-rate=0.01 --warmup=5
train llama --model=llama-nano --kv-heads=1 --steps=150 --learning-rate=0.01 --warmup=5

text() { # text FILE ARGUMENTS...
    local file=$1
    shift
    must "generate $*" generate --run=run --length=60 "$@"
    mv out "$file"
}
same() { check "$1" cmp "$2" "$3"; }
different() { check "$1" test "$(cksum <"$2")" != "$(cksum <"$3")"; }

text a --seed=5
text b --seed=5
text c --seed=6
same "the same seed, the same text" a b
different "another seed, another text" a c
text one --seed=5 --threads=1
text three --seed=5 --threads=3
same "one thread or three, the same text" one three

text greedy1 --temperature=0 --seed=1
text greedy2 --temperature=0 --seed=2
same "--temperature=0 does not depend on the seed" greedy1 greedy2
text top1 --top-k=1 --seed=3
same "--top-k=1 is --temperature=0" greedy1 top1
text tiny_p --top-p=0.000001 --seed=3
same "a tiny --top-p is --temperature=0" greedy1 tiny_p
text all --top-k=100000 --top-p=1 --seed=5
same "--top-k above the vocabulary and --top-p=1 change nothing" a all
text hot --temperature=5 --seed=5
different "a high --temperature changes the text" a hot
text mixed --top-k=20 --top-p=0.9 --temperature=0.7
check "--top-k, --top-p and --temperature together" test -s mixed

text prompt --prompt="the king" --temperature=0
check "the prompt is echoed" grep -q -a '^the king' prompt
check "the prompt does not count as length" test "$(wc -c <prompt)" -eq $((8 + 60 + 1))
must "--length" generate --run=run --length=1 --prompt=$'caf\xc3\xa9'
check "any bytes in the prompt; --length=1" test "$(wc -c <out)" -le 7 -a "$(wc -c <out)" -ge 6

must "--samples" generate --run=run --length=20 --samples=3 --seed=5 --prompt=of
check "--samples=3 gives three texts" test "$(grep -a -c '^---- sample [123] ----$' out)" = 3
check "the texts differ" test "$(grep -a '^of' out | sort -u | wc -l)" = 3
check "the first is the one without --samples" \
    test "$(grep -a -A 1 'sample 1' out | tail -n 1)" = "$("$TRAIN_GPT" generate --run=run --length=20 --seed=5 \
    --prompt=of 2>/dev/null | head -n 1)"

# The model's context is 32 tokens: the first 31 bytes do not depend on what comes after.
for run in run llama; do
    must "long" generate --run=$run --length=31 --temperature=0
    mv out short
    must "long" generate --run=$run --length=200 --temperature=0
    check "$run: a text longer than the context" test "$(wc -c <out)" = 201
    check "$run: begins as a short one does" cmp -n 31 short out
    must "long prompt" generate --run=$run --length=40 --temperature=0 --prompt="$(head -c 100 text.txt | tr '\n' ' ')"
    check "$run: a prompt longer than the context" test "$(wc -c <out)" = 141

    # What the cache gives for the 11th byte on is what a fresh start gives with the ten before as its prompt.
    must "the whole" generate --run=$run --length=20 --temperature=0 --prompt=and
    mv out whole
    must "in two parts" generate --run=$run --length=10 --temperature=0 --prompt="$(head -c 13 whole)"
    check "$run: the cache gives what reading the text again gives" cmp out whole
done

must "--resume's folder" generate --run=run/checkpoints/step-00000150 --length=60 --seed=5
check "a checkpoint instead of a run folder" cmp out a
check "stdout has the text only, stderr the rest" test "$(grep -a -c ' I ' a)" = 0

if bf16_works; then
    train half --dtype=bf16 --steps=20
    must "bf16" generate --run=half --length=40 --seed=3
    mv out half.txt
    must "bf16" generate --run=half --length=40 --seed=3
    check "a bf16 run generates, the same text twice" cmp out half.txt
else
    skip "bf16" "this processor or build has no bf16"
fi

# A model of token files, whose tokenizer is not known: it can be sampled, but not prompted.
token_file tokens.bin uint16 $(seq 300)
must "token files" "${tiny[@]}" "${quiet[@]}" --data=tokens.bin --steps=1 --output-dir=ids
must "token ids" generate --run=ids --length=3
check "without a tokenizer, tokens are printed as numbers" grep -q -x '<[0-9]*><[0-9]*><[0-9]*>' out
refused "a prompt without a tokenizer" 1 "prompt|tokenizer is not known" generate --run=ids --prompt=hello

exit $((failures > 0))
