#!/bin/bash
# A hundred thousand steps of a tiny model, with checkpoints, validations and samples: what the process has in memory
# does not grow. The resident set of the last fifth is that of the second within 1 %, or a page.
#
# SOAK_STEPS has another number of steps.
set -u
. tests/e2e/lib.bash

steps=${SOAK_STEPS:-100000}
"$TRAIN_GPT" --layers=2 --channels=32 --heads=2 --batch-size=2 --seq-len=16 --data=text.txt --threads=1 \
    "--steps=$steps" "--checkpoint-every=$((steps / 50))" "--val-every=$((steps / 100))" \
    --val-sequences=4 "--sample-every=$((steps / 100))" --sample-length=8 --log-every=1000 --output-dir=run >out 2>err &
pid=$!
steps_done() { wc -l <run/metrics.jsonl; }
while kill -0 $pid 2>/dev/null; do
    resident=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$pid/status 2>/dev/null)
    [ -z "$resident" ] || [ ! -e run/metrics.jsonl ] || echo "$(steps_done) $resident" >>resident
    sleep 0.2
done
wait $pid
status=$?
check "all steps are done" test "$status $(cat run/checkpoints/latest)" = "0 $(printf 'step-%08d' "$steps")"

# median FIRST LAST: of the resident set between these steps, in KiB.
median() {
    awk -v first="$1" -v last="$2" '$1 >= first && $1 < last { print $2 }' resident | sort -n |
        awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
early=$(median $((steps / 5)) $((2 * steps / 5)))
late=$(median $((4 * steps / 5)) $((2 * steps)))
echo "resident: $early KiB after a fifth of $steps steps, $late KiB at their end"
check "the resident set is flat within 1 %" awk -v a="${early:-0}" -v b="${late:-0}" \
    'BEGIN { d = b - a; exit !(a > 0 && b > 0 && d <= 0.01 * a + 4) }'

exit $((failures > 0))
