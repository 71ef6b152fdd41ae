#!/bin/bash
# Data as people have it: every kind of file and folder is read, or refused by its name with advice that works when it
# is taken; nothing is read as what it is not without a word.
set -u
golden=$PWD/tests/golden/hf
top=$PWD
. tests/e2e/lib.bash
export XDG_CACHE_HOME=$WORK_DIR/cache

says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; head -c 600 err; return 1; }; }
prints() { grep -q -E -e "$1" out || { echo "stdout has no: $1"; head -c 600 out; return 1; }; }
tokens() { od -An -v -w2 -t u2 -j 1024 "$1" | tr -d ' '; }
small=("${tiny[@]}" "${quiet[@]}" --steps=1)
llama=(--model="$golden/llama" --seq-len=16)
loss() { sed -n 's/^loss  *\([0-9.]*\) .*/\1/p' out; }

# ---- ids beyond the vocabulary ---------------------------------------------------------------------------------

ids=$(awk 'BEGIN { for (i = 0; i < 900; i++) print (i * 7) % 67 }')
# shellcheck disable=SC2086
token_file good.bin uint16 $ids
# shellcheck disable=SC2086
token_file late.bin uint16 $ids 67 5 3 70
# shellcheck disable=SC2086
token_file negative.bin uint32 $ids 4294967295 1
refused "an id beyond the vocabulary, before the first step" 1 \
    "--data: token 67 in 'late.bin' at token 900, but the model's vocabulary is 67 \(the largest id is 70\)" \
    "${llama[@]}" --batch-size=2 --data=late.bin --output-dir=new
check "a model with weights is not told to take a larger vocabulary" test "$(grep -c vocab-size= err)" = 0
refused "an id beyond the vocabulary, evaluated" 1 "--data: token 67 in 'late.bin' at token 900.*vocabulary is 67" \
    evaluate "${llama[@]}" --data=late.bin
refused "an id beyond the vocabulary in --val-data" 1 "--val-data: token 67 in 'late.bin' at token 900" \
    "${llama[@]}" --batch-size=2 --data=good.bin --val-data=late.bin --output-dir=new
refused "an id that is a negative number" 1 "--data: token 4294967295 in 'negative.bin' at token 900.*vocabulary" \
    evaluate "${llama[@]}" --data=negative.bin
# shellcheck disable=SC2086
token_file middle.bin uint16 $ids 67 $ids $ids
run "${llama[@]}" --batch-size=2 --data=middle.bin --steps=200 --no-scan "${quiet[@]}" --output-dir=unscanned
check "--no-scan finds it when it comes to it" \
    test "$status:$(grep -c " E .*token 67 in 'middle.bin' at token 900" err)" = 1:1

for rank in 0 1; do
    RANK=$rank WORLD_SIZE=2 timeout 60 "$TRAIN_GPT" --comm-init="file:$PWD/place" "${llama[@]}" --batch-size=2 \
        --data=late.bin --threads=1 --output-dir=new >"out.$rank" 2>"err.$rank" &
    eval "pid$rank=$!"
done
codes=
for pid in "$pid0" "$pid1"; do wait "$pid"; codes="$codes $?"; done
check "ranks: rank 0 looks, and all end" \
    test "$codes:$(cat err.* | grep -c " E .*token 67 in 'late.bin' at token 900")" = " 1 1:1" -a ! -e new

# shellcheck disable=SC2086
token_file far.bin uint16 $ids 60000 1
refused "an id beyond a new model's vocabulary" 1 "token 60000 in 'far.bin' at token 900.*--vocab-size=60001 or more" \
    "${small[@]}" --data=far.bin --output-dir=new
# shellcheck disable=SC2046
must "the advice" "${small[@]}" --data=far.bin --output-dir=far $(grep -o -e '--vocab-size=[0-9]*' err)

# shellcheck disable=SC2046
token_file own.bin uint16 $(awk 'BEGIN { for (i = 0; i < 900; i++) print (i * 11) % 1500 }')
must "a vocabulary of one's own" "${small[@]}" --data=own.bin --vocab-size=1500 --output-dir=own
check "ids decide on --vocab-size" says 'model .*vocabulary 1500'
refused "but not below them" 1 "token 1[0-9]* in 'own.bin'.*--vocab-size=1500 or more" \
    "${small[@]}" --data=own.bin --vocab-size=1400 --output-dir=new
must "no vocabulary given" "${small[@]}" --data=own.bin --dry-run
check "what ids need is said" says 'largest id is 1499; .*--vocab-size=1500'

