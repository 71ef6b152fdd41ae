#!/bin/bash
# Adapters that cannot be meant, or are not what they should be: one clear line, and the exit code of its kind.
set -u
golden=$PWD/tests/golden/lora
. tests/e2e/lib.bash

train base --steps=2
must "export the base" export --run=base --out=hf
train lora --steps=2 --lora=4
must "export the adapter" export --run=lora --format=peft --out=peft
train qv --model=llama-nano --kv-heads=1 --steps=2 --lora=4 --lora-targets=q,v
must "export a LLaMA's" export --run=qv --format=peft --out=llama
model=(--model=hf --data=text.txt "${quiet[@]}" --seq-len=32 --batch-size=2 --steps=2 --output-dir=new)

# ---- options ---------------------------------------------------------------------------
refused "rank 0" 2 '--lora: must be a whole number from 1' "${model[@]}" --lora=0
refused "a negative rank" 2 '--lora: must be a whole number' "${model[@]}" --lora=-4
for rank in 16384 60; do
    refused "rank $rank of small matrices" 2 "--lora=$rank: .* take a rank of at most 23, or leave --lora out" \
        "${model[@]}" --lora=$rank
done
run "${model[@]}" --lora=23 --dry-run
check "the rank that the message names is taken" test "$status" = 0
refused "targets of another family" 2 \
    "'q_proj' is none of the model's matrices; they are c_attn, c_proj, c_fc, or all" \
    "${model[@]}" --lora=4 --lora-targets=q_proj
refused "a target that is empty" 2 "'' is none of the model's matrices" "${model[@]}" --lora=4 --lora-targets=c_attn,
refused "targets of a LLaMA" 2 'they are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or all' \
    plan --model=llama3-8b --lora=4 --lora-targets=c_attn
for option in lora-alpha=8 lora-targets=all lora-bias=all rslora; do
    refused "--$option without adapters" 2 "--${option%=*}: is about adapters, of which there are none; add --lora" \
        "${model[@]}" --$option
done
refused "alpha 0" 2 '--lora-alpha: must be' "${model[@]}" --lora=4 --lora-alpha=0
refused "biases of what kind" 2 '--lora-bias: must be one of none, lora_only, all' "${model[@]}" --lora=4 \
    --lora-bias=some
refused "biases that a model has not" 2 '--lora-bias=all: the model has no such biases' \
    plan --model=llama3-8b --lora=4 --lora-bias=all
refused "adapters that are all frozen" 2 'every parameter is frozen' "${model[@]}" --lora=4 --freeze='*'

# ---- runs ------------------------------------------------------------------------------
refused "adapters at the resume of a full run" 2 \
    'trains the weights, not adapters; leave --lora out, or begin a new run .*--model=base --lora=4' \
    --resume=base --lora=4 --steps=4
refused "another rank at a resume" 2 "--lora: the run's adapters have rank 4; leave --lora out" \
    --resume=lora --lora=8 --steps=4
refused "other targets at a resume" 2 "--lora-targets: the run's adapters have c_attn,c_proj,c_fc" \
    --resume=lora --lora-targets=c_fc --steps=4
refused "other scales at a resume" 2 "--rslora: the run's adapters have it not" --resume=lora --rslora --steps=4
refused "a frozen adapter at a resume" 2 'in the run layers.0.qkv_lora_a was trained' --resume=lora \
    --freeze='*.0.qkv_lora_a' --steps=4
refused "an adapter at a resume" 2 '--adapter=peft: a run goes on with its own adapters; leave --adapter out' \
    --resume=lora --adapter=peft --steps=4
adapted=("${model[@]:0:6}" --adapter=peft -y 1 --output-dir=adapted)
must "an adapter, the first time" "${adapted[@]}" --steps=2
must "an adapter, the same command" "${adapted[@]}" --steps=4
check "the same command goes on with the run's own adapters" grep -q 'resumed from .*step-00000002' err
refused "an adapter of no model" 2 '--adapter=peft: --model=gpt2-nano is an architecture without weights' \
    --model=gpt2-nano "${model[@]:1}" --adapter=peft
must "an import" import --from=hf --out=imported
refused "adapters of an import that goes on" 2 '--lora=4: .*begin a new run .*--model=imported --lora=4' \
    --resume=imported --data=text.txt "${quiet[@]}" --seq-len=32 --batch-size=2 --steps=2 --lora=4
must "what the message says" --model=imported "${model[@]:1:6}" --output-dir=of-import --lora=4
refused "the adapters of a run without" 2 '--format=peft: .* has no adapters; train some with --lora' \
    export --run=base --format=peft --out=new
refused "of a folder without" 2 '--format=peft: .*hf. has no adapters' export --run=hf --format=peft --out=new
refused "nothing to merge" 2 '--merge: .* has no adapters' export --run=base --merge --out=new
refused "merged and not" 2 '--merge: --format=peft writes the adapters by themselves' \
    export --run=lora --format=peft --merge --out=new
refused "an adapter into an adapter" 2 '--adapter=peft: it is a folder for PEFT already' \
    export --run=base --adapter=peft --format=peft --out=new
must "an embedding beside adapters" "${model[@]:0:7}" --output-dir=tied --lora=4 --trainable=wte
refused "an embedding tied to the head" 2 'not keep the head tied to it; export the whole model: --format=hf' \
    export --run=tied --format=peft --out=new
must "so it is exported" export --run=tied --format=hf --out=tied-hf

# ---- folders ------------------------------------------------------------------------------
refused "a folder that is not there" 2 '--adapter=nowhere: is not there' "${model[@]}" --adapter=nowhere
for command in "generate --length=2" "evaluate" "export --out=new"; do
    # shellcheck disable=SC2086
    refused "on a run with adapters: $command" 2 'the run --run=lora has adapters of its own; leave --adapter out' \
        $command --run=lora --adapter=peft
