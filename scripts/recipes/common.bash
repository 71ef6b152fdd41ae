# What the recipes share: sourced by them, not run.
#
# A recipe sets two arrays, `setting` (what the plan knows, too) and `training` (what only training knows), perhaps a
# third, `planning` (for the plan alone), and calls `take "$@"` with the options of its user, each as --name=value or
# --name: one that the recipe has takes its place. Then `plan`, which fails with train_gpt's advice where memory is too
# small, and `train`.
# shellcheck shell=bash disable=SC2154  # the arrays are the recipe's
planning=()
train_gpt=${TRAIN_GPT:-$(dirname "${BASH_SOURCE[0]}")/../../train_gpt}

# The head of the recipe, as help.
show_help() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; }
usage() {
    show_help >&2
    exit 2
}
case " $* " in *" -h "* | *" --help "*) show_help; exit 0 ;; esac

# without NAME ARRAY: drops --NAME and --NAME=value from it.
without() {
    local name=$1 option kept=()
    local -n array=$2
    for option in "${array[@]}"; do
        [ "${option%%=*}" = "$name" ] || kept+=("$option")
    done
    array=("${kept[@]}")
}

take() {
    local option name known
    known=$("$train_gpt" plan --help-all)
    for option in "$@"; do
        name=${option%%=*}
        case $option in
            --[a-z]*) ;;
            *)
                echo "$(basename "$0"): '$option': give options as --name=value" >&2
                exit 2
                ;;
        esac
        without "$name" setting
        without "$name" training
        if grep -qE -e "(^|[ ,])$name( |\$)" <<<"$known"; then
            setting+=("$option")
        else
            training+=("$option")
        fi
    done
}

# Of the card that is planned for, not of the one that --device names.
plan() {
    local shown=("${setting[@]}")
    [ ${#planning[@]} -eq 0 ] || without --device shown
    "$train_gpt" plan "${planning[@]}" "${shown[@]}"
}

train() { exec "$train_gpt" "${setting[@]}" "${training[@]}"; }
