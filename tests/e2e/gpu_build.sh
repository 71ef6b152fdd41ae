#!/bin/bash
# What a build with the CUDA backend must be on a machine without a GPU: kernels without register spills, and a binary
# that starts, plans for a GPU, and trains on the CPU.
set -u
logs=("$BUILD_DIR"/obj/llmc/backend/cuda/*.cu.o.log)
. tests/e2e/lib.bash

if [ ! -e "${logs[0]}" ]; then
    skip "the CUDA build" "made without nvcc"
    exit 0
fi
counted=$(grep -lE 'Used [0-9]+ registers' "${logs[@]}" | wc -l)
check "every kernel file says what its kernels use" test "$counted" -eq "${#logs[@]}"
spills=$(grep -HE '[1-9][0-9]* bytes spill' "${logs[@]}" | grep attention | head -n 3)
check "no register spills in attention" test -z "$spills"
check "no warnings" test -z "$(grep -hi warning "${logs[@]}")"

run --device=cuda --data=text.txt --steps=1
if [ "$status" -eq 2 ]; then
    check "no GPU: one line that says why" grep -Eq -- "--device=cuda:0: (there is no|no) NVIDIA.*--device=cpu" err
    check "and nothing else" test "$(wc -l <err)" -eq 1
    train automatic --steps=2 --warmup=1
    check "--device=auto falls back to the CPU with one line" test "$(grep -c ' device  the CPU: ' err)" -eq 1
else
    skip "a machine without a GPU" "this one has one"
fi
run --device=cuda:x --data=text.txt
check "an unknown device is refused" grep -q -- "--device=cuda:x is unknown" err
must "plan for a GPU" plan --model=gpt2-xl --device=cuda --batch-size=8 --seq-len=1024 --json
check "plan for a GPU is bf16, with fp32 master weights" grep -q '"fp32 master weights": 6231427072' out
exit $((failures > 0))
