#!/bin/bash
# Models and tokenizers that are not quite right: damaged weights, tokenizers that cannot be read, HellaSwag of another
# tokenizer; and where a generated text begins and ends.
set -u
golden=$PWD/tests/golden/hf
. tests/e2e/lib.bash
export XDG_CACHE_HOME=$WORK_DIR/cache

says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; head -c 600 err; return 1; }; }
# shellcheck disable=SC2046
token_file ids.bin uint16 $(awk 'BEGIN { for (i = 0; i < 600; i++) print (i * 7) % 67 }')
small=("${tiny[@]}" "${quiet[@]}" --steps=1)

# ---- a tokenizer that cannot be read -------------------------------------------------------------------------------

cp -r "$golden/llama" odd
chmod -R u+w odd
echo '{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}}}' >odd/tokenizer.json
must "evaluate" evaluate --model=odd --data=ids.bin --seq-len=16
check "a tokenizer that cannot be read is a warning where token files need none" says "W .*tokenizer.json.*token files"
must "evaluate" evaluate --model=odd --data=ids.bin --seq-len=16 --tokenizer=none
check "--tokenizer=none: no warning" test "$(grep -c ' W ' err)" = 0
must "import" import --from=odd --out=imported
check "import keeps the tokenizer's file" cmp odd/tokenizer.json imported/tokenizer/tokenizer.json
must "evaluate what was imported" evaluate --run=imported --data=ids.bin --seq-len=16
must "train" --model=odd --data=ids.bin --seq-len=16 --batch-size=2 --steps=1 "${quiet[@]}" --output-dir=tuned
check "a run keeps it, too" cmp odd/tokenizer.json tuned/tokenizer/tokenizer.json
must "resume" --resume=tuned --steps=2
must "export" export --run=tuned --out=exported
check "and so does an export" cmp odd/tokenizer.json exported/tokenizer.json
must "generate" generate --run=tuned --length=3
check "tokens are numbers" grep -q -x '<[0-9]*><[0-9]*><[0-9]*>' out
refused "text for it: the reason is given" 1 \
    "text, but the model's own tokenizer cannot be read \(.*WordLevel.*--tokenizer" \
    evaluate --model=odd --data=text.txt --seq-len=16
check "once" test "$(grep -c WordLevel err)" = 1
refused "a prompt for it" 1 "own tokenizer cannot be read" generate --run=tuned --prompt=hello
check "is refused once" test "$(grep -c WordLevel err)" = 1
refused "one that was asked for is an error" 1 "tokenizer.json' has" \
    evaluate --model=odd --data=ids.bin --seq-len=16 --tokenizer=odd

# ---- weights that are no numbers -----------------------------------------------------------------------------------

for value in '\x00\x00\xc0\x7f' '\x00\x00\x80\x7f'; do # NaN, infinity
    rm -rf damaged
    cp -r "$golden/llama" damaged
    chmod -R u+w damaged
    shard=damaged/model-00003-of-00003.safetensors
    size=$(stat -c %s $shard)
    # shellcheck disable=SC2059
    printf "$value" | dd of=$shard bs=1 seek=$((size - 4)) conv=notrunc status=none
    for command in "evaluate --data=ids.bin --seq-len=16" "generate --length=3"; do
        # shellcheck disable=SC2086
        refused "weights that are no numbers: ${command%% *}" 1 "tensor '[a-z0-9._]*' has the value (nan|inf) in row" \
            $command --model=damaged
    done
    run --model=damaged --data=ids.bin --seq-len=16 --batch-size=2 --steps=1 --output-dir=of-damaged
    check "weights that are no numbers: train" \
        test "$status:$(grep -c " E .*tensor '[a-z0-9._]*' has the value" err)" = 1:1
    rm -rf of-damaged
done

# ---- HellaSwag of another tokenizer ----------------------------------------------------------------------------------

