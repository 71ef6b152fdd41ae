#!/bin/bash
# Predicted step times: a probe's say that they are uncalibrated and change no size, a calibration's win over them, and
# another device's profile is never mixed up with this machine.
set -u
. tests/e2e/lib.bash

export XDG_CACHE_HOME=$PWD/cache
shape=(--layers=3 --channels=64 --heads=2 --seq-len=64 --batch-size=4 --vocab-size=257 --dtype=fp32)
export COLUMNS=200 # Lines are whole.
uncalibrated='a probe of .*; uncalibrated, usually within 15 %'

must "plan" plan "${shape[@]}" --device=cpu
check "plan says that its times are uncalibrated, and their usual error" grep -q "^step times: $uncalibrated$" out
must "--dry-run" "${shape[@]}" --device=cpu --data=text.txt --dry-run
check "so does the banner" grep -q "predicted [0-9.]* ms per step ($uncalibrated)" err
must "--frontier" plan "${shape[@]}" --device=cpu --frontier
check "and the frontier" grep -q "step times: $uncalibrated" out

# What a probe finds is never twice the same.
plan_of() { # sizes and choices, without the times
    "$TRAIN_GPT" plan "${shape[@]}" --device=cpu --json --recompute=0,1,2,auto --memory-budget="$budget"B 2>err
}
run plan "${shape[@]}" --device=cpu --json --recompute=1
budget=$(sed -n 's/.*"total_bytes": \([0-9]*\).*/\1/p' out)
plan_of >first
plan_of >second
check "two probes differ" test "$(grep predicted_step_ms first)" != "$(grep predicted_step_ms second)"
sed -i "/predicted_step_ms\|repeated_ms_each/d" first second
check "sizes and choices do not" cmp first second

must "--calibrate" plan "${shape[@]}" --device=cpu --recompute=0 --calibrate
check "a calibration is no probe" grep -q "^step times: measured on " out
must "later" plan "${shape[@]}" --device=cpu --recompute=0,1
check "and wins over one from then on" grep -q "^step times: measured on " out
must "another shape" plan "${shape[@]/--batch-size=4/--batch-size=8}" --device=cpu --recompute=0
check "but not at another shape" grep -q "^step times: $uncalibrated$" out

run plan "${shape[@]}" --device-profile=h100 --recompute=0
check "a profile of another device" grep -q "^step times: analytic, h100; uncalibrated, usually within 15 %$" out
cp out first
run plan "${shape[@]}" --device-profile=h100 --recompute=0
check "has the same times whatever this machine does" cmp -s out first
run plan "${shape[@]}" --device-profile=rtx3090 --recompute=0
check "a device that nobody has measured" grep -q "^step times: analytic, rtx3090; uncalibrated, error unknown$" out

exit $((failures > 0))
