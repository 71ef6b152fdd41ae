#!/bin/bash
# Matrix products on the CUDA backend whose kernels run on the CPU: what they take along in the backward, and which of
# the library's algorithms form them: chosen, recorded, kept by a resume, forced by a file.
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
check "says so, and takes its own" says "resume  products by cuBLASLt 13.1.0 on CUDA on the CPU, sm_90 from here on, \
with algorithms of its own; before: cuBLASLt 13.0.0 on CUDA on the CPU, sm_90; the last bits change"
refused "a file for another library" 2 "gemm-algorithms=timed/$products: it is for cuBLASLt 13.0.0 on CUDA on the CPU, \
sm_90, and here is cuBLASLt 13.1.0 on CUDA on the CPU, sm_90; take first, or timed" "${base[@]}" \
    --gemm-algorithms=timed/$products
unset LLMC_CUBLASLT_VERSION
echo '{"library": 3}' > bad.json
refused "a file that is none" 2 "gemm-algorithms=bad.json: is no such file as a run folder has" "${base[@]}" \
    --gemm-algorithms=bad.json
refused "no file" 2 "gemm-algorithms=none.json: there is no such file" "${base[@]}" --gemm-algorithms=none.json

exit $((failures > 0))
