# Ranks for the end-to-end scripts, on this host: under mpirun, more of them than cores, or started one by one. Sourced
# before lib.bash, which leaves the top of the tree.
# shellcheck shell=bash

export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers may not read each other's memory
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1

# Ends the script, with a skip, where there is no mpirun or the build has no MPI.
ranks_here() {
    if ! command -v mpirun >/dev/null; then
        skip "$(basename "$0" .sh)" "no mpirun: scripts/install_deps.sh installs Open MPI"
        exit 0
    fi
    if ! ldd "$TRAIN_GPT" | grep -q libmpi; then
        skip "$(basename "$0" .sh)" "this build has no MPI"
        exit 0
    fi
}

# ranks COUNT ARGUMENTS...: under mpirun; exit code in $status, output in the files out and err.
ranks() {
    local count=$1
    shift
    timeout 120 mpirun --oversubscribe --bind-to none -np "$count" "$TRAIN_GPT" --threads=1 "$@" >out 2>err </dev/null
    status=$?
}

must_ranks() {
    local name=$1
    shift
    ranks "$@"
    [ "$status" -eq 0 ] && return
    not_ok "$name" "exit code $status: $* -- $(tail -n 5 err | tr '\n' ' ')"
    exit 1
}

# A port that nobody listens on now.
free_port() {
    local port
    for port in $(seq $((20000 + RANDOM % 20000)) 65000); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# tcp_ranks COUNT ARGUMENTS...: without mpirun. Exit codes in the files rc.RANK, output in out.RANK and err.RANK.
tcp_ranks() {
    local count=$1 port rank
    port=$(free_port)
    shift
    for ((rank = 0; rank < count; rank++)); do
        (
            RANK=$rank WORLD_SIZE=$count MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
                timeout 120 "$TRAIN_GPT" --threads=1 "$@" >out.$rank 2>err.$rank </dev/null
            echo $? >rc.$rank
        ) &
    done
    wait
}
