#!/usr/bin/env bash
# Trains on several machines without MPI: this script runs on each of them, starts the ranks there, and the ranks find
# each other over TCP.
#
#   export LLMC_JOB_SECRET=...                                          the same on all of them, another for every run
#   NODES=2 NODE=0 MASTER_ADDR=node1 scripts/train_multi_node_tcp.sh [OPTION of train_gpt...]      on node1
#   NODES=2 NODE=1 MASTER_ADDR=node1 scripts/train_multi_node_tcp.sh [the same options]            on the other
#
# or from anywhere; the secret goes by standard input, for what is in a command everybody can see:
#
#   secret=$(openssl rand -hex 32); node=0; for host in node1 node2; do
#       ssh $host "cd $PWD && read -r LLMC_JOB_SECRET && export LLMC_JOB_SECRET &&
#           NODES=2 NODE=$node MASTER_ADDR=node1 scripts/train_multi_node_tcp.sh ..." <<<"$secret" &
#       node=$((node + 1))
#   done; wait
#
# By the secret the ranks know each other; whoever has not got it is not let in. Without one the script makes one where
# all ranks are its own (NODES=1), and else says how (dev/notes/security.md).
#
# Takes a network between the machines without a firewall, the same binary and options on all, and a disk that all see:
# the data is read by every rank, and all write their part of a checkpoint into the run folder. Memory per rank, step
# time, and the bandwidth between machines that would hide the communication:
#   ./train_gpt plan --ranks=16 --zero=1 --device-profile=h100 --model=gpt2-xl --seq-len=1024 --batch-size=8
#
# TERM, INT or USR1 to the script on any one machine: all ranks finish the step, write one checkpoint and exit with 0.
# With -y 1 --output-dir=FOLDER the same commands go on. A rank or machine that dies ends all ranks, within
# --comm-timeout seconds and with a line that names it. The connections are not encrypted: use a network of your own.
#
# To adapt: NP is the number of ranks on every machine (one for every GPU, or two); MASTER_PORT (29500) a port of
# MASTER_ADDR that is free, another one for every run there; $TRAIN_GPT another binary.
#
# Read next: slurm/train_multi_node.sbatch, where Slurm does all this.
set -euo pipefail
# shellcheck source=scripts/ranks.bash
source "$(dirname "$0")/ranks.bash"

NODES=${NODES:-1} NODE=${NODE:-0} NP=${NP:-$(ranks_here)}
require_count NODES
require_count NP
case $NODE in '' | 0?* | *[!0-9]*) die "NODE=$NODE: must be a number from 0" ;; esac
[ "$NODE" -lt "$NODES" ] || die "NODE=$NODE: must count from 0, below NODES=$NODES"
[ "$NODES" -eq 1 ] || [ -n "${MASTER_ADDR-}" ] || die "MASTER_ADDR is not set; name the host where NODE=0 is"
if [ "$NODES" -eq 1 ]; then
    make_secret
elif [ -z "${LLMC_JOB_SECRET-}" ] && [[ $MASTER_ADDR != 127.* && $MASTER_ADDR != localhost ]]; then
    make_secret
    die "LLMC_JOB_SECRET is not set; for every machine the same, export LLMC_JOB_SECRET=$LLMC_JOB_SECRET"
fi
export MASTER_ADDR=${MASTER_ADDR:-127.0.0.1} MASTER_PORT=${MASTER_PORT:-29500} WORLD_SIZE=$((NODES * NP))

for ((rank = NODE * NP; rank < (NODE + 1) * NP; ++rank)); do
    RANK=$rank start "$train_gpt" --comm-init=tcp "$@"
done
wait_for_all
exit "$status"
