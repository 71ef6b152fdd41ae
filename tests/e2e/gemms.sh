#!/bin/bash
# Matrix products on the CUDA backend whose kernels run on the CPU: what they take along in the backward, and which of
# the library's algorithms form them, or our own kernel: chosen, recorded, kept by a resume, forced by a file.
set -u
. tests/e2e/lib.bash

on_executor "products and their algorithms" || exit 0
base=(--data=text.txt --layers=2 --channels=64 --heads=2 --batch-size=1 --seq-len=48 --warmup=1 --seed=3
    --lr-schedule=constant --dtype=bf16 --device=cuda "${quiet[@]}")
fit() { must "$1" "${base[@]}" --steps="${steps-2}" --output-dir="$1" "${@:2}"; } # fit FOLDER ARGUMENTS...
weights() { find "$1/checkpoints" -name model.safetensors | sort | tail -n 1; }
says() { grep -q -F -e "$1" err || { echo "stderr has no: $1"; head -c 900 err; return 1; }; }
same() { cmp <(curve "$1") <(curve "$2") && cmp "$(weights "$1")" "$(weights "$2")"; }
differ() { ! cmp -s "$(weights "$1")" "$(weights "$2")"; }

# ---- what products take along --------------------------------------------------------------------------------------

fit fused
check "the banner says what is one" says "plan    fused: in one pass, weight gradient of fc_proj, input gradient of \
fc_proj + backward of gelu, in one pass, weight gradient of fc, in one pass, weight gradient of att_proj, in one pass, \
weight gradient of qkv"
for policy in layer sqrt attn; do
    fit "$policy" --recompute=$policy
    check "the same bits at --recompute=$policy" same fused "$policy"
done
fit separate --no-fuse
check "--no-fuse" says "plan    fused: nothing (--no-fuse)"
check "which has other bits" differ fused separate
close() {
    paste -d: <(curve fused) <(curve separate) | awk -F'[:,]' '
        { difference = $4 - $12; if (difference > 2e-3 || difference < -2e-3) { print; bad = 1 } }
        END { exit bad || NR != 2 }'
}
check "by rounding" close
LLMC_CUBLASLT_EPILOGUES=0 fit without
check "where the library has no algorithm, own kernels stay" says "plan    fused: nothing"
check "with the bits of --no-fuse" same without separate
run plan --model=gpt2-nano --layers=2 --device=cuda --dtype=bf16 -b 2 -t 32 --recompute=none,layer --list-steps
check "plan lists them in every layer of every level" \
    test "$(grep -c 'backward *layer [01], input gradient of fc_proj + backward of gelu ' out)" = 4
check "and those of one operation" \
    test "$(grep -c 'backward *layer [01], in one pass, weight gradient of qkv ' out)" = 4

# ---- algorithms ----------------------------------------------------------------------------------------------------

products=gemm-algorithms.json
check "the first is usual" grep -qx 'gemm-algorithms = "first"' fused/config.toml
check "and noted in run folder and checkpoint" test -s fused/$products
export LLMC_CUDA_CAPABILITY=86 # The library's alone: our own kernel takes no pretended time.
export LLMC_CUBLASLT_TIMES=9000,8900,1000,9000
fit timed --gemm-algorithms=timed
check "the banner says how they were chosen" \
    says "plan    products: cuBLASLt 13.0.0, its fastest algorithm for each, timed"
check "another algorithm, other bits" differ fused timed
LLMC_CUBLASLT_TIMES=1000,9000,9000,9000 fit known --gemm-algorithms=timed
check "they are timed once" same timed known
XDG_CACHE_HOME=$PWD/cache1 LLMC_CUBLASLT_TIMES=1000,9000,9000,9000 fit first --gemm-algorithms=timed
check "where nothing is kept of them, again" same first fused
XDG_CACHE_HOME=$PWD/cache2 fit layer-timed --gemm-algorithms=timed --recompute=layer
check "the same bits at another level" same timed layer-timed
XDG_CACHE_HOME=$PWD/cache3 LLMC_CUBLASLT_TIMES=10000,9800,20000,20000 fit near --gemm-algorithms=timed
check "not for less than 3 %" same near fused
unset LLMC_CUBLASLT_TIMES
fit forced --gemm-algorithms=timed/$products
check "a file forces them" same timed forced
check "which the banner names" says "the algorithms in 'timed/$products'"

steps=3 fit whole --gemm-algorithms=timed/$products
cp -r timed timed-copy
must "resume" --resume=timed --steps=3
check "a resume takes those of the run" says "plan    products: cuBLASLt 13.0.0, the algorithms that the run has had"
check "and goes on with their bits" same whole timed
export LLMC_CUBLASLT_VERSION=130100
must "another library" --resume=timed-copy --steps=3
check "says so, and takes its own" says "resume  products by cuBLASLt 13.1.0 on CUDA on the CPU, sm_86 from here on, \
with algorithms of its own; before: cuBLASLt 13.0.0 on CUDA on the CPU, sm_86; the last bits change"
refused "a file for another library" 2 "gemm-algorithms=timed/$products: it is for cuBLASLt 13.0.0 on CUDA on the CPU, \
sm_86, and here is cuBLASLt 13.1.0 on CUDA on the CPU, sm_86; take first, or timed" "${base[@]}" \
    --gemm-algorithms=timed/$products
