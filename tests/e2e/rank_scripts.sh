#!/bin/bash
# The scripts that start several ranks, on one machine and under Slurm (of which there are stand-ins here): they train,
# a signal to them ends the run with a checkpoint and exit code 0, the same command goes on, and a job goes back into
# the queue when it ran out of time or was pre-empted, not otherwise.
set -u
root=$PWD
. tests/e2e/lib.bash
ln -s "$root/scripts" scripts
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # Open MPI leaves memory, as ranks.bash says.

model=("${tiny[@]}" "${quiet[@]}" --data=text.txt --learning-rate=1e-3 --warmup=2)
endless=100000 # steps; stopped long before
# Slurm's port is made of the job's number.
port=$((20000 + $$ % 6000))
job_id=$((6000 + $$ % 6000))

for script in scripts/*.sh scripts/recipes/*.sh; do
    [ -x "$script" ] || continue # what others source
    "$script" --help >out 2>err </dev/null
    check "$script --help" test "$?:$(grep -c "${script##*/}" out | sed 's/[1-9].*/some/'):$(wc -l <err)" = 0:some:0
done

# begin COMMAND...: in the background, in a process group of its own as of a terminal, so that it can take an INT.
begin() {
    set -m
    "$@" >out 2>err &
    job=$!
    set +m
}

# under_way FOLDER: waits until the run there has done some steps.
under_way() {
    local _
    for _ in $(seq 500); do
        [ "$(grep -c loss "$1/metrics.jsonl" 2>/dev/null)" -ge 3 ] 2>/dev/null && return
        sleep 0.02
    done
}

# stop SIGNAL FOLDER: once the run there is under way, tells the job; $status is its exit code.
stop() {
    under_way "$2"
    kill "-$1" $job
    wait $job
    status=$?
}

# step_of FOLDER: that of its newest checkpoint.
step_of() { sed 's/^step-0*//' "$1/checkpoints/latest" 2>/dev/null; }

# stopped_well NAME FOLDER: exit code 0, one checkpoint of the last step, and neither rank is left.
stopped_well() {
    local saved=$2/checkpoints steps
    steps=$(grep -c loss "$2/metrics.jsonl")
    check "$1: exit code 0" test "$status" = 0
    check "$1: one checkpoint, of the last step" \
        test "$(echo "$saved"/*)" = "$(printf '%s/latest %s/step-%08d' "$saved" "$saved" "$steps")"
    check "$1: the ranks have ended" bash -c "! pgrep -f -- '--output-dir=($PWD/)?$2( |\$)'"
}

# ends_at NAME FOLDER STEP: the command before was successful and the run has come so far.
ends_at() { check "$1" test "$status $(step_of "$2")" = "0 $3"; }

# two_more FOLDER: the steps of a run that goes on for two.
two_more() { echo "--steps=$(($(step_of "$1") + 2))"; }

