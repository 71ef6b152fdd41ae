#!/bin/bash
# Help: the short one, all of it, `explain`, the manual page, completion; what is no word.
# shellcheck disable=SC2034
set -u
. tests/e2e/lib.bash

must "--help" --help
check "is short" test "$(grep -c '^  -' out)" -le 18
check "says where the rest is" grep -q 'train_gpt --help-all' out
commands='plan|generate|evaluate|import|export|report|tokenize|explain|completion|manual'
check "has every subcommand" test "$(grep -cE "^  ($commands) " out)" = 10
check "keeps to the width" test "$(awk '{ if (length($0) > most) most = length($0) } END { print most }' out)" -le 80
for columns in 40 50 59; do
    for command in "" plan generate; do
        # Words that cannot be broken, such as the program's path, may be longer.
        # shellcheck disable=SC2086
        COLUMNS=$columns must "$command in $columns columns" $command --help-all
        check "keeps to $columns columns" awk -v most="$columns" '
            length($0) > most { for (i = 1; i <= NF; i++) if (length($i) > most - 8) next; print; bad = 1 }
            END { exit bad }' out
    done
done
COLUMNS=120 must "wider" --help
check "is shorter" test "$(wc -l <out)" -lt 110
must "--help-all" --help-all
check "has all" test "$(grep -c '^  -' out)" -gt 80
must "of plan" plan --help-all
check "has all of its own" grep -q -- '--frontier' out

for word in recompute r sqrt 2 auto llama3-8b d12 rtx4090 plan presets levels cards memory-budget; do
    must "explain $word" explain "$word"
    check "explain $word: says something" test "$(wc -c <out)" -gt 40
done
for pair in "--recompute recompute" "-r recompute" "RTX4090 rtx4090" "Llama3-8B llama3-8b" "LEVELS levels"; do
    read -r word same <<<"$pair"
    must "explain $same" explain "$same"
    cp out of-same
    must "explain $word" explain "$word"
    check "explain $word: as $same" cmp out of-same
done
refused "an option with a value" 2 "there is no 'seq-len=no'; did you mean seq-len" explain --seq-len=no
must "--help" explain --help
check "is the help of explain" grep -q '^Usage: .* explain' out
must "a default and a range" explain batch-size
check "are said" grep -q 'from 0\|from 1' out
check "with the key in config.toml" grep -q 'batch-size in \[' out
must "nothing" explain
check "says what there is" grep -q 'presets, levels, cards' out
for pair in "offlod offload" "lama3-8b llama3-8b" "rtx4091 rtx4090" "learning_rate learning-rate"; do
    read -r word meant <<<"$pair"
    refused "explain $word" 2 "did you mean $meant" explain "$word"
done
refused "nonsense" 2 "there is no 'qqqqqqqq'; .*train_gpt explain" explain qqqqqqqq

must "completion for bash" completion bash
cp out script.bash
check "is a script" bash -n script.bash
completes() { # completes LINE...: what the line may end in
    local COMP_LINE=$* COMP_POINT COMP_WORDS COMP_CWORD COMPREPLY=()
    COMP_POINT=${#COMP_LINE}
    read -ra COMP_WORDS <<<"$COMP_LINE"
    [ "${COMP_LINE: -1}" != ' ' ] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    # shellcheck source=/dev/null
    . ./script.bash
    _train_gpt
    printf '%s ' "${COMPREPLY[@]}"
}
check "an option" test "$(completes 'train_gpt --learning-r')" = "--learning-rate= "
check "a level" test "$(completes 'train_gpt --recompute=sq')" = "sqrt "
check "a preset" grep -q 'llama3-8b ' <(completes 'train_gpt plan --model=llama3-')
check "a preset as the next word" test "$(completes 'train_gpt --model gpt2-x')" = "gpt2-xl "
check "a level behind its letter" test "$(completes 'train_gpt plan -r sq')" = "sqrt "
check "a file as the next word" test "$(completes 'train_gpt --data scrip')" = "script.bash "
check "no file for a number" test "$(completes 'train_gpt --steps scrip')" = " "
check "nothing behind a flag" test "$(completes 'train_gpt plan --json ')" = " "
check "a card of plan" test "$(completes 'train_gpt plan --device-profile=rtx409')" = "rtx4090 "
check "a subcommand" test "$(completes 'train_gpt gen')" = "generate "
check "options of that alone" test "$(completes 'train_gpt generate --batch-siz')" = " "
must "completion for zsh" completion zsh
if command -v zsh >/dev/null; then check "is a script for zsh" zsh -n out; fi
refused "another shell" 2 "bash or zsh, not 'fish'" completion fish
refused "no shell" 2 "train_gpt completion bash" completion

must "the manual" manual
check "is one" grep -q '^\.TH TRAIN_GPT 1' out
check "has options" grep -q 'learning\\-rate' out
if command -v man >/dev/null && command -v groff >/dev/null; then
    check "is set without a warning" test -z "$(groff -man -Tascii -ww out 2>&1 >/dev/null)"
fi
exit $((failures > 0))
