#!/bin/bash
# What a newcomer gets wrong, in words: the option, file or field, what was found, and advice. Every piece of advice
# here is taken, and works.
set -u
golden=$PWD/tests/golden
. tests/e2e/lib.bash
export XDG_CACHE_HOME=$WORK_DIR/cache

says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; head -c 600 err; return 1; }; }
# advice PATTERN: what the error says from there on.
advice() { grep ' [EW] ' err | grep -o -E -e "$1" | head -n 1; }
small=("${tiny[@]}" "${quiet[@]}" --steps=1)
shorter=(--layers=3 --channels=32 --heads=2 --batch-size=2 "${quiet[@]}" --steps=1)

# ---- the command line ----------------------------------------------------------------------------------------------

refused "a value missing" 2 "E --data: needs a value; write --data=TEXT$" --data
refused "a value missing before another option" 2 "E --data: needs a value, but '--steps=3' comes next" --data --steps=3
refused "a value that is empty" 2 "E --data: there is no value behind the '='" --data= --steps=3
refused "an option twice" 2 "E --seed: was given 2 times, as 1 and 2; give it once$" --seed=1 --seed=2
refused "another option's name" 2 "E --batch_size: .*did you mean --batch-size\?" --batch_size=4
refused "a subcommand misspelled" 2 "E 'evalute': .*did you mean evaluate\?" evalute --run=x --data=text.txt
refused "one dash" 2 "E '-seq-len': a long name has two dashes; write --seq-len$" -seq-len 8
refused "a file that stands alone" 2 "E 'text.txt': stands alone; .*write --data=text.txt" text.txt
must "the advice" "${small[@]}" "$(advice '--data=text.txt')" --output-dir=alone
refused "a flag with a value" 2 "E --dry-run: takes no value, but is followed by 'true'" --dry-run true
refused "a number in other digits" 2 "E --steps: must be a whole number .*; write 1000$" --steps=1e3
must "another optimiser's option" "${small[@]}" --data=text.txt --optimizer=lion --adam-epsilon=1e-6 \
    --dry-run
check "it is noted" grep -q "W --adam-epsilon: has no effect; only --optimizer=adamw has it" err
refused "no vocabulary to learn" 2 "E tokenize --train-bpe needs --vocab-size=N.*such as 4096" \
    tokenize --train-bpe --out=new text.txt
must "the advice" tokenize --train-bpe --vocab-size="$(advice '4096')" --out=vocab text.txt
for words in --help --version "plan --help"; do
    # shellcheck disable=SC2086
    "$TRAIN_GPT" $words >/dev/full 2>err
    check "$words that cannot be printed" test \
        "$?:$(grep -c ' E cannot write to standard output: No space left on device$' err)" = 1:1
    # shellcheck disable=SC2086
    must "$words" $words
    check "$words" test -s out
done

refused "another name for an option" 2 "E --validate-every: .*did you mean --val-every\?" --validate-every=3
refused "a subcommand as an option" 2 "E --plan: .*did you mean the subcommand, .*train_gpt plan\? If not" --plan
refused "a long dash" 2 "E '.*data=text.txt': begins with a long dash, .* two hyphens; write --data=text.txt$" \
    "$(printf '\342\200\224data=text.txt')"
must "the advice" "${small[@]}" "$(advice '--data=text.txt')" --output-dir=hyphens
refused "a long dash of a short option" 2 "write -b 4$" "$(printf '\342\200\223b=4')"
refused "a short option without its value" 2 "E -q \(--final-lr-fraction\): needs a value; write --final-lr-fr" -q
refused "another one comes next" 2 "E -q \(--final-lr-fraction\): needs a value, but '--st" -q --steps=3
refused "a short option's value" 2 "E -b \(--batch-size\): must be " -b x
refused "more memory than there is" 2 "E --memory-budget=200%: is a share .* up to 100%; or write a size, such as" \
    "${small[@]}" --data=text.txt --memory-budget=200%
refused "tokens per update" 2 "E --total-batch-size=1000: must be .* 2 x 32 = 64 tokens; take 960 or 1024$" \
    "${small[@]}" --data=text.txt --total-batch-size=1000
