#!/bin/bash
# Low-rank adapters end to end: trained, resumed, killed, on ranks and with state in host memory to the same bits; used
# as they are, merged, and as a folder of PEFT's, to the same losses; planned with what they take.
set -u
recipes=$PWD/scripts/recipes
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

setting=(--data=text.txt --batch-size=2 --seq-len=32 --sample-length=0 --val-every=3 --val-sequences=4
    --learning-rate=1e-2 --warmup=1)
whole=("${setting[@]}" --steps=6 --checkpoint-every=3)
step() { echo "$1/checkpoints/step-0000000$2"; }
loss() { sed -n 's/^loss  *\([0-9.]*\).*/\1/p' out; }
# same RUN OTHER: the same curve, as far as OTHER has it, and the same checkpoint at the end.
same() {
    local file
    cmp <(curve "$1" | tail -n "$(curve "$2" | wc -l)") <(curve "$2") || return
    for file in model-frozen model optimizer; do
        cmp {"$(step "$1" 6)","$(step "$2" 6)"}/$file.safetensors || return
    done
}
# evaluate ARGUMENTS...: the loss on the text.
evaluate() {
    must "evaluate $*" evaluate "$@" --data=text.txt --seq-len=32
    loss
}
# near A B: equal but for what rounding in another order makes.
near() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 1 && a - b < 2e-4 && b - a < 2e-4) }'; }

families=(gpt2 llama)
kind=()
for family in "${families[@]}"; do
    [ "$family" = gpt2 ] || kind=(--model=llama-nano --kv-heads=1)
    train "base-$family" "${kind[@]}" --steps=6 --warmup=0
    must "export the base" export --run="base-$family" --out="hf-$family"
    must "train" --model="hf-$family" "${whole[@]}" --lora=4 --output-dir="lora-$family"
    check "$family: the banner says what trains" grep -q -E 'lora +adapters of rank 4, alpha 8, on .*; kept in fp32$' \
        err
    must "train the base" --model="hf-$family" "${setting[@]}" --steps=1 --output-dir="plain-$family"
    check "$family: it begins with the base's loss" cmp <(curve "plain-$family" | head -n 1) \
        <(curve "lora-$family" | head -n 1)

    # ---- the same bits, however the run goes ------------------------------------------------
    must "resume in the middle" --resume="$(step "lora-$family" 3)" --output-dir="resumed-$family"
    check "$family: a resumed run ends with the same checkpoint" same "lora-$family" "resumed-$family"
    must "another level" --model="hf-$family" "${whole[@]}" --lora=4 --recompute=2 --output-dir="level-$family"
    check "$family: the same bits with --recompute=2" same "lora-$family" "level-$family"
    must "in host memory" --model="hf-$family" "${whole[@]}" --lora=4 --offload=parameters,moments \
        --output-dir="host-$family"
    check "$family: the same bits with --offload=parameters,moments" same "lora-$family" "host-$family"

    # ---- the same model, in every form -------------------------------------------------------
    must "export the adapter" export --run="lora-$family" --format=peft --out="peft-$family"
    must "merge" export --run="lora-$family" --merge --out="merged-$family"
    must "merge another way" export --run="base-$family" --adapter="peft-$family" --out="merged2-$family"
    check "$family: run merged = base merged with the exported adapter" \
        cmp "merged-$family/model.safetensors" "merged2-$family/model.safetensors"
    run_loss=$(evaluate --run="lora-$family")
    base=$(evaluate --model="hf-$family")
    check "$family: adapters change the model" test "$run_loss" != "$base"
    check "$family: the run and its merged export have the same loss" \
        test "$(evaluate --model="merged-$family")" = "$run_loss"
    check "$family: so have the base and the adapter" \
        test "$(evaluate --model="hf-$family" --adapter="peft-$family")" = "$run_loss"
    must "generate" generate --run="lora-$family" --length=8 --seed=3
    mv out run.out
    must "generate with an adapter" generate --model="hf-$family" --adapter="peft-$family" --length=8 --seed=3
    check "$family: the run and base + adapter generate alike" cmp out run.out
    must "GGUF" export --run="lora-$family" --format=gguf --out="$family.gguf"
    must "GGUF of base + adapter" export --run="hf-$family" --adapter="peft-$family" --format=gguf \
        --out="2-$family.gguf"
    check "$family: GGUF files of both ways are equal" cmp "$family.gguf" "2-$family.gguf"

    # ---- going on --------------------------------------------------------------------------
    must "go on with the adapter" --model="hf-$family" "${setting[@]}" --adapter="peft-$family" --steps=1 \
        --output-dir="further-$family"
    must "the merged model's first loss" --model="merged-$family" "${setting[@]}" --steps=1 --output-dir="first-$family"
    first() { sed -n 's/^{"step":1,"loss":\([0-9.]*\),.*/\1/p' "$1/metrics.jsonl"; }
    check "$family: --adapter begins with the adapted loss" near "$(first "further-$family")" "$(first "first-$family")"
    check "$family: --adapter keeps rank, alpha and targets" grep -q 'rank 4, alpha 8, on ' "further-$family/train.log"
    must "import" import --from="hf-$family" --out="imported-$family"
    must "adapters of a run" --model="imported-$family" "${whole[@]}" --lora=4 --output-dir="again-$family"
    check "$family: from a run as from its export" cmp <(curve "lora-$family") <(curve "again-$family")
