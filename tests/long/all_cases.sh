#!/bin/bash
# The tests of which `make test` takes some cases, with all of them.
set -u
export LLMC_LONG_TESTS=1 OMP_WAIT_POLICY=passive

for program in tests cuda_tests; do
    if [ ! -x "$BUILD_DIR/$program" ]; then
        echo "skip all cases of $program: it is not built here"
    elif mkdir "$WORK_DIR/$program" && TEST_TMPDIR=$WORK_DIR/$program "$BUILD_DIR/$program" --gtest_brief=1; then
        echo "ok all cases of $program"
    else
        echo "not ok all cases of $program: see above"
    fi
done

for script in ranks ranks_faults ranks_resume power_cut chaos; do
    mkdir "$WORK_DIR/$script"
    WORK_DIR=$WORK_DIR/$script "tests/e2e/$script.sh"
done
