#!/usr/bin/env bash
# How long `plan --what-fits` thinks, for every preset: see what_fits.py, which this runs with what make bench hands
# over.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export TRAIN_GPT=${TRAIN_GPT:-$root/train_gpt}
exec python3 "$root/dev/bench/what_fits.py" "$@"
