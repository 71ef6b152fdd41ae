#!/bin/bash
# The README's commands, as a newcomer runs them: in a fresh clone, one block after the other. Builds and trains: about
# half an hour on two cores (a compiler cache shortens it).
set -u
root=$PWD
. tests/e2e/lib.bash

if ! git -C "$root" rev-parse >/dev/null 2>&1; then
    skip "the README in a fresh clone" "this tree is no clone"
    exit 0
fi
must_clone() { git clone -q "$root" clone 2>clone.err; }
if ! must_clone; then
    not_ok "a clone" "$(head -c 300 clone.err)"
    exit 1
fi
cd clone || exit 1
unset TRAIN_GPT BUILD_DIR
dev/readme.py run
status=$?
check "no file of the tree was changed" test -z "$(git status --porcelain --untracked-files=no)"
exit $((status != 0 || failures > 0))
