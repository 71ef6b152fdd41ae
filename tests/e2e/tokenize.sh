#!/bin/bash
# tokenize: token files from text and JSON Lines, a vocabulary learned from text, training on both, and what is refused.
set -u
golden=$PWD/tests/golden/tokenizers
data=$PWD/../shared/data
. tests/e2e/lib.bash

# field FILE INDEX: an int32 of a token file's header. tokens FILE...: the ids of 16-bit token files, one a line.
field() { od -An -v -t d4 -j $((4 * $2)) -N 4 "$1" | tr -d ' '; }
tokens() {
    local file
    for file in "$@"; do
        od -An -v -w2 -t u2 -j 1024 "$file" | tr -d ' '
    done
}
says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; return 1; }; }

# ---- a vocabulary learned from text -------------------------------------------------------

must "learn" tokenize --train-bpe --vocab-size=400 --out=vocab text.txt
check "a learned vocabulary is three files that others read" \
    test -s vocab/vocab.json -a -s vocab/merges.txt -a -s vocab/tokenizer.json
check "its merges can be counted" test "$(wc -l <vocab/merges.txt)" -gt 30
must "learn again" tokenize --train-bpe --vocab-size=400 --threads=1 --out=vocab1 text.txt
check "the same vocabulary at any number of threads" diff -r vocab vocab1
size=$(($(wc -l <vocab/merges.txt) - 1 + 257))
end=$((size - 1))

# ---- token files ----------------------------------------------------------------------------

must "tokenize" tokenize --tokenizer=vocab --out=shards/a text.txt
check "val and train files, named on stdout" \
    test "$(tr '\n' ' ' <out)" = "shards/a_val_000000.bin shards/a_train_000000.bin "
cp -r shards one
check "the header is llm.c's" test "$(field one/a_train_000000.bin 0) $(field one/a_train_000000.bin 1)" = "20240520 1"
check "and says how many tokens follow" \
    test "$(stat -c %s one/a_train_000000.bin)" -eq $((1024 + 2 * $(field one/a_train_000000.bin 2)))
check "the document begins with end-of-text, in the validation file, which comes first" \
    test "$(tokens one/a_val_000000.bin | head -n 1)" = "$end"
check "a document has one end-of-text" \
    test "$(tokens one/a_val_000000.bin one/a_train_000000.bin | grep -c -x "$end")" -eq 1
count=$(tokens one/a_val_000000.bin one/a_train_000000.bin | wc -l)
val=$(field one/a_val_000000.bin 2)
check "about a twentieth is for validation" test $((val * 18)) -lt "$count" -a $((val * 22)) -gt "$count"

must "tokenize, one thread" tokenize --tokenizer=vocab --threads=1 --out=shards/b text.txt
check "the same tokens with one thread" cmp shards/b_train_000000.bin one/a_train_000000.bin
must "shards" tokenize --tokenizer=vocab --out=shards/c --shard-tokens=1000 --val-tokens=1500 text.txt
check "--val-tokens is exact, also over several files" \
    test "$(field shards/c_val_000000.bin 2) $(field shards/c_val_000001.bin 2)" = "1000 500"
check "--shard-tokens is the size of a file" test "$(field shards/c_train_000000.bin 2)" -eq 1000
check "the shards together are the text" test "$(tokens shards/c_val_*.bin shards/c_train_*.bin | cksum)" = \
    "$(tokens one/a_val_000000.bin one/a_train_000000.bin | cksum)"
must "no validation" tokenize --tokenizer=vocab --out=shards/d --val-fraction=0 text.txt
check "--val-fraction=0 makes no validation files" test ! -e shards/d_val_000000.bin
must "bytes" tokenize --tokenizer=bytes --out=shards/bytes --val-fraction=0 text.txt
check "bytes as tokens" test "$(tokens shards/bytes_train_000000.bin | head -n 4 | tr '\n' ' ')" = \
    "256 $(head -c 3 text.txt | od -An -t u1 | xargs) "

# ---- JSON Lines ---------------------------------------------------------------------------------

printf '{"id": 1, "text": "the man said \\u0041"}\n\n{"text": ""}\r\n{"text": "king <|endoftext|> day\\n"}\n' >x.jsonl
must "JSON Lines" tokenize --tokenizer=vocab --jsonl-field=text --out=shards/j --val-fraction=0 x.jsonl
check "every line is a document" test "$(tokens shards/j_train_000000.bin | grep -c -x "$end")" -eq 3
must "special tokens" tokenize --tokenizer=vocab --jsonl-field=text --special-tokens --out=shards/s --val-fraction=0 \
    x.jsonl
