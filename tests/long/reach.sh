#!/bin/bash
# Every plan of dev/bench/results/reach*.json, run small: bytes planned, allocated and used are equal, on the CPU and,
# where that is built, on the executor of kernels. Some minutes.
set -u
if [ -x "$BUILD_DIR/train_gpt_cuda_on_cpu" ]; then
    export TRAIN_GPT_CUDA_ON_CPU=$BUILD_DIR/train_gpt_cuda_on_cpu
fi
python3 dev/bench/reach.py --again