# ---- special tokens in the text --------------------------------------------------------------------------------

for i in $(seq 40); do echo "Once upon a time $i there was a cat."; echo "<|endoftext|>"; done >stories.txt
must "learn" tokenize --train-bpe --vocab-size=300 --out=vocab text.txt stories.txt
for kind in bytes vocab; do
    must "letters" "${small[@]}" --data=stories.txt --tokenizer=$kind --output-dir=letters-$kind
    check "$kind: names of special tokens are counted" says "W .*'<\|endoftext\|>' 40 times.*--special-tokens"
    letters=$(sed -n 's/.* data .*; \([0-9,]*\) tokens for training.*/\1/p' err)
    must "ids" "${small[@]}" --data=stories.txt --tokenizer=$kind --special-tokens --output-dir=ids-$kind
    check "$kind: with --special-tokens there are fewer tokens, and no warning" \
        test "$(sed -n 's/.* data .*; \([0-9,]*\) tokens for training.*/\1/p' err)" != "$letters" -a \
        "$(grep -c ' W ' err)" = 0
    must "evaluate" evaluate --run=letters-$kind --data=stories.txt
    check "$kind: evaluate warns, too" says "W .*'<\|endoftext\|>' 40 times"
    before=$(sed -n 's/.*over \([0-9,]*\) tokens/\1/p' out)
    must "evaluate" evaluate --run=letters-$kind --data=stories.txt --special-tokens
    check "$kind: and takes --special-tokens" test "$(sed -n 's/.*over \([0-9,]*\) tokens/\1/p' out)" != "$before"
    must "tokenize" tokenize --tokenizer=$kind --val-fraction=0 --out=tok-$kind --special-tokens stories.txt
    end=$([ $kind = bytes ] && echo 256 || echo $(($(wc -l <vocab/merges.txt) - 1 + 256)))
    check "$kind: tokenize makes them ids" test "$(tokens tok-${kind}_train_000000.bin | grep -c -x "$end")" = 41
done
must "letters" tokenize --tokenizer=vocab --val-fraction=0 --out=tok-letters stories.txt
check "tokenize counts them" says "W .*'<\|endoftext\|>' 40 times.*--special-tokens"
must "resume" --resume=ids-vocab --steps=2
check "a resumed run reads its text as before" test "$(grep -c ' W ' err)" = 0

# ---- JSON Lines ------------------------------------------------------------------------------------------------

jq_free() { awk '{ gsub(/"/, "\\\""); printf "{\"n\": %d, \"text\": \"%s\"}\n", NR, $0 }' "$1"; }
jq_free text.txt >text.jsonl
sed '3s/.*/{"text": "cut/; 7s/.*/{"txet": "x"}/' text.jsonl >bad.jsonl
for command in train evaluate; do
    arguments=(evaluate --run=letters-vocab)
    [ $command = evaluate ] || arguments=("${small[@]}" --tokenizer=vocab --output-dir=new)
    run "${arguments[@]}" --data=text.jsonl --jsonl-field=text
    check "$command reads JSON Lines" test "$status" -eq 0
    check "$command says so" grep -q "'text.jsonl' is JSON Lines, field 'text', read with the tokenizer" out err
    rm -rf new
    run "${arguments[@]}" --data=text.jsonl
    check "$command as plain text: not without a word" says "W .*looks like JSON Lines.*--jsonl-field=text"
    rm -rf new
    refused "$command: a bad line is named" 1 "'bad.jsonl' line 3 is not valid JSON.*--skip-bad-lines" \
        "${arguments[@]}" --data=bad.jsonl --jsonl-field=text
    run "${arguments[@]}" --data=bad.jsonl --jsonl-field=text --skip-bad-lines
    check "$command: bad lines are skipped and counted" says "W .*2 bad lines were skipped.*'bad.jsonl' line 3, is not"
    rm -rf new
done
refused "another field" 1 "line 1 has no field 'content'.*it has 'text'" \
    tokenize --tokenizer=bytes --out=new --jsonl-field=content text.jsonl
must "--skip-bad-lines alone" tokenize --tokenizer=bytes --out=alone --skip-bad-lines text.txt
check "it is noted" says "W --skip-bad-lines: has no effect"
must "from standard input" tokenize --tokenizer=vocab --val-fraction=0 --out=piped --jsonl-field=text - <text.jsonl
must "from the file" tokenize --tokenizer=vocab --val-fraction=0 --out=filed --jsonl-field=text text.jsonl
check "standard input is read as a file is" cmp piped_train_000000.bin filed_train_000000.bin
must "plan" plan --data=text.jsonl --jsonl-field=text --layers=1
printf '[{"text": "a"}]' >array.json
refused "a JSON array" 1 "'array.json' is a JSON array, not JSON Lines" \
    tokenize --tokenizer=bytes --out=new --jsonl-field=text array.json