check "--special-tokens makes an id of <|endoftext|>" \
    test "$(tokens shards/s_train_000000.bin | grep -c -x "$end")" -eq 4

# ---- other vocabularies ------------------------------------------------------------------------------

tr -d '\0' <"$golden/text.bin" >hard.txt
for kind in ranks.tiktoken tokenizer.json sentencepiece.model; do
    pattern=() # This small rank file is no family's.
    [ $kind != ranks.tiktoken ] || pattern=(--tokenizer-pattern='[a-z]+|[0-9]')
    run tokenize --tokenizer="$golden/$kind" "${pattern[@]}" --out="shards/$kind" --val-fraction=0 hard.txt
    if grep -q "built without its library" err; then
        skip "tokenize with $kind" "built without SentencePiece"
    else
        check "tokenize with $kind" test "$status" -eq 0 -a -s "shards/${kind}_train_000000.bin"
    fi
done
check "the pattern stays with the token files" \
    grep -q 'a-z' shards/ranks.tiktoken_tokenizer/train_gpt_tokenizer.json

# What separates documents: what the files name, or the user.
mkdir named
cp "$golden/tokenizer.json" named
echo '{"eos_token": {"content": "<|eot_id|>"}, "bos_token": "<|begin_of_text|>"}' >named/tokenizer_config.json
must "a document token by rule" tokenize --tokenizer=named --out=shards/n1 --val-fraction=0 x.jsonl
check "is said" says "documents begin with '<\|endoftext\|>'"
must "a document token by choice" tokenize --tokenizer=named --document-token='<|begin_of_text|>' --out=shards/n2 \
    --val-fraction=0 x.jsonl
check "is said, too" says "documents begin with '<\|begin_of_text\|>', token 0 .named by --document-token"
check "and stands first" test "$(tokens shards/n2_train_000000.bin | head -n 1)" = 0
must "llm.c's tokenizer" tokenize --tokenizer=vocab --out=shards/l --llmc-tokenizer=tokenizer.bin text.txt
header=$(for i in 0 1 2 3; do field tokenizer.bin $i; done | xargs)
check "llm.c's tokenizer file" test "$header" = "20240328 2 $size $end"

if [ -e "$data/gpt2_encoder.json" ] && [ -e "$data/tinyshakespeare.txt" ]; then
    must "GPT-2" tokenize --tokenizer="$data/gpt2_encoder.json" --out=shards/gpt2 "$data/tinyshakespeare.txt"
    check "GPT-2 makes 338,025 tokens of tinyshakespeare, and end-of-text" says '338,026 tokens'
    check "the first are those of llm.c" test "$(tokens shards/gpt2_val_000000.bin | head -n 7 | tr '\n' ' ')" = \
        "50256 5962 22307 25 198 8421 356 "
else
    skip "GPT-2 on tinyshakespeare" "the vocabulary or the text is not there"
fi

# ---- training ----------------------------------------------------------------------------------------

must "train on token files" "${tiny[@]}" --val-every=0 --sample-length=8 --data='shards/c_train_*.bin' \
    --val-data='shards/c_val_*.bin' --steps=3 --output-dir=from_tokens
check "the vocabulary is that of the tokenizer beside the files" says "vocabulary $size"
must "train on text" "${tiny[@]}" --val-every=0 --sample-length=8 --data=text.txt --tokenizer=vocab --steps=3 \
    --output-dir=from_text
check "text is read with --tokenizer" says "tokenizer 'vocab'"
must "train with a chosen document token" "${tiny[@]}" --val-every=0 --sample-length=8 --data=text.txt \
    --tokenizer=named --document-token='<|begin_of_text|>' --steps=2 --output-dir=from_named
check "the banner says which token separates documents" says "documents begin with '<\|begin_of_text\|>'"
check "the run keeps the choice" grep -q begin_of_text from_named/tokenizer/train_gpt_tokenizer.json
must "resume with it" --resume=from_named --steps=3
for run in from_tokens from_text; do
    check "$run keeps the tokenizer" test -s $run/tokenizer/vocab.json -a -s $run/tokenizer/merges.txt