must "the advice" "${small[@]}" --data=text.txt --total-batch-size="$(grep -o '1024$' err)" --output-dir=whole-updates
refused "a sequence too long for a model" 2 "E --seq-len=4096: .* takes at most 32 tokens; choose --seq-len=32" \
    --model=whole-updates --data=text.txt --seq-len=4096
refused "the same, evaluated" 2 "E --seq-len=4096: .* takes at most 32 tokens; choose --seq-len=32 or less$" \
    evaluate --run=whole-updates --data=text.txt --seq-len=4096
must "the advice" evaluate --run=whole-updates --data=text.txt --seq-len=32
refused "HellaSwag that is not there" 1 "E --hellaswag: cannot open 'nope': No such file.*; name a HellaSwag file" \
    evaluate --run=whole-updates --hellaswag=nope
mkdir empty-folder
refused "a folder for a file" 2 "E --out=empty-folder: is a folder; add the name of a new file in it, such as empty-f" \
    export --run=whole-updates --format=llmc --out=empty-folder
must "the advice" export --run=whole-updates --format=llmc --out="$(grep -o 'empty-folder/model$' err)"
(ulimit -f 16 && exec "$TRAIN_GPT" export --run=whole-updates --out=exported) >out 2>err
check "a full disk: the name asked for" test "$?:$(grep -c " E --out=exported: cannot write 'exported/model" err)" = 1:1
check "and nothing of it is left" test -z "$(leftovers)"

train finished --steps=4
must "fewer steps" --resume=finished --steps=3
check "a run that has done more than asked" says "I nothing left to do: the run has done 4 steps, and --steps is 3; "
must "the advice" --resume=finished "$(grep -o -e '--steps=5' err)"
check "the advice: one more" test "$(tail -n 1 finished/metrics.jsonl | cut -c 1-9)" = '{"step":5'
must "a rate that is hardly another" --resume=finished --steps=6 --learning-rate=3.000001e-3
rates=$(grep -o 'before): .*' err)
check "rates of another schedule are told apart" test "$(cut -d ' ' -f 2 <<<"$rates")" != "${rates##* }" -a -n "$rates"

must "a slow step" --model=gpt2-mini --layers=24 --batch-size=1 --seq-len=1 --steps=1 --threads=1 "${quiet[@]}" \
    --data=text.txt --output-dir=slow
check "a low speed has digits behind the point" grep -qE 'I step 1/1 .* [0-9]+\.[0-9]+ tok/s' err

# ---- data ------------------------------------------------------------------------------------------------------------

head -c 60 text.txt >short.txt
refused "text that is too short" 1 "E --data: 'short.txt' is text, read as bytes; its 61 tokens are too few:" \
    "${small[@]}" --data=short.txt --output-dir=new
must "the advice" "${shorter[@]}" --data=short.txt --output-dir=shorter "$(advice '--seq-len=29')"
must "the other advice" "${small[@]}" --data=short.txt --val-data=text.txt --output-dir=with-val
head -c 10 text.txt >ten.txt
refused "validation data that is too short" 1 "E --val-data: 11 tokens are too few: .* --seq-len=10 or less" \
    "${small[@]}" --data=text.txt --val-data=ten.txt --output-dir=new
must "the advice" "${shorter[@]}" --data=text.txt --val-data=ten.txt --output-dir=ten "$(advice '--seq-len=10')"

refused "plain text as JSON Lines" 1 "E --data: 'text.txt' is no JSON Lines file.*leave --jsonl-field=text out" \
    "${small[@]}" --data=text.txt --jsonl-field=text --output-dir=new
refused "plain text as JSON Lines, damaged ones skipped" 1 "leave --jsonl-field=text out" \
    "${small[@]}" --data=text.txt --jsonl-field=text --skip-bad-lines --output-dir=new
refused "text as ids of 32 bits" 1 "E --data: 'text.txt' is text.*leave --data-format=uint32 out" \
    "${small[@]}" --data=text.txt --data-format=uint32 --output-dir=new
must "as both advise" "${small[@]}" --data=text.txt --output-dir=left-out
head -c 4000 "$TRAIN_GPT" >binary
refused "ids that no vocabulary has" 1 "E --data: token [0-9]* in 'binary'.*or another --data-format$" \
    "${small[@]}" --data=binary --data-format=uint32 --output-dir=new