# ---- packed files ------------------------------------------------------------------------------------------------

gzip -c text.jsonl >text.jsonl.gz
{ head -c 9000 text.txt | gzip; tail -c +9001 text.txt | gzip; } >text.txt.gz
gzip -c good.bin >good.bin.gz
must "gzip" tokenize --tokenizer=vocab --val-fraction=0 --out=unzipped --jsonl-field=text text.jsonl.gz
check "JSON Lines in gzip" cmp unzipped_train_000000.bin filed_train_000000.bin
must "text in gzip" "${small[@]}" --data=text.txt.gz --output-dir=gz
check "text in gzip, in two members, and the banner says so" says "'text.txt.gz' is text \(gzip\), read as bytes; 19,0"
must "tokens" evaluate "${llama[@]}" --data=good.bin
plain=$(loss)
must "tokens in gzip" evaluate "${llama[@]}" --data=good.bin.gz
check "a token file in gzip" test "$(loss)" = "$plain"
head -c 2000 text.txt.gz >cut.txt.gz
refused "gzip that is cut" 1 "'cut.txt.gz' cannot be unpacked \(gzip\): it ends in the middle" "${small[@]}" \
    --data=cut.txt.gz --output-dir=new
if command -v zstd >/dev/null; then
    zstd -q text.jsonl
    must "zstd" tokenize --tokenizer=vocab --val-fraction=0 --out=unzstd --jsonl-field=text text.jsonl.zst
    check "JSON Lines in zstd" cmp unzstd_train_000000.bin filed_train_000000.bin
else
    skip "JSON Lines in zstd" "there is no zstd program; the unit tests have it"
fi
tar -czf archive.tar.gz text.txt
refused "a tar archive in gzip" 1 "'archive.tar.gz' is a tar archive; unpack it: tar -xf 'archive.tar.gz'" \
    "${small[@]}" --data=archive.tar.gz --output-dir=new
mv text.txt text.before
sh -c "$(sed -n 's/.*unpack it: //p' err)"
check "the advice works" cmp text.txt text.before
printf 'PAR1\x15\x04\x15\x00\x00PAR1' >table.parquet
for command in "evaluate --run=own --data=" "--output-dir=new --data=" "tokenize --tokenizer=bytes --out=new "; do
    # shellcheck disable=SC2086
    refused "Parquet: ${command%% *}" 1 "is a Parquet file; convert it: scripts/parquet_text.py.*--jsonl-field=text" \
        ${command}table.parquet
done
if python3 -c 'import pyarrow' 2>/dev/null; then
    python3 -c 'import pyarrow as p, pyarrow.parquet as q
q.write_table(p.table({"id": [1, 2, 3], "text": ["the king", None, "said\n\"no\""]}), "t.parquet")'
    "$top/scripts/parquet_text.py" t.parquet >t.jsonl 2>note
    check "scripts/parquet_text.py" test "$(wc -l <t.jsonl):$(grep -c '1 rows without' note)" = 2:1
    must "what it printed" tokenize --tokenizer=bytes --val-fraction=0 --out=parquet --jsonl-field=text t.jsonl
else
    skip "scripts/parquet_text.py" "there is no pyarrow"
fi

# ---- encodings, tables, other files ------------------------------------------------------------------------------

iconv -f UTF-8 -t UTF-16 text.txt >marked.txt
iconv -f UTF-8 -t UTF-16BE text.txt >unmarked.txt
iconv -f UTF-8 -t UTF-32LE text.txt >wide.txt
for name in marked unmarked wide; do
    refused "$name: two or four bytes a letter" 1 "'$name.txt' is UTF-(16|32) text; convert it: iconv" "${small[@]}" \
        --data=$name.txt --output-dir=new
    sh -c "$(sed -n "s/.*convert it: //p" err)"
    check "$name: the advice works" cmp $name.txt.utf8.txt text.txt
done
printf 'id,text\r\n1,"a, b"\r\n' >a.csv
must "CSV" tokenize --tokenizer=bytes --val-fraction=0 --out=csv a.csv
check "CSV is read as text, with a warning" \
    test "$(tokens csv_train_000000.bin | wc -l):$(grep -c ' W .*columns' err)" = 20:1