done
must "llm.c" export --run=lora-gpt2 --format=llmc --out=lora.bin
check "llm.c's file has the merged model" test "$(evaluate --model=lora.bin --tokenizer=bytes)" = \
    "$(evaluate --run=lora-gpt2)"

# ---- kill -9, and the run goes on -----------------------------------------------------------
"$TRAIN_GPT" --model=hf-gpt2 "${setting[@]}" --lora=4 --steps=6 --checkpoint-every=1 --keep-checkpoints=9 \
    --output-dir=killed >out 2>err &
job=$!
for ((i = 0; i < 200; i++)); do
    compgen -G 'killed/checkpoints/step-*/manifest.json' >check.out && break
    sleep 0.02
done
kill -KILL $job 2>/dev/null
wait $job 2>/dev/null
must "go on after a kill" --resume=killed
check "a killed run ends with the same checkpoint" same lora-gpt2 killed

# ---- frozen weights are on the disk once -----------------------------------------------------
frozen() { find "$1" -name 'model-frozen*' -printf '%i\n' | sort -u | wc -l; }
copies() { find "$1" -name 'model-frozen*' | wc -l; }
check "six checkpoints have the base" test "$(copies killed)" = 6
check "and share one file of it, across a kill and a resume" test "$(frozen killed)" = 1
cp -r "$(step killed 2)" alone
check "a step folder by itself is complete" test -n "$(evaluate --run=alone)"
must "keep two" --resume=killed --steps=8 --keep-checkpoints=2
check "pruned checkpoints leave the others whole" test "$(copies killed) $(frozen killed)" = "2 1"
check "which can be read" test -n "$(evaluate --run=killed)"
cp -r killed damaged
printf 'x' | dd of="$(step damaged 8)/model-frozen.safetensors" bs=1 seek=3000 conv=notrunc status=none
refused "a damaged base" 1 "model-frozen.safetensors' is damaged.*--resume=damaged/checkpoints/step-00000007" \
    --resume=damaged --steps=9
must "an older one" --resume="$(step damaged 7)" --steps=9 --output-dir=mended
check "is whole" test "$(frozen mended)" = 1
must "go back" --resume="$(step killed 7)" --steps=9 --checkpoint-every=1
check "after going back checkpoints share it still" test "$(frozen killed)" = 1

many=(--model=hf-gpt2 --data=text.txt --batch-size=2 --seq-len=32 "${quiet[@]}" --lora=4 --steps=6 --checkpoint-every=1
    --keep-checkpoints=0)
