#!/bin/bash
# Models by what they are: every kind of tests/golden/kinds (dev/oracle/model_kinds.py) is evaluated, imported and
# exported, some are trained, resumed and sampled; what a format or a family cannot say is refused by name. Losses and
# gradients against transformers are in tests/train/test_model_kinds.cpp.
set -u
kinds=$PWD/tests/golden/kinds cases=$PWD/../shared/cases
. tests/e2e/lib.bash
export XDG_CACHE_HOME=$WORK_DIR/cache

# shellcheck disable=SC2046
token_file ids.bin uint16 $(awk 'BEGIN {
    s = 3; for (i = 0; i < 400; i++) { s = (s * 16807) % 2147483647; print s % 29 } }')
loss() { grep -oE '^loss +[0-9.]+' "$1"; }
says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; head -c 600 err; return 1; }; }

for folder in "$kinds"/*; do
    kind=${folder##*/}
    must "evaluate $kind" evaluate --model="$folder" --data=ids.bin --seq-len=21 --dtype=fp32
    loss out >loss.whole
    must "import $kind" import --from="$folder" --out="imported/$kind"
    must "export $kind" export --run="imported/$kind" --out="exported/$kind"
    must "evaluate the export of $kind" evaluate --model="exported/$kind" --data=ids.bin --seq-len=21 --dtype=fp32
    loss out >loss.again
    check "$kind: import and export change nothing" cmp loss.whole loss.again
    must "import the export of $kind" import --from="exported/$kind" --out="again/$kind"
    must "export it again" export --run="again/$kind" --out="exported2/$kind"
    check "$kind: import and export come to rest" diff -r "exported/$kind" "exported2/$kind"
done

# ---- training and generation go on from them -----------------------------------------------------------------------

length=21
fit() { # fit FOLDER KIND ARGUMENTS...
    must "$1" --model="$kinds/$2" --data=ids.bin --seq-len=$length --batch-size=2 --warmup=0 --learning-rate=1e-3 \
        --dtype=fp32 "${quiet[@]}" --output-dir="$1" "${@:3}"
}
for kind in qwen3_norms smollm3_no_rope qwen2_windows; do
    fit "$kind" "$kind" --steps=4 --recompute=0
    fit "$kind-sqrt" "$kind" --steps=4 --recompute=2
    check "$kind: the same curve at level 2" cmp <(curve "$kind") <(curve "$kind-sqrt")
    fit "$kind-half" "$kind" --steps=2 --recompute=auto
    must "resume $kind" --resume="$kind-half" --steps=4
    check "$kind: a resume reads what its checkpoint says of the model" \
        test "$(grep -c '"loss"' "$kind-half/metrics.jsonl")" = 4
    must "generate from $kind" generate --run="$kind" --length=4 --temperature=0 --ignore-eos
done

if on_executor "windows on the CUDA backend"; then
    fit on-cuda mistral_window --steps=2 --device=cuda
    check "a Hopper card: the banner says why attention is on the portable kernels" \
        says "attention on the portable kernels .Hopper's are for bf16, not fp32."
    must "evaluate on CUDA" evaluate --model="$kinds/mistral_window" --data=ids.bin --seq-len=21 --dtype=fp32 \
        --device=cuda
    loss out | cut -c 1-14 >there
    TRAIN_GPT=$on_cpu
    must "evaluate" evaluate --model="$kinds/mistral_window" --data=ids.bin --seq-len=21 --dtype=fp32
    loss out | cut -c 1-14 >here
    check "and its loss is the CPU's" cmp here there
fi

# ---- plans ---------------------------------------------------------------------------------------------------------

must "plan" plan --model="$kinds/mistral_window" --seq-len=24 --batch-size=2 --recompute=0
check "the plan names the windows" grep -q 'windows of 6 tokens' out
must "an untied GPT-2" "${tiny[@]}" "${quiet[@]}" --data=text.txt --model=gpt2-nano --tied=false --steps=1 \
    --output-dir=untied
