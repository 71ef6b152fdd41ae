#!/usr/bin/env bash
# Which models train in full on which card, by plan: see reach.py, which this runs with what make bench hands over.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export TRAIN_GPT=${TRAIN_GPT:-$root/train_gpt}
exec python3 "$root/dev/bench/reach.py" "$@"
