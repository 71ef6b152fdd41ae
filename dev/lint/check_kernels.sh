#!/bin/sh
# Checks kernels, and prints an offence per line as FILE:LINE: what.
#
#   - what only nvcc understands they say through llmc/backend/cuda/device.cuh, so that they also run on the CPU; only
#     language.cuh and language_hopper.cuh may have the thing itself
#   - what a file has for itself is in an inline namespace of its name: of what has no external linkage nvcc makes names
#     with a hash of the folder, and the same commit would not make the same bytes
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
    code ~ /^(namespace \{|static )/ { offence("no external linkage: use inline namespace FILE_kernels {") }
    END { exit bad }
' $files
