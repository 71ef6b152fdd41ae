#!/bin/bash
# Tokenizers as other programs write them, where their cases are there: ids, separators and refusals, by the cases' own
# runner.
set -u
cases=$PWD/../shared/cases
. tests/e2e/lib.bash

if [ ! -e "$cases/try.py" ] || ! command -v python3 >/dev/null; then
    skip "cases of tokenizers" "the cases or python3 are not there"
    exit 0
fi
python3 "$cases/try.py" "$TRAIN_GPT" "$cases" --kind=tokenizers >rows 2>&1
grep -E '^(pass|refused|wrong)' rows >judged
check "there are cases" test -s judged
while read -r verdict level name why; do
    case $verdict:$level in
        pass:* | refused:wish) ok "$name" ;;
        *) not_ok "$name" "$verdict: $why" ;;
    esac
done <judged

exit $((failures > 0))
