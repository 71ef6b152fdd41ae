#!/bin/bash
# Shared libraries of programs, one a line and sorted: the files of those that a package takes along. With --left the
# names of those that it leaves to the machine: the C library's own parts, which must match the kernel's loader, and
# NVIDIA's, which must match the driver; also those that programs open by name. A library that is missing is an error.
#
#   dev/dist/libraries.sh [--left] PROGRAM...
set -euo pipefail
export LC_ALL=C
left=
[ "${1-}" != --left ] || { left=yes && shift; }
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

needed=$(ldd "$@")
if grep 'not found' <<<"$needed" >&2; then
    echo "$0: there are libraries missing" >&2
    exit 1
fi
system='linux-vdso|ld-linux|lib(c|m|mvec|dl|pthread|rt|resolv|util|anl)[.]'
nvidia='lib(cuda|cublas|cudnn|nccl|nv)'
linked() {
    awk -v left=$left -v names="^($system|$nvidia)" '$2 == "=>" {
        is_left = $1 ~ names
        if (left && is_left) print $1
        if (!left && !is_left) print $3
    }' <<<"$needed"
}
opened() { [ -z "$left" ] || grep -aohE '\blib(cublasLt|nccl)\.so\.[0-9]+' "$@" || :; }
{ linked && opened "$@"; } | sort -u
