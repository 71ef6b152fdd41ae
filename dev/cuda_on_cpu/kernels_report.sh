#!/bin/bash
# Reads what the kernels for Hopper were compiled to: the instructions that make them worth having, registers within
# what the kernel starts with, no spills, nothing that ptxas repaired (C75..: fences and waits put in, wgmma one by one,
# setmaxnreg ignored). Prints "ok NAME" or "not ok NAME: why" for each file and check; needs nvcc, but no GPU.
#
#   dev/cuda_on_cpu/kernels_report.sh OBJECT...     (make kernels-report does this)
#
# Beside each object lies what ptxas said, OBJECT.log.
set -u

if [ $# -eq 0 ]; then
    echo "skip kernels_report: nothing was compiled for Hopper; there is no nvcc, or CUDA=0"
    exit 0
fi
sass=$(command -v cuobjdump || ls "${CUDA_HOME:-/usr/local/cuda}/bin/cuobjdump" 2>/dev/null)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
check() { # check NAME COMMAND...
    local name=$1
    shift
    if "$@"; then
        echo "ok $name"
    else
        echo "not ok $name: $(tail -n 1 "$work/why" 2>/dev/null)"
        failures=$((failures + 1))
    fi
}
none() { ! grep -E "$1" "$2" >"$work/why"; }
within() { # every kernel's registers
    awk -v most="$1" '/Used [0-9]+ registers/ { for (i = 1; i < NF; ++i) if ($i == "Used" && $(i + 1) > most)
        { print "a kernel uses " $(i + 1) " registers"; bad = 1 } } END { exit bad }' "$2" >"$work/why"
}
has() {
    echo "no $1 in the machine code" >"$work/why"
    grep -qw -- "$1" "$2"
}

for object in "$@"; do
    name=$(basename "$object" .cu.o)
    log=$object.log
    check "$name: ptxas repaired nothing" none 'C75[0-9]+' "$log"
    check "$name: no spills" none '[1-9][0-9]* bytes spill' "$log"
    check "$name: registers within what 384 threads start with" within 168 "$log"
    if [ -z "$sass" ]; then
        echo "skip $name: instructions (there is no cuobjdump)"
        continue
    fi
    "$sass" -sass "$object" | sed 's/[.;]/ /g' >"$work/$name.sass"
    for instruction in HGMMA UTMALDG USETMAXREG SYNCS; do
        check "$name: $instruction" has "$instruction" "$work/$name.sass"
    done
    printf '%s: %d HGMMA, %d UTMALDG, %s registers\n' "$name" "$(grep -cw HGMMA "$work/$name.sass")" \
        "$(grep -cw UTMALDG "$work/$name.sass")" \
        "$(grep -oE 'Used [0-9]+' "$log" | cut -d' ' -f2 | sort -un | paste -sd,)"
done
exit $((failures > 0))
