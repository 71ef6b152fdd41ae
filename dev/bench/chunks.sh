#!/usr/bin/env bash
# The chunks of the classifier: presets x kinds of device, bytes and cost against unchunked, and the classifier measured
# on this processor at several sizes.
#
#   dev/bench/chunks.sh [--quick]      or: make bench BENCH=chunks
#
# Prints the tables and, without --quick, writes dev/bench/results/chunks.md. Exits with 1 if a row of the table costs
# too much (see dev/bench/chunks.cpp). About three minutes on two cores that do nothing else.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
program=${BENCH_BIN:-$root/build/release/bench}/chunks
[ -x "$program" ] || { echo "chunks: no $program; run make bench BENCH=chunks" >&2; exit 2; }
case "${1-}" in
    --quick) exec "$program" --quick ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
status=0
report=$("$program") || status=$?
printf '%s\n' "$report"
printf '# Chunks of the classifier\n\n%s, %s.\n\n%s\n' "$(date +%F)" "$("${TRAIN_GPT:-$root/train_gpt}" --version)" \
    "$report" >"$root/dev/bench/results/chunks.md"
exit "$status"
