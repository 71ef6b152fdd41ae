#!/usr/bin/env bash
# What fused steps gain over --no-fuse, on this processor.
#
#   dev/bench/fusion.sh [--quick]      or: make bench BENCH=fusion
#
# Prints a table and, without --quick, writes dev/bench/results/fusion.md. Exits with 1 if fused steps cost time (see
# dev/bench/fusion.cpp). About four minutes on two cores.
set -euo pipefail
# shellcheck source=dev/bench/report.bash
source "$(dirname "$0")/report.bash"
load() { printf '; load of the machine at the end: %s' "$(cut -d' ' -f1-3 /proc/loadavg)"; }
write_report fusion "Fused steps against separate ones" load "$@"