mkdir disk
if mount -t tmpfs -o size=2200k none disk 2>/dev/null; then
    trap 'umount disk' EXIT
    must "six checkpoints, where six bases have no room" "${many[@]}" --output-dir=disk/run
    check "do not warn of a full disk" test "$(grep -c ' W ' err) $(copies disk) $(frozen disk)" = "0 6 1"
    must "nor does a resume" --resume=disk/run --steps=7
    check "which shares the base too" test "$(grep -c ' W ' err) $(copies disk) $(frozen disk)" = "0 7 1"
    rm -r disk/run
    mount -o remount,size=1500k disk
    run "${many[@]}" --output-dir=disk/run
    check "the warning of a full disk counts the base once" grep -q \
        ' but 6 checkpoints of .* and the .* of frozen weights that they share need ' err
    umount disk
    trap - EXIT
else
    skip "a small disk" "file systems cannot be mounted here"
fi

# ---- ranks -------------------------------------------------------------------------------
if command -v mpirun >/dev/null && ldd "$TRAIN_GPT" | grep -q libmpi; then
    for zero in 0 3; do
        must_ranks "zero $zero" 2 --model=hf-llama "${whole[@]}" --total-batch-size=128 --lora=4 --zero=$zero \
            --check-ranks --output-dir="zero-$zero"
        check "ZeRO $zero: ranks' files of the base are shared" \
            test "$(copies "zero-$zero") $(frozen "zero-$zero")" = "4 2"
    done
    check "two ranks train alike at ZeRO 0 and 3" cmp <(curve zero-0) <(curve zero-3)
    must_ranks "with state in host memory" 2 --model=hf-llama "${whole[@]}" --total-batch-size=128 --lora=4 --zero=3 \
        --offload=parameters,moments --output-dir=zero-host
    check "and with state in host memory" cmp <(curve zero-0) <(curve zero-host)
    must "one rank goes on" --resume="$(step zero-3 3)" --output-dir=one --rank-invariant
    check "and has its own files" test "$(copies one) $(frozen one)" = "1 1"
else
    skip "ranks" "no mpirun, or this build has no MPI"
fi

# ---- plans ---------------------------------------------------------------------------------
device=cuda
run plan --device=cuda
[ "$status" -eq 0 ] || device=cpu # a build without CUDA
must "plan" plan --json --lora=16 --model=llama3-8b --device=$device --dtype=bf16 --recompute=2
check "llama3-8b: 41.9 million parameters of 8 billion train" grep -q '"trainable_parameters": 41943040,\?$' out
bytes_of() { sed -n "s/^ *\"$1\": \([0-9]*\),\?$/\1/p" out; }
check "adapters in fp32" test "$(bytes_of parameters | tail -n 1)" -lt $((4 * 41943040 + 100000))
check "their two moments" test "$(bytes_of "optimiser's moments")" = $((2 * $(bytes_of parameters | tail -n 1)))
check "the base in bf16" test "$(bytes_of 'frozen parameters')" -lt $((2 * 8031000000 + 1000000))
must "what fits" plan --json --what-fits=24GB --lora=16 --model=llama3-8b --device=$device --dtype=bf16
check "--what-fits counts what trains" grep -q '"trainable_parameters": 41943040' out

bash "$recipes/llama3_8b_lora_24gb.sh" nowhere text.txt >out 2>err
check "the recipe's plan fits into 24 GB" grep -q '^within --memory-budget=22GB' out
check "and its model is asked for" grep -q -e '--model=nowhere: neither a preset' err
# Four ranks, here perhaps on fewer cores, and perhaps as root.
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_btl_vader_single_copy_mechanism=none \
    bash "$recipes/llama3_70b_lora_4x80gb.sh" nowhere text.txt >out 2>err
check "the recipe of 70B fits into four cards" grep -q '^within --memory-budget=74GB' out
if command -v mpirun >/dev/null && ldd "$TRAIN_GPT" | grep -q libmpi; then
    check "and its model is asked for, too" grep -q -e '--model=nowhere: neither a preset' err
fi

exit $((failures > 0))
