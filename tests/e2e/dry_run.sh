#!/bin/bash
# --dry-run: everything is said, nothing is done.
set -u
. tests/e2e/lib.bash

files() { find . ! -name out ! -name err ! -name check.out ! -name before | sort; }
files >before
must "--dry-run" "${tiny[@]}" --data=text.txt --output-dir=new --dry-run --recompute=2
says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; return 1; }; }
check "it names the model" says 'model .*gpt2-nano'
check "it says the plan in words" says "plan .*--recompute=sqrt: keeps every k-th layer's input"
check "it has the memory table" says 'memory .*in all'
check "stdout stays empty" test ! -s out
check "it creates nothing" test "$(files)" = "$(cat before)"

must "without --output-dir" "${tiny[@]}" --data=text.txt --dry-run
check "nor in runs/" test ! -e runs

confined --model=gpt2 --batch-size=64 --seq-len=512 --data=text.txt --dry-run
check "a run of many GB is shown without being allocated" \
    test "$status" = 0 -o "$(grep -c ' E not enough memory' err)" = 1

train run --steps=4 --checkpoint-every=2
find run | sort >before
cksum run/metrics.jsonl >metrics
must "resume" --resume=run --steps=8 --dry-run
check "on a resume it changes nothing" test "$(find run | sort)" = "$(cat before)" -a \
    "$(cksum run/metrics.jsonl)" = "$(cat metrics)"
refused "it refuses what the run would refuse" 2 "--total-batch-size=100" "${tiny[@]}" --data=text.txt --dry-run \
    --total-batch-size=100
refused "it says when memory is short" 1 "not enough memory" "${tiny[@]}" --data=text.txt --dry-run \
    --memory-budget=64KiB

exit $((failures > 0))
