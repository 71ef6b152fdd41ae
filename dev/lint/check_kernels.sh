#!/bin/sh
# Checks that CUDA kernels say through llmc/backend/cuda/device.cuh what only nvcc understands, and prints an offence
# per line as FILE:LINE: what. Only language.cuh and language_hopper.cuh may have the thing itself, so that kernels also run on the CPU.
set -eu
cd "$(dirname "$0")/../.."

files=$(find llmc/backend/cuda tests/cuda tests/cuda_on_cpu dev/kernels -type f \( -name '*.cu' -o -name '*.cuh' \) \
    2>/dev/null | grep -vE '^llmc/backend/cuda/language(_hopper)?.cuh$' | LC_ALL=C sort)
[ -n "$files" ] || exit 0

# shellcheck disable=SC2086
LC_ALL=C awk '
    function offence(text) { print FILENAME ":" FNR ": " text; bad = 1 }
    { code = $0; sub(/\/\/.*/, "", code) }
    code ~ /__shared__/ { offence("__shared__: use SHARED or DYNAMIC_SHARED") }
    code ~ /(^|[^a-zA-Z_0-9])(asm|__asm__)([^a-zA-Z_0-9]|$)/ { offence("asm: PTX belongs into language.cuh") }
    code ~ /<<</ { offence("<<<: use launch()") }
    code ~ /__CUDA_ARCH__|__CUDACC__/ { offence("a condition on the compiler: kernels are the same source everywhere") }
    END { exit bad }
' $files
