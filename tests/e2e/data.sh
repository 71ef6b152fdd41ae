#!/bin/bash
# The kinds of training data: text, several texts, llm.c token files of both kinds, data for validation.
set -u
. tests/e2e/lib.bash

says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; return 1; }; }

# ---- several texts ---------------------------------------------------------------------------

mkdir texts
make_text texts/a.txt 5000 1
make_text texts/b.txt 5000 2
make_text texts/c.txt 5000 3
must "a pattern" "${tiny[@]}" "${quiet[@]}" --data='texts/*.txt' --steps=3 --output-dir=many
check "a pattern of text files" says 'data .*3 files; the first: .* is text'
commas() { printf '%d,%03d' $(($1 / 1000)) $(($1 % 1000)); } # of a number from 1000 to 999999
# One end-of-text before every document; the last 5 % are held out.
total=$(($(cat texts/*.txt | wc -c) + 3))
check "all of them are read, each with its end-of-text" says " $(commas $((total - total / 20))) tokens for training"

cat texts/a.txt >single.txt
must "one text" "${tiny[@]}" "${quiet[@]}" --data=single.txt --val-data='texts/[bc].txt' --steps=3 --output-dir=val
check "--val-data leaves all of --data for training" says \
    " $(commas $(($(wc -c <single.txt) + 1))) tokens for training"
must "validation" "${tiny[@]}" --sample-length=0 --data=single.txt --val-data=texts/b.txt --val-every=1 --steps=2 \
    --output-dir=validated
check "--val-data is what is validated on" test "$(grep -c val_loss validated/metrics.jsonl)" = 3 # step 0 too
must "validation" "${tiny[@]}" --sample-length=0 --data=single.txt --val-data=texts/c.txt --val-every=1 --steps=2 \
    --output-dir=validated2
check "other validation data, the same training, another validation loss" test \
    "$(curve validated | grep -v val_loss | cksum)" = "$(curve validated2 | grep -v val_loss | cksum)" -a \
    "$(curve validated | grep val_loss | cksum)" != "$(curve validated2 | grep val_loss | cksum)"

printf 'caf\xc3\xa9 na\xc3\xafve %.0s' $(seq 200) >utf8.txt
must "UTF-8" "${tiny[@]}" "${quiet[@]}" --data=utf8.txt --steps=2 --output-dir=utf8
ok "UTF-8 text"
cp text.txt "a name, with 'signs' #1.txt"
must "a name" "${tiny[@]}" "${quiet[@]}" --data="a name, with 'signs' #1.txt" --steps=2 --output-dir=name
must "a name, resumed" --resume=name --steps=4
ok "a file name with blanks, quotes and a #, through config.toml too"

# ---- token files --------------------------------------------------------------------------------

ids16=$(awk 'BEGIN { for (i = 0; i < 900; i++) print (i * 7) % 50257 }')
ids32=$(awk 'BEGIN { for (i = 0; i < 900; i++) print (i * 141) % 128256 }')
token_file gpt2_train_000000.bin uint16 $ids16
token_file gpt2_train_000001.bin uint16 $ids16
token_file gpt2_val_000000.bin uint16 $ids16
token_file llama_train_000000.bin uint32 $ids32
must "uint16" "${tiny[@]}" --sample-length=0 --data='gpt2_train_*.bin' --val-data=gpt2_val_000000.bin --val-every=2 \
    --steps=2 --output-dir=uint16
check "llm.c token files, uint16, two shards" says \
    'data .*2 files; the first: .*llm.c token file \(GPT-2\); 1,800 tokens'
check "the vocabulary is GPT-2's" says 'model .*vocabulary 50257'
check "validation in nats per token" says 'validation loss [0-9.]+ nats per token'
near() { # near VALUE EXPECTED: an untrained model guesses evenly
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b - 0.3 && a < b + 0.3) }'
}
first_loss() { sed -n '/"step":1,"loss"/s/.*"loss":\([0-9.]*\).*/\1/p' "$1/metrics.jsonl"; }
check "uint16: the first loss is ln 50257" near "$(first_loss uint16)" 10.825
must "uint32" "${tiny[@]}" "${quiet[@]}" --model=llama-nano --data=llama_train_000000.bin --steps=2 --output-dir=uint32
check "llm.c token files, uint32" says 'llm.c token file \(Llama 3\).*vocabulary 128256|vocabulary 128256'
check "uint32: the first loss is ln 128256" near "$(first_loss uint32)" 11.762
must "resume" --resume=uint32 --steps=3
ok "a run on token files is resumed"
must "a larger vocabulary" "${tiny[@]}" "${quiet[@]}" --data=gpt2_train_000000.bin --vocab-size=60000 --steps=1 \
    --output-dir=larger
check "--vocab-size may be larger than the data's" says 'vocabulary 60000'

must "short data" "${tiny[@]}" "${quiet[@]}" --data=gpt2_train_000000.bin --steps=40 --warmup=1 --learning-rate=0.01 \
    --output-dir=learn
check "it learns from token files" test \
    "$(sed -n '40s/.*"loss":\([0-9]*\).*/\1/p' learn/metrics.jsonl)" -lt "$(sed -n '1s/.*"loss":\([0-9]*\).*/\1/p' \
    learn/metrics.jsonl)"

exit $((failures > 0))
