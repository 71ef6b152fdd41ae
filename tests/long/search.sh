#!/bin/bash
# The search for plans against brute force, one layer deeper than in every run of the tests.
set -u
if LLMC_LONG_TESTS=1 "$BUILD_DIR/tests" --gtest_brief=1 --gtest_filter='*SearchTest.MatchesBruteForce*'; then
    echo "ok the search finds what brute force finds, six layers deep"
else
    echo "not ok the search against brute force: see above"
fi
