#!/bin/bash
# Every setting that `plan --what-fits --all-presets` names, taken: what `plan` says of the command is that it fits. In
# full, in part and with adapters, on a base as it is and in 4 bits, on a small card and a large one. Some minutes.
set -u
. tests/e2e/lib.bash

for card in rtx3060 h100; do
    must "all presets on $card" plan --what-fits --all-presets --device-profile=$card --json
    sed -n 's/^ *"\([a-z]*\)_command": "train_gpt \(.*\)",*$/\1 \2/p' out >commands
    check "$card has settings of every way" test "$(cut -d' ' -f1 commands | sort -u | wc -l)" = 4
    while read -r way command; do
        eval "must '$card, $way: $command' plan --device-profile=$card --json $command"
        check "$card, $way: $command fits" test "$(grep -c '"fits": true' out)" = 1
    done <commands
done
exit $((failures > 0))