if command -v shellcheck >/dev/null; then
    check "shellcheck" shellcheck -x -P "$root" "$root"/scripts/{ranks.bash,train_*.sh,slurm/*}
else
    skip "shellcheck" "it is not installed"
fi

# ---- Open MPI --------------------------------------------------------------------------------------

if command -v mpirun >/dev/null; then
    export MPIRUN_ARGS="--oversubscribe"
    [ "$(id -u)" -ne 0 ] || MPIRUN_ARGS+=" --allow-run-as-root"
    single=(env NP=2 scripts/train_single_node.sh "${model[@]}")

    "${single[@]}" --steps=4 --output-dir=single >out 2>err
    status=$?
    ends_at "two ranks on one machine" single 4
    check "as two ranks over MPI" grep -q 'ranks   2 ranks on 1 host, MPI' err
    for signal in TERM INT; do
        folder=single-$signal
        begin "${single[@]}" --steps=$endless -y 1 --output-dir="$PWD/$folder"
        stop $signal $folder
        stopped_well "SIG$signal to the script" $folder
        steps=$(two_more $folder)
        "${single[@]}" "$steps" -y 1 --output-dir="$PWD/$folder" >out 2>err
        status=$?
        ends_at "SIG$signal: the same command goes on" $folder "${steps#*=}"
        check "SIG$signal: from the checkpoint" grep -q "resumed from" err
    done
    "${single[@]}" --layers=0 >out 2>err
    check "a run that fails is a failure of the script" test $? -ne 0

    HOSTS=localhost:2 scripts/train_multi_node_mpi.sh "${model[@]}" --steps=4 --output-dir=hosts >out 2>err
    status=$?
    ends_at "ranks on the hosts that are named" hosts 4
    check "have the curve of the others" cmp <(curve single) <(curve hosts)
    env -u HOSTS -u HOSTFILE scripts/train_multi_node_mpi.sh >out 2>err
    check "no hosts: said in one line, with the remedy" test "$? $(grep -c '^train_multi.* set HOSTS=' err)" = "2 1"
else
    skip "Open MPI" "there is no mpirun"
fi

# ---- without MPI -----------------------------------------------------------------------------------

nodes=(env NODES=2 NP=1 MASTER_ADDR=127.0.0.1 "MASTER_PORT=$port")
begin "${nodes[@]}" NODE=0 scripts/train_multi_node_tcp.sh "${model[@]}" --steps=$endless --output-dir="$PWD/tcp"
first=$job
begin "${nodes[@]}" NODE=1 scripts/train_multi_node_tcp.sh "${model[@]}" --steps=$endless --output-dir="$PWD/tcp"
stop USR1 tcp
check "SIGUSR1 to one of two machines ends it" test $status = 0
wait $first
status=$?
stopped_well "and the other" tcp
[ ! -e single ] || check "TCP and MPI give the same bits" cmp <(curve single | head -n 1) <(curve tcp | head -n 1)
NODES=2 NODE=2 scripts/train_multi_node_tcp.sh >out 2>err
check "a node too many: said in one line" test "$? $(grep -c '^train_multi.* NODE=2: ' err)" = "2 1"

# ---- Slurm -----------------------------------------------------------------------------------------

# srun starts the tasks and hands them USR1; where there is a file late, it has Slurm's signal come when they are done.
# All note what they were told in calls.
mkdir bin
cat >bin/srun <<'END'
#!/bin/bash
echo "srun $*" >>calls
while [ "${1#-}" != "$1" ]; do shift; done
tasks=()
trap 'kill -USR1 "${tasks[@]}" 2>/dev/null' USR1
for ((task = 0; task < SLURM_NTASKS; ++task)); do
    SLURM_PROCID=$task "$@" &
    tasks+=($!)
done
echo "${tasks[*]}" >pids
for task in "${tasks[@]}"; do
    wait "$task"
    while kill -0 "$task" 2>/dev/null; do wait "$task"; done
    wait "$task" || { code=$?; kill "${tasks[@]}" 2>/dev/null; exit $code; }
done
[ -e late ] || exit 0
told=no
trap told=yes USR1
kill -USR1 $PPID
while [ $told = no ]; do sleep 0.02; done
END
cat >bin/scontrol <<'END'
#!/bin/bash
[ "$1" = show ] || echo "scontrol $*" >>calls
[ "$1" != show ] || cat job
END
cat >bin/sbatch <<'END'
#!/bin/bash
echo "sbatch $* [$LEVELS] collects ${SWEEP_TO_COLLECT:-nothing}" >>calls
echo "77;cluster"
END
chmod +x bin/*
export PATH=$PWD/bin:$PATH SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=$job_id SLURM_JOB_NODELIST=localhost
tasks=(env SLURM_NTASKS=2 SLURM_CPUS_PER_TASK=4)
one_node=("${tasks[@]}" scripts/slurm/train_single_node.sbatch "${model[@]}")
two_nodes=("${tasks[@]}" scripts/slurm/train_multi_node.sbatch "${model[@]}")
calls() { cat calls 2>/dev/null; }
folder=runs/slurm-$job_id

begin "${one_node[@]}" --steps=$endless
stop USR1 "$folder"
stopped_well "a job that runs out of time" "$folder"
check "it goes back into the queue" grep -qx "scontrol requeue $job_id" calls
check "srun is told the cores of a task" grep -q "^srun .*--cpus-per-task=4" calls
rm calls
steps=$(two_more "$folder")
SLURM_RESTART_COUNT=1 "${one_node[@]}" "$steps" >out 2>err
status=$?
ends_at "started again, it goes on and ends" "$folder" "${steps#*=}"
check "from the checkpoint" grep -q "resumed from" err
check "and does not go back" test -z "$(calls | grep requeue)"
touch late
OUTPUT_DIR=late-run "${one_node[@]}" --steps=3 >out 2>err
status=$?
rm late
ends_at "the signal comes when all steps are done" late-run 3
check "nor does it then" test -z "$(calls | grep requeue)"

# TERM reaches script and ranks; what it is for, scontrol knows.
for case in "cancelled 0 PreemptTime=None" "pre-empted 1 PreemptTime=2026-11-23T20:00:00"; do
    read -r name requeues field <<<"$case"
    printf '   PreemptEligibleTime=2026-11-23T19:00:00 %s\n' "$field" >job
    rm -rf calls "$folder"
    begin "${two_nodes[@]}" --steps=$endless
    under_way "$folder"
    read -ra ranks <pids
    kill -TERM $job "${ranks[@]}"
    wait $job
    status=$?
    stopped_well "a job that is $name" "$folder"
    check "a job that is $name is put back $requeues times" test "$(grep -c requeue calls)" = "$requeues"
done
rm -f calls
"${one_node[@]}" --steps=0 >out 2>err
check "a job that fails is not put back" test "$? $(grep -c requeue calls)" = "2 0"

# ---- a sweep as an array of jobs ---------------------------------------------------------------------

rm -f calls
mkdir without # its pictures are tested elsewhere
echo 'raise ImportError' >without/matplotlib.py
sweep=(env PYTHONPATH="$PWD/without" BATCH_SIZES="2 4" LEVELS="0 2" TOTAL_BATCH_SIZE=128
    scripts/slurm/sweep_array.sbatch)
options=(--layers=2 --channels=32 --heads=2 --seq-len=32 --data=text.txt)
env -u SLURM_SUBMIT_DIR -u SLURM_JOB_ID "${sweep[@]}" "${options[@]}" --steps=3 >out 2>err
check "an array of all combinations and a job that follows it" cmp calls - <<END
sbatch --parsable --array=0-3 scripts/slurm/sweep_array.sbatch ${options[*]} --steps=3 [0 2] collects nothing
sbatch --parsable --dependency=afterany:77 scripts/slurm/sweep_array.sbatch [0 2] collects 77
END
rm calls
out=runs/sweep-77
for task in 0 1 2; do
    SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$task "${sweep[@]}" "${options[@]}" --steps=3 >out 2>err
    check "task $task trains its combination" test $? -eq 0
done
begin env SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=3 "${sweep[@]}" "${options[@]}" --steps=2000
stop USR1 "$out/tasks/b4-r2/b4-r2"
if [ -e "$out/tasks/b4-r2/b4-r2/sweep.txt" ]; then
    skip "a task that runs out of time" "it was over before the signal came"
else
    check "a task that runs out of time goes back into the queue" grep -qx "scontrol requeue $job_id" calls
    check "with a checkpoint" test -e "$out/tasks/b4-r2/b4-r2/checkpoints/latest"
fi
SWEEP_TO_COLLECT=77 "${sweep[@]}" >out 2>err
check "the tables have all combinations" test "$(cut -d, -f3,4 $out/sweep.csv | tail -n +2 | tr '\n' ' ')" \
    = "b2-r0,finished b2-r2,finished b4-r0,finished b4-r2, "
check "equal curves are told" grep -q 'Batch size 2: the loss curves of 0 2 are equal bit for bit' $out/sweep.md

exit $((failures > 0))
