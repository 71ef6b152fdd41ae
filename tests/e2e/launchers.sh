#!/bin/bash
# Whoever starts the processes: one of several never trains alone unsaid, what can never work is refused at once by
# every rank, steps of one Slurm job keep apart, addresses may be IPv6, and a launcher that binds to few cores is named.
# shellcheck disable=SC2317  # functions are called through check
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash
unset OMP_NUM_THREADS

model=("${tiny[@]}" "${quiet[@]}" --data=text.txt --device=cpu)
three=("${model[@]}" --steps=3)

# ---- one of several, alone ---------------------------------------------------------------------------------------

# lonely CODE PATTERN NAME=VALUE...: a process with these variables and no options about ranks ends with an error, or
# (CODE 0) trains after a warning, that matches; and with --comm-init=none nothing is said.
lonely() {
    local code=$1 pattern=$2
    shift 2
    local -x "$@"
    if [ "$code" -ne 0 ]; then
        refused "$*" "$code" "$pattern" "${three[@]}" --output-dir=new
    else
        run "${three[@]}" --output-dir=alone
        check "$*: a warning" bash -c "[ $status -eq 0 ] && grep -q -E -e ' W .*$pattern' err"
        rm -rf alone
    fi
    run "${model[@]}" --dry-run --comm-init=none
    check "$*: nothing with --comm-init=none" bash -c "[ $status -eq 0 ] && ! grep -q -e ' W .*comm-init' err"
}
lonely 2 "MASTER_ADDR is not set; .*--comm-init=none" RANK=1 WORLD_SIZE=2
lonely 2 "MASTER_PORT is not set; .*--comm-init=none" RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1
lonely 2 "the variable RANK is not set" WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500
lonely 2 "RANK=5: must be a number from 0 to 0; .*below WORLD_SIZE=1" RANK=5 WORLD_SIZE=1
lonely 2 "LOCAL_WORLD_SIZE=2" LOCAL_RANK=1 LOCAL_WORLD_SIZE=2
# Of an MPI, or of what may start one: MPI finds nobody, or the build has none and is not told where rank 0 is.
lonely 2 "PMI_SIZE=2.*--comm-init=tcp|MASTER_ADDR" PMI_RANK=1 PMI_SIZE=2
lonely 2 "PMI_SIZE=2.*--comm-init=tcp|MASTER_PORT" PMI_RANK=0 PMI_SIZE=2 MPI_LOCALNRANKS=2
lonely 2 "OMPI_COMM_WORLD_SIZE=2.*|MASTER_ADDR" OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2
lonely 2 "MV2_COMM_WORLD_SIZE=2|MASTER_ADDR" MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_SIZE=2
lonely 2 "PALS_RANKID=1" PALS_RANKID=1
lonely 2 "FLUX_JOB_SIZE=4|MASTER_ADDR" FLUX_TASK_RANK=0 FLUX_JOB_SIZE=4
lonely 2 "JSM_NAMESPACE_SIZE=2|MASTER_ADDR" JSM_NAMESPACE_RANK=1 JSM_NAMESPACE_SIZE=2
lonely 2 "PMIX_RANK=1" PMIX_RANK=1
lonely 2 "MPI_LOCALNRANKS=2" MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2
lonely 2 "PMI_ID=1" PMI_ID=1
# Tasks that may be independent on purpose.
lonely 0 "2 tasks.*--comm-init=tcp" SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=2
lonely 0 "2 tasks.*--comm-init=tcp" SLURM_JOB_ID=7 SLURM_PROCID=1 SLURM_NTASKS=2
lonely 0 "LOCAL_RANK=0, but WORLD_SIZE is not set" LOCAL_RANK=0
lonely 0 "RANK=1, but WORLD_SIZE is not set" RANK=1
lonely 0 "blaunch" LSF_PM_TASKID=1 LSB_DJOB_NUMPROC=4

