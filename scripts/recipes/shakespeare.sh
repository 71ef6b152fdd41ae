#!/usr/bin/env bash
# nanoGPT's Shakespeare: a GPT-2 of 6 layers and 10.8 million parameters reads bytes of one small text, with dropout.
#
#   scripts/recipes/shakespeare.sh TEXT [--OPTION=VALUE of train_gpt...]
#
# TEXT is nanoGPT's input.txt, 1.1 MB, or any other:
#   https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt
# Nothing is downloaded here.
#
# Needs, by plan: 2.5 GiB on the CPU in fp32, where everything is kept, and 0.8 GiB at least (then parts of it run
# again, with the same bits); 1.4 GiB on a card in bf16. Disk: 130 MB for a checkpoint, of which four are kept.
# Takes: 5000 updates of 16,384 tokens, about 4 hours on two cores (from 5919 tokens/s measured without dropout on an
# AMD EPYC, Zen 5), two minutes on an RTX 4090 (predicted, not measured). For a first look in a few minutes, nanoGPT's
# small setting: --model=gpt2-nano --batch-size=12 --seq-len=64 --steps=2000 --dropout=0
#
# Expect: the model learns the text by heart in time, so the best checkpoint by validation loss is kept
# (RUN/checkpoints/best). nanoGPT reports 1.47 nats per character at best; this recipe was not run to its end here.
# Bytes are characters in that text; differences are biases, the 5 % at the end that are held out (there 10), and the
# order.
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ $# -ge 1 ] || usage
text=$1
shift

setting=(--model=gpt2-mini --batch-size=64 --seq-len=256 --recompute=auto --dropout=0.2)
training=(--data="$text" --tokenizer=bytes --steps=5000 --learning-rate=1e-3 --beta2=0.99 --val-every=250
    --checkpoint-every=250 --keep-best)
take "$@"
plan
train
