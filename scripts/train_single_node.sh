#!/usr/bin/env bash
# Trains on this machine with several ranks: one for every GPU, or two that share the cores where there is no GPU.
#
#   scripts/train_single_node.sh [OPTION of train_gpt...]
#
#   scripts/train_single_node.sh                                 # the demo
#   NP=4 scripts/train_single_node.sh --model=gpt2-xl --seq-len=1024 --batch-size=4 --recompute=1 --zero=1
#
# Takes Open MPI's mpirun, and the whole machine: all cores, or the cores of as many ranks as there are GPUs. Memory per
# rank, step time and what the ranks send each other can be asked for without starting anything, and without the GPUs:
#   ./train_gpt plan --ranks=8 --zero=1 --device-profile=h100 --model=gpt2-xl --seq-len=1024 --batch-size=4
# The batch is per rank: without --total-batch-size an update has as many micro-batches as there are ranks.
#
# Ctrl-C, TERM or USR1: the step is finished, one checkpoint written, exit code 0. Go on with --resume=RUN_FOLDER. For a
# command that can simply be repeated, name the folder from the start: -y 1 --output-dir=runs/NAME.
#
# To adapt: NP is the number of ranks. MPIRUN_ARGS has further arguments for mpirun: --oversubscribe for more ranks than
# cores, --allow-run-as-root, -x NAME=value for the ranks' environment. $TRAIN_GPT names another binary.
#
# Read next: train_multi_node_mpi.sh (several machines), slurm/train_single_node.sbatch, dev/notes/scaling.md.
set -euo pipefail
# shellcheck source=scripts/ranks.bash
source "$(dirname "$0")/ranks.bash"

NP=${NP:-$(ranks_here)}
require_count NP
command -v mpirun >/dev/null || die "there is no mpirun; install Open MPI, or use train_multi_node_tcp.sh"

make_secret
# Not bound to single cores, since every rank computes with its share of them.
# shellcheck disable=SC2086  # words
start mpirun -np "$NP" --bind-to none ${MPIRUN_ARGS-} "$train_gpt" "$@"
wait_for_all
exit "$status"
