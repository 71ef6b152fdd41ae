# shellcheck shell=bash disable=SC2034  # $not_passed_on is for ranks.bash
# For the job scripts beside it, to be sourced: ranks.bash, and when a job that was stopped goes back into the queue.
#
# Slurm sends the job script USR1 ahead of the time limit (--signal=B:USR1@120; sites with
# PreemptParameters=send_user_signal also ahead of a pre-emption). TERM comes at a pre-emption and at scancel, to the
# ranks of a job step as well. Only a job that ran out of time or was pre-empted is put back, never one that was
# cancelled, that failed or that has done all its steps.
# shellcheck source=scripts/ranks.bash
source "$(dirname "${BASH_SOURCE[0]}")/../ranks.bash"

lacked_time() {
    [ "$stopped_by" = USR1 ] && return
    [ "$stopped_by" = TERM ] && [[ $(scontrol show job "$SLURM_JOB_ID") == *" PreemptTime="[0-9]* ]]
}

# has_steps_left RUN_FOLDER
has_steps_left() {
    local steps at
    steps=$(sed -n 's/^steps = //p' "$1/config.toml" 2>/dev/null || :)
    at=$(sed 's/^step-0*//' "$1/checkpoints/latest" 2>/dev/null || :)
    [ "${at:-0}" -lt "${steps:-1}" ]
}

requeue() {
    say "stopped by $stopped_by; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
}

# train_in_job OPTION...: one rank for every task of the job. Goes on with what an earlier start of the job has done.
# Every start has a secret of its own, which srun hands to the ranks.
train_in_job() {
    local folder=${OUTPUT_DIR:-runs/slurm-$SLURM_JOB_ID}
    not_passed_on=TERM
    make_secret
    case ${SLURM_EXPORT_ENV-} in
        '' | ALL*) ;;
        NONE | NIL) export SLURM_EXPORT_ENV=LLMC_JOB_SECRET ;;
        *) export SLURM_EXPORT_ENV=$SLURM_EXPORT_ENV,LLMC_JOB_SECRET ;;
    esac
    # srun forgets the job's --cpus-per-task since Slurm 22.05.
    start srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
        "$train_gpt" --comm-init=tcp -y 1 --output-dir="$folder" "$@"
    wait_for_all
    # shellcheck disable=SC2154  # wait_for_all sets it
    case $status in
        0 | 138 | 143) ;; # the last two: USR1 or TERM came before there was anything to save
        *) exit "$status" ;;
    esac
    if lacked_time && has_steps_left "$folder"; then requeue; else exit "$status"; fi
}