warnings=' W .*(comm-init|has bound)'

# silent NAME=VALUE...: nothing to warn of.
silent() {
    local -x "$@"
    run "${model[@]}" --dry-run
    check "$*: no warning" bash -c "[ $status -eq 0 ] && ! grep -q -E '$warnings' err"
}
silent SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_NNODES=2 SLURM_LOCALID=0
silent SLURM_JOB_ID=7 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_NTASKS=8
silent SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3
silent RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=localhost MASTER_PORT=29500
silent LSB_JOBID=8 LSB_DJOB_NUMPROC=4
silent PBS_JOBID=9 PBS_TASKNUM=1

# Other commands are one process's work, and many would write the same files.
PMI_RANK=0 PMI_SIZE=2 "$TRAIN_GPT" tokenize --train-bpe --vocab-size=300 --out=ids text.txt >out 2>err
check "another command warns" bash -c "[ $? -eq 0 ] && grep -q ' W .*PMI_SIZE=2.*all of the work' err"
"$TRAIN_GPT" tokenize --train-bpe --vocab-size=300 --out=other text.txt >out 2>err
check "and does not when it is alone" bash -c "[ $? -eq 0 ] && ! grep -q ' W .*all of the work' err"
SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_JOB_NODELIST=localhost MASTER_PORT=$(free_port) "$TRAIN_GPT" \
    "${three[@]}" --output-dir=new --comm-init=tcp --comm-timeout=1 >out 2>err
check "a batch script's own process says why the others may not come" \
    grep -q ' W .*SLURM_NTASKS=2.*start it with srun' err

# ---- addresses -----------------------------------------------------------------------------------------------------

# at_once NAME PATTERN RANK=VALUE...: both ranks refuse these, though they would wait for each other for minutes.
begin=$SECONDS
at_once() {
    local pattern=$1 rank
    shift
    for rank in 0 1; do
        local -x RANK=$rank WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 "$@"
        refused "rank $rank: $*" 2 "$pattern" "${three[@]}" --output-dir=new --comm-init=tcp --comm-timeout=300
    done
}
at_once "MASTER_ADDR=tcp://127.0.0.1: is a URL; leave out 'tcp://'" MASTER_ADDR=tcp://127.0.0.1
at_once "MASTER_ADDR=127.0.0.1:29500: has a port; give that in MASTER_PORT=29500" MASTER_ADDR=127.0.0.1:29500
at_once "MASTER_ADDR=\[::1\]:29500: has a port" "MASTER_ADDR=[::1]:29500"
at_once "MASTER_ADDR=node 1: is neither" "MASTER_ADDR=node 1"
at_once "MASTER_ADDR= : is neither" "MASTER_ADDR= "
at_once "MASTER_ADDR is not set" MASTER_ADDR=
at_once "MASTER_ADDR=1.2.3.4.5: is no IPv4 address" MASTER_ADDR=1.2.3.4.5
at_once "MASTER_ADDR=::g: is no IPv6 address" MASTER_ADDR=::g
at_once "MASTER_PORT=65536: must be a number from 1 to 65535" MASTER_PORT=65536
at_once "MASTER_PORT=-1: must be" MASTER_PORT=-1
at_once "RANK=2: must be a number from 0 to 1" RANK=2
at_once "WORLD_SIZE=2.0: must be a number" WORLD_SIZE=2.0
check "all of that at once" test $((SECONDS - begin)) -lt 120

must_tcp_ranks "IPv4" 2 "${three[@]}" --output-dir=by-ipv4
if grep -q ' lo$' /proc/net/if_inet6 2>/dev/null; then
    for master_address in ::1 "[::1]" localhost; do
        tcp_ranks 2 "${three[@]}" --output-dir="by-$master_address" --comm-timeout=60
        check "MASTER_ADDR=$master_address: both ranks end well" test "${codes[*]}" = "0 0"
        check "MASTER_ADDR=$master_address: the same bits" cmp <(curve by-ipv4) <(curve "by-$master_address")
    done
    master_address=::1
    port=$(free_port)
    start_rank 1 2 "$port" "${three[@]}" --output-dir=new --comm-timeout=1
    end_of_ranks 20
    check "nobody there: the address is shown with its port" grep -q "no answer from rank 0 at \[::1\]:$port" err.1
