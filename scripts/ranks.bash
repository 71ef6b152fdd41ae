# shellcheck shell=bash disable=SC2034  # $status is for the scripts
# For the scripts that start ranks, to be sourced: starts them, and ends them well.
#
# A signal (TERM, INT, HUP, USR1, USR2 or XCPU) to the script reaches its children as $pass_on, once: all ranks of train_gpt then
# finish the step, write a checkpoint and exit with 0. It is USR1, which mpirun and srun hand to their ranks; after a
# TERM mpirun would kill them within a second. The same signal again ends them without a checkpoint.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 2; }

# The head of the script that sources this, as help.
for word in "$@"; do
    case $word in
        -h | --help)
            sed -n '2,/^set/{/^set/d;/^#SBATCH/d;s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
    esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
train_gpt=${TRAIN_GPT:-$root/train_gpt}
case $train_gpt in */*) ;; *) train_gpt=./$train_gpt ;; esac
[ -x "$train_gpt" ] || die "there is no program '$train_gpt'; run make, or name another in \$TRAIN_GPT"

pass_on=USR1
not_passed_on='' # a signal that comes to the children, too, without our help
stopped_by=''    # the first signal that came
children=()
interrupted=no

# require_count VARIABLE: its value is a number from 1.
require_count() {
    case ${!1} in '' | 0* | *[!0-9]*) die "$1=${!1}: must be a number from 1" ;; esac
}

# make_secret: one for this job, by which its ranks know each other, unless the caller has one. Children inherit it.
make_secret() {
    [ -n "${LLMC_JOB_SECRET-}" ] || LLMC_JOB_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
    export LLMC_JOB_SECRET
}

# ranks_here: one for every GPU, or two.
ranks_here() {
    local gpus
    gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || :)
    echo $((gpus > 0 ? gpus : 2))
}

stop_children() {
    interrupted=yes
    [ "${stopped_by:-$1}" = "$1" ] || return 0
    stopped_by=$1
    [ "$1" = "$not_passed_on" ] || kill "-$pass_on" "${children[@]}" 2>/dev/null || :
}

# start COMMAND...: beside this script, in a process group of its own, so that Ctrl-C reaches it as said above only.
start() {
    local signal
    for signal in TERM INT HUP USR1 USR2 XCPU; do
        # shellcheck disable=SC2064  # the signal of this turn
        trap "stop_children $signal" $signal
    done
    set -m
    "$@" </dev/null &
    set +m
    children+=($!)
}

# wait_for_all: sets $status to 0, or to the exit status of the first child started that did not succeed.
wait_for_all() {
    local child one
    status=0
    for child in "${children[@]}"; do
        while :; do
            interrupted=no one=0
            wait "$child" || one=$?
            [ $interrupted = yes ] || break # it was not the child that ended the wait
        done
        [ $status -ne 0 ] || status=$one
    done
}
