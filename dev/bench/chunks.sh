#!/usr/bin/env bash
# The chunks of the classifier: presets x kinds of device, bytes and cost against unchunked, and the classifier measured
# on this processor at several sizes.
#
#   dev/bench/chunks.sh [--quick]      or: make bench BENCH=chunks
#
# Prints the tables and, without --quick, writes dev/bench/results/chunks.md. Exits with 1 if a row of the table costs
# too much (see dev/bench/chunks.cpp). About three minutes on two cores that do nothing else.
set -euo pipefail
# shellcheck source=dev/bench/report.bash
source "$(dirname "$0")/report.bash"
write_report chunks "Chunks of the classifier" : "$@"
