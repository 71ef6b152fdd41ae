#!/bin/bash
# GGUF files: exports of runs and of models that came in, in every type, read back in part; what the format cannot say
# is refused, and nothing half-written is left. Every byte is tested in tests/io/gguf; dev/oracle/gguf_check.py reads
# files with the gguf package and runs them with llama.cpp.
set -u
golden=$PWD/tests/golden
. tests/e2e/lib.bash

# pair FILE KEY SIZE: the number, in od's type and size, behind a key and the 4 bytes of its type.
pair() {
    local at
    at=$(grep -a -b -o -F -m1 "$2" "$1" | head -n 1 | cut -d: -f1)
    [ -n "$at" ] && od -A n -t "$3" -j $((at + ${#2} + 4)) -N "${3: -1}" "$1" | tr -d ' '
}
has_text() { grep -a -q -F "$2" "$1"; }
lacks_text() { ! has_text "$@"; }
size() { stat -c %s "$1"; }

# ---- a run of the demo's kind: bytes -------------------------------------------------

train bytes --model=gpt2-nano --steps=2
train llama --model=llama-nano --kv-heads=1 --steps=2
for type in f32 f16 bf16 q8_0; do
    for run in bytes llama; do
        must "export $run $type" export --run=$run --format=gguf --gguf-type=$type --out=$run-$type.gguf
    done
done
check "magic and version" test "$(head -c 8 bytes-f16.gguf | od -A n -t x1 | tr -d ' ')" = 4747554603000000
for row in "f32 0" "f16 1" "bf16 32" "q8_0 7"; do
    check "$row: general.file_type" test "$(pair "llama-${row% *}.gguf" general.file_type u4)" = "${row#* }"
done
check "gpt2: sizes" test "$(pair bytes-f16.gguf gpt2.block_count u4) $(pair bytes-f16.gguf gpt2.embedding_length u4) \
$(pair bytes-f16.gguf gpt2.context_length u4) $(pair bytes-f16.gguf gpt2.feed_forward_length u4)" = "3 32 32 128"
check "llama: heads" test "$(pair llama-f16.gguf llama.attention.head_count_kv u4) \
$(pair llama-f16.gguf llama.attention.key_length u4)" = "1 16"
check "alignment" test "$(($(size bytes-q8_0.gguf) % 32)) $(pair bytes-q8_0.gguf general.alignment u4)" = "0 32"
check "the byte tokenizer is one of bytes" has_text bytes-f16.gguf '<|endoftext|>'
check "texts begin with the token in front of documents" test "$(pair bytes-f16.gguf tokenizer.ggml.bos_token_id u4) \
$(pair bytes-f16.gguf tokenizer.ggml.add_bos_token u1)" = "256 1"
check "llama.cpp's names" has_text llama-f16.gguf blk.1.ffn_gate.weight
check "no licence is made up" lacks_text llama-f16.gguf general.license
must "export again" export --run=llama --format=gguf --gguf-type=q8_0 --out=again.gguf
check "the same bytes twice" cmp llama-q8_0.gguf again.gguf
must "the default type" export --run=llama --format=gguf --out=default.gguf
check "f16 without --gguf-type" cmp llama-f16.gguf default.gguf
check "the log says how to run it" grep -q 'llama-completion -m default.gguf' err

# ---- learned and carried tokenizers -------------------------------------------------------

must "learn a vocabulary" tokenize --train-bpe --vocab-size=300 --out=learned text.txt
train bpe --model=llama-nano --kv-heads=1 --steps=2 --tokenizer=learned
must "export with merges" export --run=bpe --format=gguf --out=bpe.gguf
check "a token of the learned vocabulary" has_text bpe.gguf "$(sed -n 2p learned/merges.txt)"
check "its pre-tokeniser" has_text bpe.gguf gpt-2
must "import a folder" import --from="$golden/hf/llama" --out=imported
must "export without a tokenizer" export --run=imported --format=gguf --gguf-type=q8_0 --out=none.gguf
check "a model without a tokenizer has none, which is said" grep -q 'W .*has no vocabulary' err
check "columns that are no whole blocks, too" grep -q 'W .*--gguf-type=q8_0.*f16' err
check "rope_freqs" has_text none.gguf rope_freqs.weight
ids tokens.bin
must "a run on token files" "${tiny[@]}" "${quiet[@]}" --model=llama-nano --kv-heads=1 --steps=2 --vocab-size=320 \
    --tokenizer=none --data=tokens.bin --output-dir=tokens
must "its export" export --run=tokens --format=gguf --out=tokens.gguf
check "how to give it a vocabulary" grep -q 'W .*import the model with --tokenizer' err
must "import with a tokenizer" import --from=tokens --tokenizer=learned --out=named
must "export with it" export --run=named --format=gguf --out=named.gguf
check "the advice works" has_text named.gguf "$(sed -n 2p learned/merges.txt)"
check "rows beyond the tokenizer" has_text named.gguf '[PAD319]'
must "a Hugging Face folder itself" export --run="$golden/hf/gpt2_fp16" --format=gguf --out=hf.gguf
cp -r "$golden/hf/llama" chat
cp "$golden/tokenizers/tokenizer.json" chat
sed -i 's/"vocab_size": 67/"vocab_size": 410/' chat/config.json
refused "a vocabulary that is not the weights'" 1 'embed_tokens.weight' export --run=chat --format=gguf --out=no.gguf
train chats --model=llama-nano --kv-heads=1 --steps=2 --tokenizer="$golden/tokenizers/tokenizer.json"
echo '{"chat_template": "{{ the_template }}", "eos_token": "<|eot_id|>"}' >chats/tokenizer/tokenizer_config.json
must "export a chat's model" export --run=chats --format=gguf --out=chat.gguf
check "the chat's template" has_text chat.gguf '{{ the_template }}'
check "the token that ends a turn" test "$(pair chat.gguf tokenizer.ggml.eos_token_id u4)" = 406
check "Llama 3's pattern" has_text chat.gguf smaug-bpe

# ---- what is refused --------------------------------------------------------------------------

refused "--dtype with GGUF" 2 '--dtype=bf16.*--gguf-type' export --run=llama --format=gguf --dtype=bf16 --out=x.gguf
must "--gguf-type without GGUF" export --run=llama --gguf-type=f16 --out=no-gguf
check "it is noted" grep -q 'W --gguf-type: has no effect; .*--format=gguf' err
refused "an unknown type" 2 'gguf-type.*q8_0' export --run=llama --format=gguf --gguf-type=q4_0 --out=x.gguf
refused "what is there already" 2 'is there already' export --run=llama --format=gguf --out=llama-f16.gguf
refused "a preset has no weights" 2 'without weights' export --run=gpt2 --format=gguf --out=x.gguf
sed 's/"add_prefix_space": false/"add_prefix_space": true/' chats/tokenizer/tokenizer.json >prefix.json
cp prefix.json chats/tokenizer/tokenizer.json
refused "a stage without a name" 1 'add_prefix_space.*--format=hf' export --run=chats --format=gguf --out=x.gguf
check "the advice works" "$TRAIN_GPT" export --run=chats --format=hf --out=advice
(ulimit -f 20 && trap '' XFSZ && exec "$TRAIN_GPT" export --run=llama --format=gguf --out=full.gguf) >out 2>err
full=$?
check "a full disk is one line" test "$full $(grep -c ' E ' err)" = "1 1"
check "a full disk leaves nothing" test -z "$(find . -name '*full.gguf*')$(leftovers)"

mkdir disk
if mount -t tmpfs -o size=$(($(size llama-q8_0.gguf) / 1024 + 16))k none disk 2>/dev/null; then
    trap 'umount disk' EXIT
    refused "too little room is known before" 1 '--out: the file has .* KiB, but there is room for .*--gguf-type' \
        export --run=llama --format=gguf --gguf-type=f32 --out=disk/x.gguf
    check "nothing is on the small disk" test -z "$(ls -A disk)"
    must "a smaller type" export --run=llama --format=gguf --gguf-type=q8_0 --out=disk/x.gguf
    check "the advice works, too" test -s disk/x.gguf
    umount disk
    trap - EXIT
else
    skip "too little room" "needs mount"
fi

exit $((failures > 0))
