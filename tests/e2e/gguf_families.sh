#!/bin/bash
# GGUF files of the families of models: the architecture, the names of tensors and the keys that llama.cpp reads; what
# it has no architecture for is refused with the key of config.json, and the advice works. Rows and rotary positions are
# tested in tests/io/gguf; dev/oracle/gguf_check.py compares llama.cpp's losses with transformers'.
set -u
golden=$PWD/tests/golden
. tests/e2e/lib.bash

head='\x00output.weight' # not the end of another name
says() { # says FILE PATTERN...: all of them, and none of those behind "--"
    local file=$1 word wanted=0
    shift
    for word in "$@"; do
        [ "$word" = -- ] && { wanted=1; continue; }
        grep -a -q -P -e "$word" "$file"
        [ $? -eq $wanted ] || { echo "$word"; return 1; }
    done
}

# row FOLDER ARCHITECTURE WORD...: exports the folder as it is, and again from an import.
row() {
    local name=${1##*/} folder=$golden/$1 architecture=$2
    shift 2
    must "export $name" export --run="$folder" --format=gguf --gguf-type=f32 --out="$name.gguf"
    check "$name: $architecture" says "$name.gguf" "$architecture.block_count" "$@"
    must "import $name" import --from="$folder" --out="imported-$name"
    must "export the import" export --run="imported-$name" --format=gguf --gguf-type=f32 --out="again-$name.gguf"
    # The name of a model is that of its folder or run; everything behind the metadata's first pairs is the same.
    check "$name: the same tensors from an import" cmp <(tail -c 2000 "$name.gguf") <(tail -c 2000 "again-$name.gguf")
}

row families/gpt2_untied gpt2 "$head" blk.1.attn_qkv.bias position_embd.weight -- rope
row families/mistral llama blk.1.ffn_gate.weight "$head" -- mistral\\. \\.bias rope.scaling
row families/phi3 llama blk.1.attn_k.weight blk.1.ffn_up.weight -- phi3\\. attn_qkv ffn_gate_up
row families/qwen2 qwen2 blk.1.attn_k.bias -- "$head" attn_output.bias rope.scaling
row families/qwen2_yarn qwen2 qwen2.rope.scaling.type qwen2.rope.scaling.original_context_length -- rope_freqs
row families/qwen2_head_size llama blk.1.attn_k.bias llama.attention.key_length -- qwen2\\.
row families/qwen2_llama3 llama blk.1.attn_k.bias rope_freqs.weight -- qwen2\\. rope.scaling
row families/qwen3_yarn qwen3 blk.1.attn_q_norm.weight qwen3.attention.key_length \
    qwen3.rope.scaling.attn_factor qwen3.rope.scaling.yarn_beta_fast -- \\.bias
row families/smollm3 smollm3 blk.4.attn_norm.weight -- "$head" \\.bias
row kinds/qwen3_norms qwen3 blk.1.attn_k_norm.weight -- rope.scaling "$head"
row kinds/llama_biases llama blk.1.attn_output.bias blk.1.ffn_gate.bias blk.1.ffn_down.bias
row kinds/llama_yarn llama rope_freqs.weight llama.rope.scaling.attn_factor -- rope.scaling.type

# ---- presets, trained -------------------------------------------------------------------------

train qwen3 --model=qwen3-0.6b --kv-heads=1 --steps=1
must "export a run" export --run=qwen3 --format=gguf --gguf-type=q8_0 --out=run.gguf
check "a run of a preset: qwen3" says run.gguf qwen3.rope.freq_base blk.2.attn_q_norm.weight

# ---- what llama.cpp has no architecture for ---------------------------------------------------

while read -r kind words; do
    refused "$kind" 2 "--format=gguf: llama.cpp has no such model: .*$words.*; use --format=hf" \
        export --run="$golden/kinds/$kind" --format=gguf --out=no.gguf
    check "$kind: no file" test ! -e no.gguf
    must "the advice" export --run="$golden/kinds/$kind" --format=hf --out="hf-$kind"
done <<'ROWS'
gpt2_exact_gelu exact one \(activation_function\)
gpt2_score_scale \(scale_attn_weights\)
llama_dynamic longer texts \(rope_type dynamic\)
mistral_window windows of 6 tokens \(sliding_window\)
phi3_long windows of 9 tokens \(sliding_window\)
phi3_short longer texts \(rope_type longrope\)
qwen2_windows windows of 5 tokens \(sliding_window\)
smollm3_no_rope windows of 7 tokens \(sliding_window\)
ROWS

# edited FROM TO PATTERN: a copy of a golden folder with a line of its config.json changed.
edited() {
    cp -r "$golden/$1" "$2"
    chmod -R u+w "$2"
    sed -i -z -E "$3" "$2/config.json"
}
edited kinds/mistral_window wide 's/"sliding_window": 6/"sliding_window": 32/'
must "a window as wide as the context" export --run=wide --format=gguf --out=wide.gguf
check "is none" says wide.gguf llama.block_count
edited kinds/mistral_window narrow 's/"sliding_window": 6/"sliding_window": 31/'
refused "one that is a token narrower is one" 2 'windows of 31 tokens' export --run=narrow --format=gguf --out=no.gguf
edited kinds/phi3_long partial 's/"sliding_window": 9/"sliding_window": null/'
refused "rotary positions in part of a head" 2 '4 of 8 columns of a head \(partial_rotary_factor\)' \
    export --run=partial --format=gguf --out=no.gguf
edited kinds/smollm3_no_rope order 's/"sliding_window": 7/"sliding_window": null/
s/"use_sliding_window": true/"use_sliding_window": false/; s/"sliding_attention"/"full_attention"/'
refused "another order of layers without positions" 2 'not every fourth \(no_rope_layers\)' \
    export --run=order --format=gguf --out=no.gguf
edited families/qwen3_yarn whole 's/"rope_type": "yarn"/"rope_type": "yarn", "truncate": false/'
refused "YaRN that llama.cpp's qwen3 has not" 2 'qwen3 has no rotary positions.*yarn without truncate.*--format=hf' \
    export --run=whole --format=gguf --out=no.gguf

exit $((failures > 0))
