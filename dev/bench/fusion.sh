#!/usr/bin/env bash
# What fused steps gain over --no-fuse, on this processor.
#
#   dev/bench/fusion.sh [--quick]      or: make bench BENCH=fusion
#
# Prints a table and, without --quick, writes dev/bench/results/fusion.md. Exits with 1 if fused steps cost time (see
# dev/bench/fusion.cpp). About four minutes on two cores.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
program=${BENCH_BIN:-$root/build/release/bench}/fusion
[ -x "$program" ] || { echo "fusion: no $program; run make bench BENCH=fusion" >&2; exit 2; }
case "${1-}" in
    --quick) exec "$program" --quick ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
status=0
report=$("$program") || status=$?
printf '%s\n' "$report"
printf '# Fused steps against separate ones\n\n%s, %s; load of the machine at the end: %s.\n\n%s\n' "$(date +%F)" \
    "$("${TRAIN_GPT:-$root/train_gpt}" --version)" "$(cut -d' ' -f1-3 /proc/loadavg)" "$report" \
    >"$root/dev/bench/results/fusion.md"
exit "$status"
