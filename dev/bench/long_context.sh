#!/usr/bin/env bash
# How long a sequence trains on one card, by plan: see long_context.py, which this runs.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export TRAIN_GPT=${TRAIN_GPT:-$root/train_gpt}
exec python3 "$root/dev/bench/long_context.py" "$@"