must "its export" export --run=untied --out=untied-hf
check "an untied GPT-2 has its head in the file" grep -q 'lm_head.weight' untied-hf/model.safetensors

# ---- what cannot be said -------------------------------------------------------------------------------------------

refused "llm.c's file of an exact GELU" 2 "--format=llmc: .*activation function is another.*--format=hf" \
    export --run=imported/gpt2_exact_gelu --format=llmc --out=x.bin
refused "llm.c's file of scaled scores" 2 "--format=llmc: .*scales attention's scores.*--format=hf" \
    export --run=imported/gpt2_score_scale --format=llmc --out=x.bin
refused "llm.c's file of an untied head" 2 "--format=llmc: .*head is not the embedding.*--format=hf" \
    export --run=untied --format=llmc --out=x.bin
refused "llm.c's file of a Mistral" 2 "--format=llmc: .*this is a Mistral model.*--format=hf" \
    export --run=imported/mistral_window --format=llmc --out=x.bin
check "nothing half-written is left" test ! -e x.bin

# damaged NAME FROM SED: a model whose config.json was edited.
damaged() {
    rm -rf "$1"
    cp -r "$kinds/$2" "$1"
    chmod -R u+w "$1"
    sed -i -E "$3" "$1/config.json"
}
# unusable NAME PATTERN KIND SED: refused, naming file and key.
unusable() {
    damaged damaged "$3" "$4"
    refused "$1" 1 "damaged/config.json.*$2" evaluate --model=damaged --data=ids.bin --seq-len=21
}
unusable "an epsilon of 0" "layer_norm_epsilon is 0, not a positive number below 1" gpt2_exact_gelu \
    's/("layer_norm_epsilon": )[^,]*/\10/'
unusable "an epsilon of 2" "rms_norm_eps is 2, not a positive number below 1" llama_yarn \
    's/("rms_norm_eps": )[^,]*/\12/'
unusable "an end-of-text outside the vocabulary" "eos_token_id is 29, outside the vocabulary of 29" llama_yarn \
    's/("eos_token_id": )[^,]*/\129/'
unusable "one of several" "bos_token_id is \[1,-4\], outside the vocabulary" llama_yarn \
    's/("bos_token_id": )[^,]*/\1[1, -4]/'
unusable "a family that is not here" 'model_type is "gemma".*it has gpt2, llama,.* and phi3' llama_yarn \
    's/"llama"/"gemma"/'
unusable "a RoPE that is not here" 'rope_type is "mrope".*yarn and longrope' llama_yarn 's/"yarn"/"mrope"/'
unusable "part of a head rotated" "partial_rotary_factor is 0.5" llama_yarn \
    's/("rope_parameters": \{)/\1"partial_rotary_factor": 0.5,/'
unusable "soft caps" "attn_logit_softcapping is 50" mistral_window 's/^\{/{"attn_logit_softcapping": 50,/'
damaged other qwen3_norms 's/qwen3/llama/'
refused "tensors of another family" 1 "not those of config.json, LLaMA.*nothing uses .*_norm.weight" \
    evaluate --model=other --data=ids.bin --seq-len=21

# ---- the cases, where they are there -------------------------------------------------------------------------------

if [ -e "$cases/try.py" ] && command -v python3 >/dev/null; then
    python3 "$cases/try.py" "$TRAIN_GPT" "$cases" --kind=models >rows 2>&1
    grep -E '^(pass|refused|wrong)' rows >judged
    check "there are cases" test -s judged
    while read -r verdict level name why; do
        case $verdict:$level in
            pass:* | refused:wish) ok "$name" ;;
            *) not_ok "$name" "$verdict: $why" ;;
        esac
    done <judged
else
    skip "cases of models" "the cases or python3 are not there"
fi

exit $((failures > 0))
