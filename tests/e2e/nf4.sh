#!/bin/bash
# Models in 4 and 8 bits, as bitsandbytes stores them: read, used, trained on with adapters, written, and refused. The
# golden folders are from dev/oracle/make_nf4.py.
set -u
golden=$PWD/tests/golden/nf4
. tests/e2e/lib.bash

# Its ids are below 24, which every golden model knows.
# shellcheck disable=SC2046
token_file train.bin uint16 $(awk 'BEGIN {
    s = 7
    for (i = 0; i < 300; i++) { s = (s * 16807) % 2147483647; print s % 24 } }')
scoring=(--data=train.bin --tokenizer=none --batch-size=2 --seq-len=8)
data=(--data=train.bin --val-data=train.bin --batch-size=2 --seq-len=8 --sample-length=0 --warmup=0)

# ---- in ---------------------------------------------------------------------------------

for model in llama_nf4_double llama_int8 gpt2_nf4; do
    must "import $model" import --from="$golden/$model" --out="models/$model"
    must "evaluate $model" evaluate --model="$golden/$model" "${scoring[@]}"
    loss=$(sed -n 's/^loss  *//p' out)
    must "evaluate its import" evaluate --run="models/$model" "${scoring[@]}"
    check "$model: folder and import have the same loss" test -n "$loss" -a "$(sed -n 's/^loss  *//p' out)" = "$loss"
done
must "train adapters on it" --model="$golden/llama_nf4_double" --lora=2 "${data[@]}" --steps=4 --val-every=2 \
    --output-dir=adapted
check "the base stays as the folder has it" grep -q -E 'base +.* as nf4-double, [0-9.]+ bits each$' err
must "the adapter alone" export --run=adapted --format=peft --out=adapter

# ---- adapters on a base in 4 bits -----------------------------------------------------------

step() { echo "$1/checkpoints/step-0000000$2"; }
same() {
    local file
    for file in model-frozen model optimizer; do
        cmp "$(step "$1" 4)/$file.safetensors" "$(step "$2" 4)/$file.safetensors" || return
    done
}
whole=(--lora=2 "${data[@]}" --steps=4 --val-every=2 --checkpoint-every=2)
for base in nf4 nf4-double; do
    must "quantised at import" --model="$golden/gpt2" "${whole[@]}" --base-format=$base --output-dir=$base-run
    check "$base: the banner says so" grep -q -E "base +.* as $base, [0-9.]+ bits each$" err
    must "in host memory" --model="$golden/gpt2" "${whole[@]}" --base-format=$base --offload=parameters --recompute=2 \
        --output-dir=$base-host
    check "$base: the same bits streamed from the host" same $base-run $base-host
    must "resume" --resume="$(step $base-run 2)" --output-dir=$base-on
    check "$base: the same bits after a resume" same $base-run $base-on
done
must "evaluate it" evaluate --run=nf4-run "${scoring[@]}"
loss=$(sed -n 's/^loss  *//p' out)
must "merge it" export --run=nf4-run --merge --out=nf4-merged
must "evaluate what was merged" evaluate --model=nf4-merged "${scoring[@]}"
check "run and merged model have the same loss" test -n "$loss" -a "$(sed -n 's/^loss  *//p' out)" = "$loss"
must "plan it" plan --model="$golden/llama_nf4_double" --lora=2 --tokenizer=none --seq-len=8 --recompute=0
check "the plan has the folder's format" grep -q 'base: .* as nf4-double, ' out
must "plan the host's stream" plan --model=llama3-8b --lora=16 --base-format=nf4 --offload=parameters --recompute=1 \
    --batch-size=1 --seq-len=1024 --device-profile=rtx3060 --list-steps
check "the plan lists what is unpacked, after it has come" \
    awk '/ layer 3, wait for fetch of frozen/ { come = 1 }
         come && / layer 3, unpack qkv_weight/ { ok = 1 }
         END { exit !ok }' out
refused "4 bits of what trains" 2 '--base-format=nf4: is about frozen matrices.*--lora=RANK' \
    --model="$golden/gpt2" "${data[@]}" --steps=1 --base-format=nf4
refused "another type of an export" 2 '--base-format=bf16: .*--dtype=bf16' export --run=nf4-run --base-format=bf16 \
    --out=x