# shellcheck disable=SC2046
token_file ids.bin uint16 $(seq 900)
tail -c +1025 ids.bin >ids
refused "tokenize: ids" 1 "E tokenize: 'ids' is a binary file.*train on them as they are, with --data='ids' --data-fo" \
    tokenize --tokenizer=bytes --out=new ids
eval "taken=($(advice "--data='ids' --data-format=uint16"))"
must "the advice" "${small[@]}" --vocab-size=901 --output-dir=as-ids "${taken[@]}"
ln -s loop2 loop
ln -s loop loop2
refused "a link to itself" 1 "E --data: cannot find 'loop': .*a link that leads back to itself" \
    "${small[@]}" --data=loop --output-dir=new
for encoding in UTF-16LE UTF-16BE; do
    for i in $(seq 30); do printf '\320\222 \320\275\320\260\321\207\320\260\320\273\320\265.\n'; done |
        iconv -f UTF-8 -t $encoding >wide.txt
    refused "$encoding without a mark, not Latin" 1 "'wide.txt' is UTF-16 text; convert it: iconv -f $encoding" \
        "${small[@]}" --data=wide.txt --output-dir=new
    sh -c "$(sed -n 's/.*convert it: //p' err)"
    check "$encoding: the advice" grep -q "$(printf '\320\275\320\260\321\207')" wide.txt.utf8.txt
done

mkdir folder
for i in 10 2 1; do
    # shellcheck disable=SC2046
    token_file folder/shard_$i.bin uint16 $(seq $((i * 10)) $((i * 10 + 60)))
done
must "a folder" evaluate --run=as-ids --data=folder --no-scan --seq-len=8
check "a folder of shards: nothing to warn of" test "$(grep -c ' W ' err)" = 0
: >folder/a.txt
: >folder/b.parquet
: >folder/c.md
: >folder/d.md
must "a folder" "${small[@]}" --data=folder --vocab-size=161 --output-dir=of-folder
check "what else it has is said" says \
    "W --data: of the folder 'folder', 3 files are read; 4 others are left out: a.txt, b.parquet, c.md and 1 more$"
check "and said once" test "$(grep -c ' W ' err)" = 1
check "numbers in names count" says "data .*3 files; the first: 'folder/shard_1.bin'"
# The last 5 % are the end of shard_10.
check "shard_10 is the last" says "150 tokens for training, 33 for validation"
must "the pattern" "${small[@]}" --data='folder/*.bin' --vocab-size=161 --output-dir=of-pattern
check "a pattern gives the same order" cmp <(curve of-folder) <(curve of-pattern)
mkdir three
cp folder/shard_1.bin three/a.bin
cp folder/shard_2.bin three/b.bin
cp folder/shard_10.bin three/c.bin
must "in that order" "${small[@]}" --data=three --vocab-size=161 --output-dir=of-three
check "which is 1, 2, 10" cmp <(curve of-folder) <(curve of-three)

# Beyond the first GiB, in a file that takes no room.
head -c 200000 text.txt >long.txt
while [ "$(stat -c %s long.txt)" -lt 70000 ]; do cat text.txt >>long.txt; done
truncate -s 1100M long.txt
printf '<|endoftext|>' >>long.txt
must "a long text" --layers=1 --channels=8 --heads=1 --data=long.txt --data-format=text --dry-run
check "names of special tokens are looked for to its end" says "W .*'<\|endoftext\|>' 1 time, read as letters"
rm long.txt

# ---- samples ---------------------------------------------------------------------------------------------------------

sampled=("${tiny[@]}" --val-every=0 --steps=3 --sample-length=40 --data=text.txt)
sample() { sed -n '/^---- sample/,/^----$/p' "$1" | sed 's/^<|endoftext|>//'; }
must "no prompt" "${sampled[@]}" --output-dir=plain
sample out >plain.sample
must "as letters" "${sampled[@]}" --sample-prompt='<|endoftext|>' --output-dir=letters
check "--sample-prompt: names of special tokens are letters, which is said" says \
    "W --sample-prompt: .*'<\|endoftext\|>' 1 time, read as letters; .*--special-tokens"
