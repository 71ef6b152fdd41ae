#!/bin/bash
# Which kernels attention is on, and products in TF32, on the CUDA backend whose kernels run on the CPU: chosen by the
# device, compared before they are used, said, recorded, kept by a resume; the same bits at every level.
set -u
. tests/e2e/lib.bash

on_executor "the choice of kernels" || exit 0
base=(--data=text.txt --layers=2 --channels=64 --batch-size=1 --seq-len=80 --warmup=1 --seed=3
    --lr-schedule=constant "${quiet[@]}")
heads=1 dtype=bf16
fit() { # fit FOLDER ARGUMENTS...
    must "$1" "${base[@]}" --device=cuda --heads=$heads --dtype=$dtype --steps="${steps-2}" --output-dir="$1" "${@:2}"
}
weights() { find "$1/checkpoints" -name model.safetensors | sort | tail -n 1; }
says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; head -c 600 err; return 1; }; }
same() { cmp <(curve "$1") <(curve "$2") && cmp "$(weights "$1")" "$(weights "$2")"; }
differ() { ! cmp -s "$(weights "$1")" "$(weights "$2")"; }
recorded() { # recorded FOLDER KERNELS: in config.toml and in the newest checkpoint
    local newest
    newest=$(find "$1/checkpoints" -name '*.json' | sort | tail -n 1)
    grep -qx "kernels = \"$2\"" "$1/config.toml" && grep -q "\"kernels\": *\"$2\"" "$newest"
}
hopper="plan    arithmetic: attention on Hopper's kernels"
portable="plan    arithmetic: attention on the portable kernels"

# ---- the choice ----------------------------------------------------------------------------------------------------

fit hopper
cp -r hopper hopper-copy
check "a card of capability 9.0 takes Hopper's" grep -q "$hopper\$" err
check "and notes it" recorded hopper hopper
for policy in layer attn; do
    fit "$policy" --recompute=$policy
    check "the same curve at --recompute=$policy" same hopper "$policy"
done
LLMC_CUDA_SEED=7 fit other-order
check "another order of blocks and threads, the same bits" same hopper other-order
fit portable --kernels=portable
check "the portable ones by option" grep -q "$portable\$" err
check "which is noted" recorded portable portable
check "they have other bits" differ hopper portable
LLMC_CUDA_CAPABILITY=86 fit older
check "another card takes the portable ones" grep -q "$portable\$" err
check "with the bits that they have by option" same portable older
LLMC_CUDA_CAPABILITY=86 run "${base[@]}" --heads=1 --device=cuda --dtype=bf16 --steps=2 \
    --output-dir=never --kernels=hopper
check "it cannot have Hopper's" test "$status" = 2
check "and says why" says "kernels=hopper: its compute capability is 8.6, not 9.0; use --kernels=portable"
heads=2 fit narrow --kernels=hopper
check "heads they do not take" \
    says "kernels=hopper: has no effect; Hopper's are for heads of 64 or 128 channels, not 32"
check "are on the portable ones" recorded narrow portable
refused "unknown kernels" 2 "--kernels: .*ampere" "${base[@]}" --kernels=ampere

# ---- the comparison ------------------------------------------------------------------------------------------------

LLMC_CUDA_FAULT=wgmma fit wrong
warnings=$(grep -c "W attention is on the portable kernels, not on Hopper's" err)
check "wrong ones are found, and not used" test "$warnings" = 1
check "which is noted" recorded wrong portable
check "nothing is spoiled" same portable wrong

# ---- resumes -------------------------------------------------------------------------------------------------------

steps=3 fit whole
must "resume" --resume=hopper --steps=3
check "a resume takes Hopper's again" grep -q "$hopper\$" err
check "and goes on with their bits" same whole hopper
for setting in LLMC_CUDA_CAPABILITY=86 LLMC_CUDA_FAULT=wgmma; do
    export "${setting?}"
    refused "$setting: a resume stops" 2 "resume=hopper: .*on Hopper's kernels.*--kernels=portable" --resume=hopper \
        --steps=4
    unset "${setting%%=*}"
done
refused "so it does on a CPU" 2 "it is no GPU; add --kernels=portable" --resume=hopper --steps=4 --device=cpu
LLMC_CUDA_CAPABILITY=86 must "as advised" --resume=hopper --steps=4 --kernels=portable
check "with the advice it goes on" \
    says "portable kernels from here on; before: attention on Hopper's kernels; the last bits"
check "and notes that" recorded hopper portable
must "back on a Hopper card" --resume=hopper --steps=5
check "what was portable stays so" grep -q "$portable\$" err
must "unless typed" --resume=hopper --steps=6 --kernels=fastest
check "unless typed" grep -q "$hopper\$" err
must "on a CPU, as advised" --resume=hopper --steps=7 --device=cpu --kernels=portable
must "and a CPU again" --resume=hopper --steps=8
must "back from the CPU" --resume=hopper --steps=9 --device=cuda
check "it goes on as it was left" grep -q "$portable\$" err
must "evaluate" evaluate --run=portable --device=cuda --data=text.txt --seq-len=80
check "evaluation compares, too" test "$(grep -c ' [WE] ' err)" = 0

# ---- TF32 ----------------------------------------------------------------------------------------------------------

dtype=fp32 fit exact
check "fp32 is exact" grep -qx 'tf32 = false' exact/config.toml
dtype=fp32 fit tf32 --tf32
check "TF32 is in the banner" says "fp32 products in TF32"
check "and noted" grep -qx 'tf32 = true' tf32/config.toml
check "it changes bits" differ exact tf32
dtype=fp32 fit tf32-layer --tf32 --recompute=layer
check "the same ones at another level" same tf32 tf32-layer
must "resume" --resume=tf32 --steps=3
check "a resume keeps to it" says "fp32 products in TF32"
must "typed" --resume=tf32 --steps=4 --tf32=false
check "unless typed" grep -qF "$portable (" err
fit bf16 --tf32
check "bf16 has no use for it, which is said" says "--tf32: has no effect"
check "and nothing is changed" same hopper-copy bf16
must "generate" generate --run=exact --device=cuda --tf32 --length=2 --temperature=0
TRAIN_GPT=$on_cpu
must "a CPU" "${base[@]}" --device=cpu --dtype=fp32 --steps=2 --tf32 --output-dir=cpu
check "a CPU has no use for it" says "--tf32: has no effect; a CPU"
run plan --model=gpt2 -b 32 -t 1024 --device-profile=h100 --dtype=bf16 --recompute=0
check "plan knows Hopper's kernels" \
    grep -q "attention on Hopper's kernels estimated, not measured" <(tr -s '\n ' ' ' <out)
run plan --model=gpt2 -b 32 -t 1024 --device-profile=h100 --dtype=bf16 --recompute=0 --kernels=portable
check "and the portable ones" grep -q "usually within 15 %" out
refused "plan: no such card" 2 "rtx4090 is no Hopper card; use --kernels=portable" plan --device-profile=rtx4090 \
    --kernels=hopper
exit $((failures > 0))