# ---- out ---------------------------------------------------------------------------------

for model in llama gpt2; do must "import $model" import --from="$golden/$model" --out="models/$model"; done
must "export in 4 bits" export --run=models/gpt2 --base-format=nf4 --out=nf4
must "export in 4 bits, double" export --run=models/llama --base-format=nf4-double --out=double
check "the log says so" grep -q 'bf16, matrices of layers as nf4-double' err
check "config.json says so" grep -q '"bnb_4bit_use_double_quant": true' double/config.json
for pair in nf4:gpt2_nf4 double:llama_nf4_double; do
    must "import it" import --from="${pair%:*}" --out="again/${pair%:*}"
    must "export it plain" export --run="again/${pair%:*}" --out="plain/${pair%:*}"
    must "and the library's" export --run="models/${pair#*:}" --out="plain/${pair#*:}"
    check "$pair: every weight is that of the library's folder" \
        cmp "plain/${pair%:*}/model.safetensors" "plain/${pair#*:}/model.safetensors"
done
size() { stat -c %s "$1/model.safetensors"; }
check "4 bits take less" test "$(size double)" -lt "$(size plain/double)"
must "adapters are merged before" export --run=adapted --base-format=nf4 --out=merged
must "with the rest in fp32" export --run=models/llama --base-format=nf4 --dtype=fp32 --out=fp32
check "fp32 is said in config.json" grep -q '"bnb_4bit_compute_dtype": "float32"' fp32/config.json

train bytes --steps=3
must "export a model of bytes" export --run=bytes --base-format=nf4-double --out=bytes4
must "generate from it" generate --model=bytes4 --prompt=the --length=9
check "it says nine bytes" test "$(wc -c <out)" -ge 10
must "evaluate it" evaluate --model=bytes4 --data=text.txt --batch-size=2 --seq-len=32
must "train adapters on it" --model=bytes4 --lora=4 --data=text.txt --batch-size=2 --seq-len=32 "${quiet[@]}" \
    --learning-rate=1e-2 --warmup=0 --steps=9 --output-dir=bytes4-run
check "its base is in 4 bits" grep -q -E 'base +.* as nf4-double' err
say=(--prompt=the --length=12 --seed=3)
must "generate from the base" generate --model=bytes4 "${say[@]}"
mv out base.out
must "generate from the run" generate --run=bytes4-run "${say[@]}"
mv out run.out
must "export its adapter" export --run=bytes4-run --format=peft --out=bytes4-adapter
must "generate with the adapter" generate --model=bytes4 --adapter=bytes4-adapter "${say[@]}"
check "the run and base + adapter generate alike" cmp out run.out
check "and not what the base does" test "$(cat base.out)" != "$(cat run.out)"

# ---- what is refused ---------------------------------------------------------------------------

refused "4 bits in another format" 2 '--base-format=nf4: .*--format=hf' export --run=models/llama --format=gguf \
    --base-format=nf4 --out=x.gguf
refused "an unknown format" 2 'base-format.*nf4-double' export --run=models/llama --base-format=fp4 --out=x
copy() {
    rm -rf bad
    cp -r "$golden/llama_nf4_double" bad
    chmod -R u+w bad
}
copy
sed -i 's/"quant_method": "bitsandbytes"/"quant_method": "gptq"/' bad/config.json
refused "GPTQ" 1 'bad/config.json.*quantization_config.*gptq.*bitsandbytes' import --from=bad --out=x
copy
sed -i 's/"quantization_config"/"quantization_gone__"/' bad/config.json
refused "4 bits that config.json does not say" 1 'model.safetensors.*is U8.*quantization_config' \
    import --from=bad --out=x
copy
LC_ALL=C sed -i 's/"blocksize": 64/"blocksize": 32/' bad/model.safetensors
refused "another block size" 1 'quant_state.*blocksize 32.*64' import --from=bad --out=x
copy
LC_ALL=C sed -i 's/q_proj.weight.nested_absmax/q_proj.weight.nested_obsmax/' bad/model.safetensors
refused "a part that is missing" 1 "q_proj.weight' is quantized.*q_proj.weight.nested_absmax'" import --from=bad --out=x
check "nothing is left of what was refused" test ! -e x -a ! -e x.gguf

exit $((failures > 0))