done
mkdir away
mv vocab shards text.txt away
must "generate" generate --run=from_text --prompt="the king" --length=5
check "a run needs nothing but its folder to generate" grep -q "^the king" out
mv away/* .
must "resume" --resume=from_text --steps=5
ok "a run with a tokenizer resumes"

# A model whose own tokenizer has something that we lack trains from token files all the same.
must "export" export --run=from_tokens --format=hf --out=lacking
sed 's/"type": *"BPE"/"type": "WordPiece"/' lacking/tokenizer.json >changed.json
mv changed.json lacking/tokenizer.json
rm -f lacking/vocab.json lacking/merges.txt
must "train without the tokenizer" --model=lacking --batch-size=2 --seq-len=32 --val-every=0 --sample-length=0 \
    --data='shards/c_train_*.bin' --steps=2 --output-dir=from_lacking
check "the model WordPiece is named" says 'the model WordPiece.*only token files'
check "the tokenizer travels along" test -s from_lacking/tokenizer/tokenizer.json
run --model=lacking --batch-size=2 --seq-len=32 --data=text.txt --steps=2 --output-dir=new
check "text is refused, with the reason" says 'own tokenizer cannot be read.*WordPiece'

# ---- what is refused ---------------------------------------------------------------------------------------

must "one more" tokenize --tokenizer=vocab --out=there text.txt
refused "no files" 2 'tokenize needs text files' tokenize --tokenizer=vocab --out=new
refused "no --out" 2 'tokenize needs --out' tokenize --tokenizer=vocab text.txt
refused "no --tokenizer" 2 'tokenize needs --tokenizer' tokenize --out=new text.txt
refused "a folder as --out" 2 '--out=new/.*is a folder' tokenize --tokenizer=vocab --out=new/ text.txt
refused "files that are there" 2 '--out=there.*there_val_000000.bin. is there already' \
    tokenize --tokenizer=vocab --out=there text.txt
refused "a vocabulary that is there" 2 '--out=vocab.*is there already' \
    tokenize --train-bpe --vocab-size=300 --out=vocab text.txt
refused "a vocabulary too small" 2 '--vocab-size=257.*at least 258' \
    tokenize --train-bpe --vocab-size=257 --out=new text.txt
refused "no vocabulary size" 2 '--train-bpe needs --vocab-size=N' tokenize --train-bpe --out=new text.txt
must "--train-bpe and --tokenizer" tokenize --train-bpe --vocab-size=300 --tokenizer=vocab --out=learned-anew text.txt
check "it is noted" grep -q 'W --tokenizer: has no effect; --train-bpe' err
refused "two sizes of validation" 2 '--val-tokens=5.*--val-fraction' \
    tokenize --tokenizer=vocab --val-tokens=5 --val-fraction=0.5 --out=new text.txt
refused "an unknown tokenizer" 1 "--tokenizer: 'gpt9' is neither 'bytes' nor" \
    tokenize --tokenizer=gpt9 --out=new text.txt
refused "no tokenizer in the folder" 1 "folder 'shards' has no tokenizer.json" \
    tokenize --tokenizer=shards --out=new text.txt
refused "a text that is not there" 1 "'no.txt' does not exist" tokenize --tokenizer=vocab --out=new no.txt
refused "all for validation" 1 'all [0-9]+ tokens .* are for validation' \
    tokenize --tokenizer=bytes --val-tokens=1000000 --out=new x.jsonl vocab/../x.jsonl
mkdir bad
cp vocab/vocab.json bad
{ cat vocab/merges.txt; echo "qq zz"; } >bad/merges.txt
refused "merges that name unknown tokens" 1 "merges.txt' line [0-9]+: .*'qq', which the vocabulary" \
    tokenize --tokenizer=bad --out=new text.txt
head -c 3000 vocab/tokenizer.json >bad/tokenizer.json
refused "a cut tokenizer.json" 1 "tokenizer.json' is not valid JSON" tokenize --tokenizer=bad --out=new text.txt
{ cat x.jsonl; echo '{"text": 5}'; } >bad.jsonl
refused "a bad line" 1 "bad.jsonl' line 5 has a field 'text' that is no text but number" \
    tokenize --tokenizer=vocab --jsonl-field=text --shard-tokens=3 --out=new bad.jsonl
head -c 900 tokenizer.bin >cut.bin
refused "a rank file of no family" 1 'ranks, which is no family.*--tokenizer-pattern' \
    tokenize --tokenizer="$golden/ranks.tiktoken" --out=new text.txt
refused "no such document token" 2 '--document-token=<no>.*no such token' \
    tokenize --tokenizer=named --document-token='<no>' --out=new text.txt
refused "a document token without a tokenizer" 2 '--document-token: needs --tokenizer' \
    "${tiny[@]}" --data=text.txt --document-token=x --output-dir=new
refused "a pattern for what needs none" 2 '--tokenizer-pattern=x.*only rank files' \
    tokenize --tokenizer=named --tokenizer-pattern=x --out=new text.txt
sed 's/"type": *"BPE"/"type": "WordPiece"/' "$golden/tokenizer.json" >bad/tokenizer.json
refused "a model we lack" 1 'the model WordPiece, which this program does not read' \
    tokenize --tokenizer=bad/tokenizer.json --out=new text.txt
sed 's/"added_tokens"/"no_tokens"/' "$golden/tokenizer.json" >bad/tokenizer.json
refused "nothing that separates documents" 1 'end-of-text token.*--document-token' \
    tokenize --tokenizer=bad/tokenizer.json --out=new text.txt
refused "llm.c's tokenizer cut" 1 "cut.bin' is truncated" tokenize --tokenizer=cut.bin --out=new text.txt
refused "llm.c's tokenizer cannot encode" 1 "tokenizer.bin': .*no merges" \
    tokenize --tokenizer=tokenizer.bin --out=new text.txt
refused "a vocabulary larger than the model's" 2 "--vocab-size=300: .* $size tokens" \
    "${tiny[@]}" --data=text.txt --tokenizer=vocab --vocab-size=300 --output-dir=new

check "refused commands leave no token files" test -z "$(find . -name "new*")"

# ---- ended in the middle -----------------------------------------------------------------------------------------

shards() { run tokenize --tokenizer=vocab --shard-tokens=1200 --val-tokens=1500 --out="$1" text.txt; }

# faulty FAULT: the same, with an accident, in the folder cut.
faults=$BUILD_DIR/faults.so
faulty() {
    rm -rf cut && mkdir cut
    export CHAOS_FAULT=$1 LD_PRELOAD=$faults
    shards cut/x
    unset CHAOS_FAULT LD_PRELOAD
} 2>/dev/null # without the shell's own remarks on killed jobs
is_whole() { diff -r -x '.tmp-*' whole cut >/dev/null; }

# why_not: what is wrong with that folder after a kill. No file has its name; or all have; or those that have are
# refused, and the same command goes, once what it asks for is removed. The last are counted.
why_not() {
    local data advice
    if [ -n "$(ls cut)" ] && ! is_whole; then
        parts=$((parts + 1))
        for data in cut 'cut/x_train_*.bin' cut/x_*_*.bin; do
            run "${tiny[@]}" --dry-run --data="$data"
            if ! says ' E .*(has not got its name yet|no file matches|folder without files)' >check.out; then
                echo "--data=$data: exit code $status: $(tail -n 1 err)"
            fi
        done
        shards cut/x
        advice=$(sed -n 's/.* E --out=cut.x: .*; remove them first: \(rm -r -- .*\)/\1/p' err)
        if [ -n "$advice" ]; then eval "$advice"; else echo "again: exit code $status: $(tail -n 1 err)"; fi
        [ -z "$(ls cut)" ] || echo "${advice:-nothing} leaves $(ls cut)"
    fi
    if [ -z "$(ls cut)" ]; then shards cut/x; else run "${tiny[@]}" --dry-run --data='cut/x_train_*.bin'; fi
    if [ "$status" != 0 ] || ! is_whole; then echo "at the end: exit code $status: $(tail -n 1 err)"; fi
}

if [ -e "$faults" ] && ! is_sanitized; then
    mkdir whole
    shards whole/x
    check "several shards of each kind" test -e whole/x_val_000001.bin -a -e whole/x_train_000002.bin
    for fault in power write sync; do
        CHAOS_COUNT=$PWD/count faulty $fault:0
        bad=0 parts=0
        for ((nth = 1; nth <= $(cat count) && bad < 3; nth++)); do
            faulty $fault:$nth:5
            if [ $fault = power ]; then
                why_not >why
            elif [ "$status" = 0 ] || says ' E cannot write to standard output' >/dev/null; then
                diff -r whole cut >why
            else
                find cut -mindepth 1 >why
            fi
            [ ! -s why ] || { not_ok "tokenize, $fault $nth" "$(head -n 5 why)"; bad=$((bad + 1)); }
        done
        [ $bad -gt 0 ] || ok "tokenize, each $fault of $(cat count)"
        [ $fault != power ] || check "some were cut between two names" test $parts -gt 4
    done
else
    skip "token files ended in the middle" "a sanitizer, or no $faults"
fi

exit $((failures > 0))
