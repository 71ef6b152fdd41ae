#!/bin/bash
# The unit tests of plans and of the CPU's operations as a 64-bit Arm processor runs them: built with Debian's cross
# compiler in build/aarch64, run by qemu's emulation of a processor. No timing means anything there. About half an hour.
#
# Needs the cross compiler, qemu-user and the libraries of the arm64 port: scripts/install_deps.sh --aarch64
set -u
triplet=aarch64-linux-gnu
build=build/aarch64
name="plans and the CPU's operations on a 64-bit Arm"

for need in $triplet-g++ qemu-aarch64; do
    if ! command -v $need >/dev/null; then
        echo "skip $name: no $need; scripts/install_deps.sh --aarch64 installs it"
        exit 0
    fi
done
if [ ! -e /usr/lib/$triplet/libspdlog.so ] || [ ! -e /lib/ld-linux-aarch64.so.1 ]; then
    echo "skip $name: no libraries for it; scripts/install_deps.sh --aarch64 installs them"
    exit 0
fi

unset MAKEFLAGS MFLAGS MAKELEVEL GTEST_FILTER
# Debian's libdnnl-dev of two architectures exclude each other: its headers are those of this machine.
mkdir -p $build/lib
ln -sf /usr/lib/$triplet/libdnnl.so.2 $build/lib/libdnnl.so
sources=$(find tests/backend tests/plan -name '*.cpp' | sort | tr '\n' ' ')
if ! make BUILD=$build CXX=$triplet-g++ ARCH=armv8-a CUDA=0 MPI=0 SENTENCEPIECE=0 UNITY=8 LDFLAGS=-L$build/lib \
    test_sources="$sources" $build/tests >"$WORK_DIR/build.log" 2>&1; then
    echo "not ok $name: the build failed: $(grep -m 1 'error' "$WORK_DIR/build.log")"
    exit 1
fi
echo "ok is built by $($triplet-g++ -dumpfullversion)"

# shard INDEX: one half of the tests, each processor of this machine taking one. Not those that end
# a process on purpose, and those about the machine itself, which is an emulated one.
shard() {
    OMP_WAIT_POLICY=passive GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=$1 \
        qemu-aarch64 $build/tests --gtest_filter='-*DeathTest*:Device.*:MakeBackend.*' >"$WORK_DIR/shard$1.log" 2>&1
}
shard 0 &
shard 1
second=$?
wait $!
first=$?

passed=$(cat "$WORK_DIR"/shard?.log | sed -n 's/^\[  PASSED  \] \([0-9]*\) tests*\.$/\1/p' |
    awk "{ sum += \$1 } END { print sum }")
if [ $first -eq 0 ] && [ $second -eq 0 ] && [ "${passed:-0}" -gt 0 ]; then
    echo "ok $passed tests pass there"
else
    echo "not ok $name: exit codes $first, $second; $(grep -h '^\[  FAILED  \]' "$WORK_DIR"/shard?.log | sort -u |
        head -n 20 | tr '\n' ' ')"
fi