unset LLMC_CUBLASLT_VERSION
echo '{"library": 3}' > bad.json
refused "a file that is none" 2 "gemm-algorithms=bad.json: is no such file as a run folder has" "${base[@]}" \
    --gemm-algorithms=bad.json
refused "no file" 2 "gemm-algorithms=none.json: there is no such file" "${base[@]}" --gemm-algorithms=none.json

unset LLMC_CUDA_CAPABILITY

# ---- our own kernel --------------------------------------------------------------------------------------------------

own="our own kernel for what it forms, the library's first algorithm for the rest"
fit own --gemm-algorithms=own
check "own: the banner says so" says "plan    products: cuBLASLt 13.0.0, $own"
check "GELU is part of a product" says "plan    fused: forward of fc + forward of gelu, in one pass, weight gradient of"
has_own() { tr -d ' \n' <"$1/$products" | grep -q -F '"words":[1]'; } # Of a run folder: our own kernel is named.
check "and noted" has_own own
for policy in 1 2 act; do
    fit "own-$policy" --gemm-algorithms=own --recompute=$policy
    check "the same bits at --recompute=$policy" same own "own-$policy"
done
export LLMC_CUBLASLT_TIMES=9000,9000,9000,9000
fit own-timed --gemm-algorithms=timed
check "timed: it is the fastest where the library is slow" has_own own-timed
check "with its bits" same own own-timed
LLMC_CUBLASLT_TIMES=0,9000,9000,9000 XDG_CACHE_HOME=$PWD/cache4 fit library-timed --gemm-algorithms=timed
check "and is not where it is slower" test "$(tr -d ' \n' <library-timed/$products | grep -c -F '"words":[1]')" = 0
check "with the library's" same fused library-timed
unset LLMC_CUBLASLT_TIMES
fit own-forced --gemm-algorithms=own/$products
check "a file forces it" same own own-forced
check "with GELU in the product" says "plan    fused: forward of fc + forward of gelu"

cp -r own own-copy
steps=3 fit own-whole --gemm-algorithms=own
must "resume" --resume=own --steps=3
check "a resume takes it again" says "plan    products: cuBLASLt 13.0.0, the algorithms that the run has had"
check "and goes on with its bits" same own-whole own
export LLMC_CUDA_CAPABILITY=86
must "another card" --resume=own-copy --steps=3
check "a card that cannot takes the library's" says "from here on, with algorithms of its own; before: cuBLASLt 13.0.0"
for where in own own/$products; do
    refused "another card: $where" 2 "gemm-algorithms=$where: it.*take first, or timed" "${base[@]}" \
        --gemm-algorithms=$where
done
unset LLMC_CUDA_CAPABILITY
must "own in fp32" "${base[@]/--dtype=bf16/--dtype=fp32}" --gemm-algorithms=own --steps=1 --output-dir=own-fp32
check "fp32: it has no effect, and that is said" \
    says "gemm-algorithms=own: has no effect; our own kernel multiplies bf16"

base=(--model=llama-nano --data=text.txt --layers=2 --channels=64 --heads=2 --batch-size=3 --seq-len=100 --warmup=1
    --seed=3 --lr-schedule=constant --dtype=bf16 --device=cuda --block-tokens=128 --gemm-algorithms=own "${quiet[@]}")
fit swiglu
check "SwiGLU is part of a product, and its gradient" says "plan    fused: forward of gate_up + forward of swiglu, \
input gradient of fc_proj + backward of swiglu"
fit swiglu-separate --no-fuse
check "with the bits of separate steps" same swiglu swiglu-separate
fit swiglu-tiles --recompute=layer --tile-tokens=128
check "the same bits in tiles" same swiglu swiglu-tiles
fit swiglu-act --recompute=act
check "and where it is repeated alone" same swiglu swiglu-act
run plan --model=gpt2-nano --layers=2 --device-profile=h100 --dtype=bf16 -b 2 -t 32 --recompute=act --list-steps \
    --gemm-algorithms=own
check "plan lists the forward as one step" \
    test "$(grep -c 'forward *layer [01], forward of fc + forward of gelu ' out)" = 2
check "and repeats the activation alone" test "$(grep -c 'recompute *layer [01], repeated gelu ' out)" -ge 1
run plan --model=llama-nano --layers=2 --device-profile=h100 --dtype=bf16 -b 2 -t 32 --recompute=layer --list-steps \
    --gemm-algorithms=own
check "SwiGLU's backward with the input gradient behind" \
    test "$(grep -c 'backward *layer [01], input gradient of fc_proj + backward of swiglu ' out)" = 2
refused "plan: no such card" 2 "gemm-algorithms=own: rtx4090 is no Hopper card; take first, or timed" plan \
    --device-profile=rtx4090 --gemm-algorithms=own

exit $((failures > 0))
