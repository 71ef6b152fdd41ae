#!/usr/bin/env bash
# What a head for the rows that count, and attention within documents, save on this processor.
#
#   dev/bench/scored_rows.sh [--quick]      or: make bench BENCH=scored_rows
#
# Prints a table and, without --quick, writes dev/bench/results/scored_rows.md. Exits with 1 if what runs for less takes
# longer (see dev/bench/scored_rows.cpp). About two minutes on two cores.
set -euo pipefail
# shellcheck source=dev/bench/report.bash
source "$(dirname "$0")/report.bash"
load() { printf '; load of the machine at the end: %s' "$(cut -d' ' -f1-3 /proc/loadavg)"; }
write_report scored_rows "Rows that count, and documents side by side" load "$@"