# swag FILE WORDS...: examples whose contexts are these words of space-separated tokens.
swag() {
    local file=$1 context number=0 part items
    shift
    {
        bytes 20240522 4
        bytes 1 4
        bytes $# 4
        bytes 200 4
        head -c 1008 /dev/zero
        for context in "$@"; do
            # shellcheck disable=SC2086
            set -- $context
            items="$number 0 2 $# $context 1 65 1 66"
            # shellcheck disable=SC2086
            set -- $items
            bytes 65535 2
            bytes $((2 * ($# + 2))) 2
            for part in $items; do bytes "$part" 2; done
            number=$((number + 1))
        done
    } >"$file"
}
letters() { printf '%s' "$1" | od -An -v -w1 -t u1 | xargs; }
train bytes --steps=2
must "learn" tokenize --train-bpe --vocab-size=300 --out=vocab text.txt
train words --tokenizer=vocab --steps=2
swag own.bin "$(letters 'the king said')" "$(letters 'a man went to the house')"
swag other.bin "3 200 17 150 12" "1 2 3" "180 180 190 5" "0 9 8 7 199"
must "HellaSwag" evaluate --run=bytes --hellaswag=own.bin
check "HellaSwag of the model's tokenizer" grep -q '^hellaswag .*of 2 right' out
for run in bytes words; do
    refused "$run: HellaSwag of another tokenizer" 1 \
        "--hellaswag=other.bin: its tokens are not those.*reads '.*make one" \
        evaluate --run=$run --hellaswag=other.bin
done
swag beyond.bin "5000 7"
refused "HellaSwag beyond the vocabulary" 1 "--hellaswag=beyond.bin: token 5000 in it.*vocabulary is 257" \
    evaluate --run=bytes --hellaswag=beyond.bin
swag unknown.bin "1 2 3"
must "HellaSwag" evaluate --model="$golden/llama" --hellaswag=unknown.bin
check "a tokenizer that is not known: a warning" says "W .*tokenizer is not known.*not GPT-2's"

# ---- where a text begins and ends ------------------------------------------------------------------------------------

# Documents of one letter, so that end-of-text comes soon.
for i in $(seq 300); do printf 'ab<|endoftext|>'; done >short.txt
must "train" "${tiny[@]}" "${quiet[@]}" --data=short.txt --special-tokens --steps=150 --warmup=5 --learning-rate=0.01 \
    --output-dir=short
must "generate" generate --run=short --length=30 --temperature=0
check "a text ends at the token between documents" test "$(cat out)" = "ab"
check "which is said" says \
    "begins after '<\|endoftext\|>' \(256\).*--no-bos.*ends at '<\|endoftext\|>' \(256\).*--ignore-eos"
must "generate" generate --run=short --length=30 --temperature=0 --ignore-eos
check "--ignore-eos goes on" test "$(wc -c <out)" -gt 15
must "generate" generate --run=short --length=30 --temperature=0 --ignore-eos --stop=ba
check "--stop ends before its text" test "$(cat out)" = "a"
must "generate" generate --run=short --length=9 --temperature=0 --ignore-eos --stop=zz
mv out whole
must "generate" generate --run=short --length=9 --temperature=0 --ignore-eos
check "a --stop that does not come changes nothing" cmp out whole
must "generate" generate --run=short --length=5 --temperature=0 --no-bos --prompt=a
check "--no-bos" says 'begins after nothing'
refused "--no-bos without a prompt" 2 "--no-bos: .*give a --prompt" generate --run=short --no-bos
must "generate" generate --run=short --length=3 --temperature=0 --prompt='ab<|endoftext|>'
check "special tokens in a prompt are letters, with a warning" says "W --prompt: .*'<\|endoftext\|>' 1 time.*--special-"
must "generate" generate --run=short --length=30 --temperature=0 --prompt='ab<|endoftext|>' --special-tokens
check "or tokens" test "$(cat out)" = 'ab<|endoftext|>ab' -a "$(grep -c ' W ' err)" = 0

must "import" import --from="$golden/llama" --out=listed
printf '{"bos_token_id": 1, "eos_token_id": [%s]}' "$(seq -s, 0 66)" >listed/tokenizer/generation_config.json
must "generate" generate --run=listed --length=30
check "a text ends at every id of the configuration's list" test "$(cat out)" = ""
must "generate" generate --run=listed --length=5 --ignore-eos
check "but not with --ignore-eos" grep -q -x '\(<[0-9]*>\)\{5\}' out

# A vocabulary larger than the tokenizer's: what has no text is never drawn.
must "a padded vocabulary" "${small[@]}" --data=text.txt --vocab-size=320 --output-dir=padded
must "generate" generate --run=padded --length=400 --temperature=3 --ignore-eos --seed=2
check "ids without text are never drawn" test "$status:$(wc -c <out | awk '{ print ($1 > 390) }')" = 0:1

exit $((failures > 0))