done
refused "to generate with" 2 '--adapter=nowhere: is not there' generate --run=base --adapter=nowhere
refused "a model's folder" 2 '--adapter=hf: has no adapter_config.json' "${model[@]}" --adapter=hf
refused "a run" 2 '--adapter=lora: is a run, not .*train_gpt export --run=lora --format=peft' \
    "${model[@]}" --adapter=lora
must "what the message says" export --run=lora --format=peft --out=peft2
for option in lora=8 lora-alpha=7 lora-targets=c_fc lora-bias=all rslora; do
    refused "--$option beside an adapter" 2 "--${option%=*}: the adapter 'peft' has .*; leave --${option%=*} out" \
        "${model[@]}" --adapter=peft --$option
done
refused "an adapter of another family" 1 "'llama': the adapter is not for this model, GPT-2 .*nothing uses " \
    "${model[@]}" --adapter=llama
refused "to evaluate with" 1 "'llama': the adapter is not for this model" \
    evaluate --run=base --adapter=llama --data=text.txt
refused "to export with" 1 "'llama': the adapter is not for this model" export --run=base --adapter=llama --out=new
refused "an adapter of another size" 1 "adapter_model.safetensors': tensor .* has the shape" "${model[@]}" \
    --adapter="$golden/gpt2_all/after"

# bad NAME PATTERN: the copy `changed` is refused wherever it is used, and by its name.
bad() {
    refused "$1" 1 "'changed.*$2" "${model[@]}" --adapter=changed
    refused "$1, to generate with" 1 "'changed.*$2" generate --run=base --adapter=changed
    rm -rf changed
    cp -r peft changed
}
# config SED: a copy with another adapter_config.json.
config() { sed -i "$1" changed/adapter_config.json; }
rm -rf changed
cp -r peft changed
rm changed/adapter_model.safetensors
bad "no tensors" 'is not there; copy it too'
truncate -s 100 changed/adapter_config.json
bad "half a configuration" 'adapter_config.json'
config 's/"LORA"/"IA3"/'
bad "another kind of adapter" 'peft_type.* is "IA3"; only adapters of the kind LORA can be read'
config 's/"peft_type": "LORA",/"x": 1,/'
bad "no kind" 'peft_type'
for key in '"layers_to_transform": [1]' '"layer_replication": [[0, 2]]' '"target_parameters": ["w"]' \
    '"trainable_token_indices": [3]' '"lora_bias": true' '"use_qalora": true' '"alora_invocation_tokens": [1]'; do
    config "s/\"r\": 4/$key, \"r\": 4/"
    bad "${key%%:*}" "$(echo "$key" | cut -d'"' -f2).* is .*, which this program does not build"
done
config 's/"r": 4/"r": 0/'
bad "rank 0 in the file" "r.*a rank, 1 or more"
config 's/"r": 4/"r": "4"/'
bad "a rank in words" "r.*a rank, 1 or more"
config 's/"r": 4/"r": 5/'
bad "a rank unlike the tensors'" "has the shape"
config 's/"bias": "none"/"bias": "some"/'
bad "biases of no kind" 'bias.*none, all or lora_only'
config 's/"lora_alpha": 8/"lora_alpha": null, "alpha_pattern": {"(": 1}/'
bad "a pattern that is none" 'alpha_pattern'
sed -i 's/h.1.attn.c_attn.lora_A/h.9.attn.c_attn.lora_A/' changed/adapter_model.safetensors
bad "a layer there is not" 'it lacks transformer.h.1.attn.c_attn.lora_A.weight; nothing uses .*h.9.attn.c_attn.lora_A'
sed -i 's/c_fc.lora_B/c_fx.lora_B/' changed/adapter_model.safetensors
bad "a module there is not" 'lacks .*c_fc.lora_B.weight; nothing uses .*c_fx.lora_B'
sed -i 's/"shape":\[4,32\]/"shape":[32,4]/' changed/adapter_model.safetensors
bad "a matrix on its side" 'adapter_model.safetensors.*has the shape \(32, 4\)'
sed -i '0,/"dtype":"F32"/s//"dtype":"I32"/' changed/adapter_model.safetensors
bad "tensors of whole numbers" 'is I32; adapters may be F32, F16 or BF16'
truncate -s -4 changed/adapter_model.safetensors
bad "tensors that are cut off" 'adapter_model.safetensors'
head -c 64 /dev/zero >changed/adapter_model.safetensors
bad "no safetensors at all" 'adapter_model.safetensors'

cp -r "$golden/llama_dora/after" dora
cp -r "$golden/base_llama" llama-base
refused "a weight-decomposed one cannot be trained" 1 'weight-decomposed .*can be used and merged but not trained' \
    --model=llama-base --data=text.txt --seq-len=8 --steps=2 --output-dir=new --adapter=dora
must "but merged" export --run=llama-base --adapter=dora --out=dora-merged
from='transformer.h.2.mlp.c_proj.lora_B.weight"' # A name in the header becomes another, of the same length with spaces.
printf -v to "%-${#from}s" 'lm_head.weight"'
rm -rf changed
cp -r peft changed
sed -i "s/$from/$to/" changed/adapter_model.safetensors
bad "a head that the model ties" 'lm_head was trained whole, but the model ties it'
printf -v to "%-${#from}s" 'transformer.wte.weight"'
sed -i "s/$from/$to/" changed/adapter_model.safetensors
bad "a tensor of another shape in the embedding's place" 'wte.weight.*has the shape'

exit $((failures > 0))
