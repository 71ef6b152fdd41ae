#!/usr/bin/env bash
# Trains on several machines, started from one of them by Open MPI's mpirun.
#
#   HOSTS=node1:8,node2:8 scripts/train_multi_node_mpi.sh [OPTION of train_gpt...]
#   HOSTFILE=hosts.txt    scripts/train_multi_node_mpi.sh [OPTION of train_gpt...]
#
# The number behind a host is its ranks: one for every GPU, or on CPUs one for every socket. A HOSTFILE has a line
# "node1 slots=8" for each. Inside an allocation of a batch system that this mpirun knows, neither is wanted.
#
#   HOSTS=node1:8,node2:8 scripts/train_multi_node_mpi.sh --model=llama2-7b --data='/shared/tokens_*.bin' \
#       --seq-len=4096 --batch-size=2 --recompute=1 --zero=3 -y 1 --output-dir=/shared/runs/seven
#
# Takes ssh without a password to every host, the same Open MPI and this folder at the same path on all of them, and a
# disk that all of them see: the data is read by every rank, and all write their part of a checkpoint into the run
# folder. Memory per rank, step time, and the bandwidth between machines that would hide the communication:
#   ./train_gpt plan --ranks=16 --zero=3 --device-profile=h100 --dtype=bf16 --model=llama2-7b -t 4096 -b 2 -r 1
# ZeRO 0 and 1 send least, 3 needs the least memory; dev/notes/scaling.md has both in tables.
#
# Ctrl-C, TERM or USR1 here: the step is finished, one checkpoint written, exit code 0. With -y 1 and --output-dir, as
# above, the same command goes on. A rank or machine that dies ends all ranks, with a line that names it.
#
# To adapt: MPIRUN_ARGS has further arguments for mpirun, such as --mca btl_tcp_if_include 10.0.0.0/8 where machines
# have several networks, -x NCCL_SOCKET_IFNAME=eth1 for the ranks' environment, or --prefix where Open MPI is not on the
# PATH of the others. $TRAIN_GPT names another binary.
#
# Read next: train_multi_node_tcp.sh (without MPI), slurm/train_multi_node.sbatch.
set -euo pipefail
# shellcheck source=scripts/ranks.bash
source "$(dirname "$0")/ranks.bash"

command -v mpirun >/dev/null || die "there is no mpirun; install Open MPI, or use train_multi_node_tcp.sh"
where=()
[ -z "${HOSTS-}" ] || where+=(--host "$HOSTS")
if [ -n "${HOSTFILE-}" ]; then
    [ -r "$HOSTFILE" ] || die "HOSTFILE=$HOSTFILE: cannot be read; name a file with lines such as 'node1 slots=8'"
    where+=(--hostfile "$HOSTFILE")
fi
if [ ${#where[@]} -eq 0 ] && [ -z "${SLURM_JOB_ID-}${PBS_JOBID-}${LSB_JOBID-}" ]; then
    die "no hosts; set HOSTS=node1:8,node2:8 or HOSTFILE=FILE, or use train_single_node.sh"
fi

# As many ranks as the hosts have slots.
make_secret
# shellcheck disable=SC2086  # words
start mpirun "${where[@]}" --bind-to none -x LLMC_JOB_SECRET ${MPIRUN_ARGS-} "$train_gpt" "$@"
wait_for_all
exit "$status"
