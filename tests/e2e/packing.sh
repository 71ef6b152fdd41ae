#!/bin/bash
# --pack=documents: documents side by side in a sequence, in the memory that was planned, under every policy, over
# resumes, at any micro-batch size and number of ranks.
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

# Documents of 5 .. 90 bytes, and one that is longer than a sequence.
awk 'BEGIN {
    state = 11; text = "the lord said unto his people that the day was good and the earth was full of houses. "
    for (i = 0; i < 150; i++) {
        state = (state * 16807) % 2147483647
        length_ = i == 7 ? 80 : 5 + state % 40
        printf "{\"text\":\"%s\"}\n", substr(text, 1 + state % 5, length_)
    }
}' >documents.jsonl

setting=(--layers=3 --channels=32 --heads=2 --seq-len=64 --total-batch-size=256 --steps=24 --warmup=4
    --data=documents.jsonl --jsonl-field=text --val-every=6 --sample-length=0 --checkpoint-every=10)

# near A B: losses and validation losses of two runs agree to 1e-6 at first, and to 2e-5 later.
near() {
    paste <(sed -E 's/.*"(val_)?loss":([^,}]*).*/\2/' "$1/metrics.jsonl") \
        <(sed -E 's/.*"(val_)?loss":([^,}]*).*/\2/' "$2/metrics.jsonl") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > (NR < 3 ? 1e-6 : 2e-5) * $1) { print NR, $0; exit 1 } }'
}

must "packed" "${setting[@]}" --batch-size=2 --pack=documents --output-dir=packed
check "the banner says what is packed" \
    grep -q -E 'pack    [0-9]+ documents in [0-9]+ sequences of 64 tokens.* fill to 9[0-9.]+ %; 1 longer' err
check "the metrics say how many targets count" \
    awk -F'"scored_tokens":' '/"loss"/ { n = $2 + 0; if (n < 180 || n > 256) exit 1; rows++ } END { exit rows != 24 }' \
    packed/metrics.jsonl
epoch=$(sed -n -E 's/.*documents in ([0-9]+) sequences.*/\1/p' err)
check "the run passes the end of an epoch" test "$epoch" -lt 96

for policy in layer sqrt act attn offload auto; do
    must "$policy" "${setting[@]}" --batch-size=2 --pack=documents --recompute=$policy --output-dir="packed-$policy"
    check "--recompute=$policy: the same bits" cmp <(curve packed) <(curve "packed-$policy")
done
llama=("${setting[@]}" --batch-size=2 --model=llama-nano --kv-heads=1 --pack=documents)
must "llama" "${llama[@]}" --output-dir=llama
must "llama, sqrt" "${llama[@]}" --recompute=sqrt --output-dir=llama2
check "LLaMA: the same bits" cmp <(curve llama) <(curve llama2)

for step in 10 20; do
    must "resume" --resume="packed/checkpoints/step-000000$step" --output-dir="resumed$step"
    check "a resume after step $step goes on with the same bits" cmp \
        <(curve packed | sed -n '/"step":24,/,$p') <(curve "resumed$step" | sed -n '/"step":24,/,$p')
    check "and ends with the same weights" cmp packed/checkpoints/step-00000024/model.safetensors \
        "resumed$step/checkpoints/step-00000024/model.safetensors"
done
refused "a run keeps to what its sequences are" 2 '--pack=none: the run began with --pack=documents' \
    --resume=packed --pack=none --steps=30

for batch in 1 4; do
    must "batch $batch" "${setting[@]}" --pack=documents --batch-size=$batch --output-dir="batch$batch"
    check "--batch-size=$batch: the same documents and losses" near packed "batch$batch"
done

planned=$("$TRAIN_GPT" plan --layers=3 --channels=32 --heads=2 --batch-size=2 --seq-len=64 --total-batch-size=256 \
    --vocab-size=257 --pack=documents --recompute=none --json | sed -n 's/.*"total_bytes": \([0-9]*\),/\1/p')
check "plan --pack=documents foretells the memory" grep -q "\"memory_bytes\":$planned[,}]" packed/metrics.jsonl
run plan "${tiny[@]}" --pack=documents --recompute=none --list-steps
check "plan lists what is told of documents" grep -q 'att .*documents=documents' out

must "none" "${setting[@]}" --batch-size=2 --output-dir=stream
must "none, said so" "${setting[@]}" --batch-size=2 --pack=none --output-dir=stream2
check "--pack=none is the default for text" cmp <(curve stream) <(curve stream2)
check "which does not count targets" test "$(grep -c scored_tokens stream/metrics.jsonl)" = 0
refused "what --pack takes" 2 'pack.*documents.*none' "${setting[@]}" --batch-size=2 --pack=rows --output-dir=new

ranks_here
for count in 2 4; do
    must_ranks "ranks $count" "$count" "${setting[@]}" --batch-size=1 --pack=documents --output-dir="ranks$count"
    check "$count ranks: the same documents and losses" near packed "ranks$count"
done
exit $((failures > 0))