check "--sample-prompt: as letters it is another sample" test "$(sample out | cksum)" != "$(cksum <plain.sample)"
must "the advice" "${sampled[@]}" --sample-prompt='<|endoftext|>' --special-tokens --output-dir=special
check "--sample-prompt: with --special-tokens it is the token" test \
    "$(sample out | cksum):$(grep -c ' W ' err)" = "$(cksum <plain.sample):0"

# ---- weights ---------------------------------------------------------------------------------------------------------

cp -r "$golden/hf/llama" damaged
chmod -R u+w damaged
shard=damaged/model-00003-of-00003.safetensors
printf '\x00\x00\xc0\x7f' | dd of=$shard bs=1 seek=$(($(stat -c %s $shard) - 4)) conv=notrunc status=none
# shellcheck disable=SC2046
token_file small.bin uint16 $(awk 'BEGIN { for (i = 0; i < 600; i++) print (i * 7) % 67 }')
refused "weights that are no numbers leave no run folder" 1 "tensor '[a-z0-9._]*' has the value nan in row" \
    --model=damaged --data=small.bin --seq-len=16 --batch-size=2 --steps=1 --output-dir=new

cp "$golden"/hf/llama/* damaged
for name in config.json model.safetensors.index.json; do
    : >"damaged/$name"
    refused "an empty $name" 1 "E .*'damaged/$name' is empty; copy or download it again$" \
        evaluate --model=damaged --data=small.bin --seq-len=16
    printf '{\n "a": 1,\n}\n' >"damaged/$name"
    refused "a $name that is no JSON" 1 "E .*'damaged/$name' is not valid JSON \(line 3, column 1\); copy or download" \
        evaluate --model=damaged --data=small.bin --seq-len=16
    cp "$golden/hf/llama/$name" damaged
done

# ---- a tokenizer's files ---------------------------------------------------------------------------------------------

# with_field SED-EXPRESSION: the tokenizer, changed.
with_field() {
    mkdir -p changed
    sed -e "$1" "$golden/tokenizers/tokenizer.json" | tr -d '\n' | sed -e "${2-}" >changed/tokenizer.json
    cmp -s changed/tokenizer.json <(tr -d '\n' <"$golden/tokenizers/tokenizer.json") && not_ok "$1" "changes nothing"
}
tokenizes() { refused "$1" 1 "$2" tokenize --tokenizer=changed --out=new text.txt; }
with_field '' 's/"added_tokens": *\[[^]]*\]/"added_tokens": "x"/'
tokenizes "added_tokens that are a text" "E --tokenizer: 'changed/tokenizer.json': added_tokens is \"x\", not a list"
with_field '' 's/"merges": *\[/"merges": [ 1,/'
tokenizes "a merge that is a number" \
    "E --tokenizer: 'changed/tokenizer.json': model.merges\[0\] is 1, not a merge, which is two"
with_field '' 's/"model": .*/"model": "BPE" }/'
tokenizes "a model that is a text" "E --tokenizer: 'changed/tokenizer.json': model is \"BPE\", not an object"
cp "$golden/tokenizers/tokenizer.json" changed
: >changed/config.json
tokenizes "an empty config.json" "E --tokenizer: 'changed/config.json' is empty; copy or download it again"
echo '{"eos_token_id": "x"}' >changed/config.json
tokenizes "an id that is a text" "E --tokenizer: 'changed/config.json': eos_token_id is \"x\", not a whole number"
rm changed/config.json
echo '{"add_bos_token": "yes"}' >changed/tokenizer_config.json
tokenizes "a flag that is a text" \
    "E --tokenizer: 'changed/tokenizer_config.json': add_bos_token is \"yes\", not true or false"
rm changed/tokenizer_config.json
part='(?:a|aa|a?){1,20}'
hard="{\"type\": \"Split\", \"pattern\": {\"Regex\": \"$part$part$part[xy]\"}, \"behavior\": \"Isolated\"}"
with_field '' "s/\"pre_tokenizer\": .*\"decoder\"/\"pre_tokenizer\": $hard, \"decoder\"/"
{ cat text.txt; head -c 600 /dev/zero | tr '\0' a; } >hard.txt
refused "a pattern that gives up" 1 \
    "E tokenize: 'hard.txt' from byte 0 on: 'changed/tokenizer.json': its pattern .* gave up on the text" \
    tokenize --tokenizer=changed --out=new hard.txt

exit $((failures > 0))