printf '\x93NUMPY\x01\0v\0' >a.npy
printf '\xfd7zXZ\0\0' >a.xz
printf 'PK\x03\x04\x14\0' >a.zip
printf 'BZh91AY&SY\x8c' >a.bz2
for pair in 'npy NumPy.*tofile' 'xz xz; unpack it: unxz' 'zip zip.*unzip' 'bz2 bzip2.*bunzip2'; do
    refused "a file of kind ${pair%% *}" 1 "'a.${pair%% *}' is .*${pair#* }" "${small[@]}" --data="a.${pair%% *}" \
        --output-dir=new
done

pointer='version https://git-lfs.github.com/spec/v1\noid sha256:3f0a9c51\nsize 1234\n'
mkdir lfs
cp "$golden"/llama/* lfs
chmod u+w lfs/*
for name in model-00002-of-00003.safetensors model.safetensors.index.json config.json; do
    # shellcheck disable=SC2059
    printf "$pointer" >"lfs/$name"
    refused "a Git LFS pointer as $name" 1 "'lfs/$name' is a Git LFS pointer.*git lfs pull" evaluate --model=lfs \
        --data=good.bin --seq-len=16
done
# shellcheck disable=SC2059
printf "$pointer" >pointer.txt
refused "a Git LFS pointer as data" 1 "--data: 'pointer.txt' is a Git LFS pointer.*git lfs pull" "${small[@]}" \
    --data=pointer.txt --output-dir=new
mkdir lfs-tokenizer
cp pointer.txt lfs-tokenizer/tokenizer.json
refused "a Git LFS pointer as tokenizer" 1 "tokenizer.json' is a Git LFS pointer.*git lfs pull" \
    tokenize --tokenizer=lfs-tokenizer --out=new text.txt

# ---- token ids without a header, folders -------------------------------------------------------------------------

mkdir nanogpt shards texts several nested
tail -c +1025 good.bin >raw.ids
cp raw.ids nanogpt/train.bin
head -c 200 raw.ids >nanogpt/val.bin
printf '\x80\x04\x95pickle' >nanogpt/meta.pkl
must "raw" evaluate "${llama[@]}" --data=raw.ids --data-format=uint16
check "--data-format=uint16: the same loss as with a header" test "$(loss)" = "$plain"
check "and the output says what it is" prints "^data .*'raw.ids' is token ids without a header \(uint16\)"
refused "binary, without --data-format" 1 "'raw.ids' is a binary file.*--data-format=uint16" evaluate "${llama[@]}" \
    --data=raw.ids
must "nanoGPT" evaluate "${llama[@]}" --data=nanogpt/train.bin
check "nanoGPT's train.bin is known by its name" test "$(loss):$(grep -c ' W .*nanoGPT' err)" = "$plain:1"
must "nanoGPT's folder" "${small[@]}" --data=nanogpt --vocab-size=67 --output-dir=nano
check "nanoGPT's folder: train.bin and val.bin" says 'data .*train.bin.*900 tokens for training, 100 for validation'
for i in $(seq 300); do printf 'text'; done >nanogpt/train.bin
refused "letters that may be ids" 1 \
    "'nanogpt/train.bin' may be text or.*--data-format=text, and for ids --data-format=uint16" \
    "${small[@]}" --data=nanogpt/train.bin --output-dir=new
must "as text" "${small[@]}" --data=nanogpt/train.bin --data-format=text --output-dir=asked
printf 'odd' >odd.bin
refused "half an id" 1 "'odd.bin' has 3 bytes.*uint16" evaluate "${llama[@]}" --data=odd.bin --data-format=uint16
cp text.txt plain.bin
must "text called .bin" "${small[@]}" --data=plain.bin --output-dir=plain
check "text called .bin is not read unsaid" says "W .*'plain.bin' has no known header and is read as text"

for i in 0 1; do
    # shellcheck disable=SC2046
    token_file shards/x_train_00000$i.bin uint16 $(seq 60)
done
# shellcheck disable=SC2046
token_file shards/x_val_000000.bin uint16 $(seq 50)
echo "about it" >shards/README.md
must "a folder of shards" "${small[@]}" --data=shards --vocab-size=100 --output-dir=sharded
check "its training shards are trained on, its others validate" says \
    'data .*2 files.*x_train_000000.*120 tokens for training, 50 for validation: .*x_val_000000'
refused "a folder of both, evaluated" 1 \
    "files for training and for validation; name those to read: 'shards/\*_train_\*" \
    evaluate "${llama[@]}" --data=shards
must "the advice" evaluate "${llama[@]}" --data='shards/*_val_*.bin'
cp text.txt texts/a.txt
cp stories.txt texts/b.txt
must "a folder of texts" "${small[@]}" --data=texts --output-dir=texts-run
check "a folder of texts" says "data .*2 files; the first: 'texts/a.txt' is text"
cp text.txt texts/c.md
cp text.txt texts/README
must "a folder of texts with several endings" "${small[@]}" --data=texts --output-dir=endings
check "all are read" says "data .*4 files; the first: 'texts/README' is text"
must "tokenize a folder" tokenize --tokenizer=bytes --val-fraction=0 --out=of-folder texts
cp text.txt several
cp text.jsonl several
refused "a folder of several kinds" 1 \
    "several kinds; name those to read by a quoted pattern: 'several/\*.jsonl', 'sev" \
    "${small[@]}" --data=several --output-dir=new
must "the advice" "${small[@]}" --data='several/*.txt' --output-dir=picked
cp text.txt several/notes.md
refused "a folder of several kinds, one with two endings" 1 "pattern: 'several/\*.jsonl', 'several/{\*.md,\*.txt}'$" \
    "${small[@]}" --data=several --output-dir=new
must "the advice" "${small[@]}" --data='several/{*.md,*.txt}' --output-dir=picked-two
check "it reads all of a kind" says "data .*2 files; the first: 'several/notes.md' is text"
must "the run has it" --resume=picked-two --steps=2
mkdir all-runs
cp -r picked all-runs/picked
for folder in all-runs all-runs/picked; do
    refused "runs as data: $folder" 1 "'$folder' is .*, not data; name a file or folder with text or tokens" \
        evaluate --run=picked --data=$folder
done
refused "text, and no tokenizer" 1 "--data: 'text.txt' is text, and without a tokenizer \(--tokenizer=none" \
    "${small[@]}" --data=text.txt --tokenizer=none --output-dir=new
must "the advice" "${small[@]}" --data=text.txt --tokenizer=bytes --output-dir=by-bytes
mkdir nested/sub
cp text.txt nested/sub
refused "a folder of folders" 1 "without files; name a folder in it, such as 'nested/sub'" "${small[@]}" --data=nested \
    --output-dir=new
mkdir mixed
cp good.bin mixed/a.bin
cp negative.bin mixed/b.bin
refused "16 and 32 bits" 1 "mixes kinds of data.*mixed/b.bin" evaluate "${llama[@]}" --data='mixed/*.bin'
refused "token files for tokenize" 1 "tokenize: 'good.bin' is an llm.c token file, not text" \
    tokenize --tokenizer=bytes --out=new good.bin

# ---- remembered ids ------------------------------------------------------------------------------------------------

cp late.bin remembered.bin
sleep 2.1 # a file that may still be written is not remembered
run evaluate "${llama[@]}" --data=good.bin
seen=$(grep -l good.bin cache/train_gpt/token_files/*)
check "what the check found is remembered" test -n "$seen"
run evaluate "${llama[@]}" --data=remembered.bin
seen=$(grep -l remembered.bin cache/train_gpt/token_files/*)
sed -i '$s/.*/3/' "$seen"
run evaluate "${llama[@]}" --data=remembered.bin
check "and used: only the batch finds what the memory lacks" test "$(grep -c 'largest id' err)" = 0
cp -p late.bin remembered.bin
run evaluate "${llama[@]}" --data=remembered.bin
check "another file of that name, with the old one's time, is looked at again" says 'largest id is 70'
XDG_CACHE_HOME=/proc/none run evaluate "${llama[@]}" --data=good.bin
check "a cache that cannot be written is a warning" test "$status:$(grep -c ' W .*not remembered' err)" = 0:1

# ---- the cases of other programs -----------------------------------------------------------------------------------

cases=$top/../shared/cases
if [ -e "$cases/try.py" ] && command -v python3 >/dev/null; then
    python3 "$cases/try.py" "$TRAIN_GPT" "$cases" --kind=data >try.out 2>&1
    check "data cases: all must and refuse pass, none is wrong" \
        test "$(grep -c -E '^wrong|^refused +(must|refuse) ' try.out)" -eq 0 -a "$(grep -c ^pass try.out)" -gt 0
else
    skip "data cases" "../shared/cases is not there"
fi

exit $((failures > 0))
