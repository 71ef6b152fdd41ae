#!/usr/bin/env bash
# Blocks of tokens: cards x presets, predicted cost against all tokens at once, and a layer measured on this processor
# at several sizes.
#
#   dev/bench/token_blocks.sh [--quick]      or: make bench BENCH=token_blocks
#
# Prints the tables and, without --quick, writes dev/bench/results/token_blocks.md. Exits with 1 if a row of the
# table costs too much (see dev/bench/token_blocks.cpp). About three minutes on two cores that do nothing else.
set -euo pipefail
# shellcheck source=dev/bench/report.bash
source "$(dirname "$0")/report.bash"
write_report token_blocks "Blocks of tokens" : "$@"