else
    skip "IPv6" "this host has none"
fi
master_address=127.0.0.1

# ---- two steps of one Slurm job ------------------------------------------------------------------------------------

# step ID FOLDER: two tasks of that step, in the background.
tasks=()
step() {
    local task
    for task in 0 1; do
        SLURM_JOB_ID=$((6000 + $$ % 6000)) SLURM_STEP_ID=$1 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=4 SLURM_PROCID=$task \
            SLURM_JOB_NODELIST=localhost SLURM_STEP_NODELIST=localhost "$TRAIN_GPT" --threads=1 "${model[@]}" \
            --steps=60 --comm-init=tcp --comm-timeout=60 --output-dir="$2" >"out.$1.$task" 2>"err.$1.$task" &
        tasks+=($!)
    done
}
step 0 first
step 1 second
codes=()
for task in "${tasks[@]}"; do
    wait "$task"
    codes+=($?)
done
check "two steps of a job at once: all ranks end well" test "${codes[*]}" = "0 0 0 0"
check "each in its folder" test "$(newest first) $(newest second)" = "60 60"

# ---- cores -----------------------------------------------------------------------------------------------------------

ranks_here
if [ "$(nproc)" -lt 2 ]; then
    skip "bound to few cores" "there is one"
    exit $((failures > 0))
fi
threads() { grep -o -E '[0-9]+ threads?' err | head -n 1; }
run "${model[@]}" --dry-run
free=$(threads)
if [ "$free" = "1 thread" ]; then
    skip "bound to few cores" "there is one to use"
    exit $((failures > 0))
fi
if [ "$(mpirun --bind-to core -np 1 nproc 2>err </dev/null)" != 1 ]; then
    skip "bound to few cores" "mpirun cannot bind to one processor here"
    exit $((failures > 0))
fi
mpirun --bind-to core -np 1 "$TRAIN_GPT" "${model[@]}" --dry-run >out 2>err </dev/null
check "mpirun that binds: a warning names the option" \
    grep -q ' W .*mpirun has bound this process to 1 of the [0-9]* cores .*mpirun --bind-to none' err
mpirun --bind-to none -np 1 "$TRAIN_GPT" "${model[@]}" --dry-run >out 2>err </dev/null
check "mpirun --bind-to none: no warning" bash -c "! grep -q -E '$warnings' err"
check "and all cores" test "$(threads)" = "$free"
mpirun --bind-to core -np 1 "$TRAIN_GPT" "${model[@]}" --threads=1 --dry-run >out 2>err </dev/null
check "who asks for one thread is not warned" bash -c "! grep -q -E '$warnings' err"
mpirun --cpu-set 0 --oversubscribe --bind-to core:overload-allowed -np 2 "$TRAIN_GPT" "${model[@]}" \
    --dry-run --total-batch-size=128 >out 2>err </dev/null
check "two ranks on one core: the first warns for all" test "$(grep -c ' W .*has bound the ranks' err)" = 1
silent SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_NTASKS=1
SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_NTASKS=1 taskset -c 0 \
    "$TRAIN_GPT" "${model[@]}" --dry-run >out 2>err
check "srun that binds: a warning names its options" grep -q ' W .*srun --cpu-bind=none, .*--cpus-per-task' err
SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_CPUS_ON_NODE=1 taskset -c 0 \
    "$TRAIN_GPT" "${model[@]}" --dry-run >out 2>err
check "what the job was not given is nobody's fault" bash -c "! grep -q -E '$warnings' err"

exit $((failures > 0))
