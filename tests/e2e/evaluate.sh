#!/bin/bash
# evaluate: loss, perplexity and bits of a text or token file, HellaSwag, and that the batch size changes nothing.
set -u
golden=$PWD/tests/golden/hf
. tests/e2e/lib.bash

train run --steps=30 --warmup=3
value() { sed -n "s/^$1  *\([0-9.]*\).*/\1/p" out; }
# near A B R: A is B, up to a fraction of R.
near() { awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { print a, b; exit !(b > 0 && a <= b + r * b && a >= b - r * b) }'; }
compute() { awk -v x="$1" "BEGIN { print $2 }"; }

# ---- text --------------------------------------------------------------------------

make_text other.txt 1500 99
must "evaluate a text" evaluate --run=run --data=other.txt
check "it prints data, loss, perplexity, bits per token and bits per byte" \
    test "$(sed 's/  .*//' out | tr '\n' ',')" = "data,loss,perplexity,bits per token,bits per byte,"
check "every byte is predicted once" grep -q "over $(stat -c %s other.txt | sed 's/\(.*\)\(...\)/\1,\2/') bytes" out
check "bits per byte are loss / ln 2" near "$(value 'bits per byte')" "$(compute "$(value loss)" 'x / log(2)')" 1e-5
check "perplexity is exp(loss)" near "$(value perplexity)" "$(compute "$(value loss)" 'exp(x)')" 1e-4
bits=$(value 'bits per byte')
for batch in 1 3 64; do
    must "evaluate, batches of $batch" evaluate --run=run --data=other.txt --batch-size=$batch
    check "the same with batches of $batch" near "$(value 'bits per byte')" "$bits" 1e-5
done
must "evaluate, short sequences" evaluate --run=run --data=other.txt --seq-len=4
check "less context, more bits" awk -v a="$(value 'bits per byte')" -v b="$bits" 'BEGIN { exit !(a > b) }'
must "evaluate the held-out part" evaluate --run=run
check "without --data: the run's own held-out part" grep -q "^data .*held-out part.*'$PWD/text.txt'" out

# ---- HellaSwag -----------------------------------------------------------------------

# example NUMBER LABEL CONTEXT ENDING...: words of space-separated tokens, as uint16.
example() {
    local number=$1 label=$2 items part
    shift 2
    items="$number $label $(($# - 1))"
    for part in "$@"; do
        # shellcheck disable=SC2086
        set -- $part
        items="$items $# $part"
    done
    # shellcheck disable=SC2086
    set -- $items
    bytes 65535 2
    bytes $((2 * ($# + 2))) 2
    for part in "$@"; do bytes "$part" 2; done
}
hellaswag() {
    bytes 20240522 4
    bytes 1 4
    bytes 3 4
    bytes 60 4
    head -c 1008 /dev/zero
    example 0 "$1" "1 2 3" "4" "5 6" "7 8 9" "10 11"
    example 1 "$2" "12 13" "14 15" "16" "17 18" "19"
    example 2 "$3" "20" "21 22 23" "24 25" "26" "27 28 29 30"
}
# The answers of the golden LLaMA, found by trying: each example counts by itself.
answers=
for number in 1 2 3; do
    for label in 0 1 2 3; do
        labels=(0 0 0)
        labels[number - 1]=$label
        hellaswag "${labels[@]}" >try.bin
        must "HellaSwag" evaluate --model="$golden/llama" --hellaswag=try.bin
        right[label]=$(sed -n 's/^hellaswag .*, \([0-9]*\) of 3 right$/\1/p' out)
    done
    best=$(for label in 0 1 2 3; do echo "${right[label]} $label"; done | sort -n | tail -n 1)
    answers="$answers ${best#* }"
done
# shellcheck disable=SC2086
hellaswag $answers >swag.bin
for batch in 1 2 5 12 50; do
    must "HellaSwag, batches of $batch" evaluate --model="$golden/llama" --hellaswag=swag.bin --batch-size=$batch
    check "HellaSwag is answered the same in batches of $batch" grep -q '^hellaswag  *1.0000, 3 of 3 right$' out
done

# ---- refusals -------------------------------------------------------------------------

refused "evaluate needs a model" 2 "evaluate needs --run" evaluate --data=other.txt
refused "evaluate needs something to predict" 2 "evaluate needs --data" evaluate --model="$golden/llama"
refused "one model at a time" 2 "--model=.*already names" evaluate --run=run --model="$golden/llama" --data=other.txt
refused "a longer sequence than the model takes" 2 "--seq-len=33" evaluate --run=run --data=other.txt --seq-len=33
refused "text that is not there" 1 "--data: 'nothing' does not exist" evaluate --run=run --data=nothing
refused "a HellaSwag file that is none" 1 "--hellaswag: 'other.txt' is not a HellaSwag file" evaluate --run=run \
    --hellaswag=other.txt
truncate -s -2 swag.bin
refused "a HellaSwag file that is cut" 1 "'swag.bin' is damaged: example 2" evaluate --run=run --hellaswag=swag.bin
token_file big.bin uint16 1 2 300
refused "a token outside the vocabulary" 1 "token 300|binary|reads bytes" evaluate --run=run --data=big.bin

exit $((failures > 0))
