# Ranks for the end-to-end scripts, on this host: under mpirun, more of them than cores, or started one by one. Sourced
# before lib.bash, which leaves the top of the tree.
# shellcheck shell=bash disable=SC2034  # $codes is for the scripts

export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers may not read each other's memory
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1
# Open MPI leaves memory of plug-ins that it has unloaded, which no suppression can name; other scripts look for leaks.
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"

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

# A port that nobody listens on now, below those that the system gives to connections.
free_port() {
    local port
    for port in $(seq $((20000 + RANDOM % 12000)) 32700); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# ---- one by one ------------------------------------------------------------------------------------------------

pids=()                  # of the processes under way, by rank
codes=()                 # their exit codes in the end
with=()                  # words before a rank's program, such as [2]="env -C folder"; they must exec it
also=()                  # an option that only this rank is given
master_address=127.0.0.1

# start_rank RANK COUNT PORT ARGUMENTS...: without mpirun, in the background; output in the files out.RANK and err.RANK.
start_rank() {
    local rank=$1 count=$2 port=$3
    shift 3
    # shellcheck disable=SC2086  # words
    RANK=$rank WORLD_SIZE=$count MASTER_ADDR=$master_address MASTER_PORT=$port \
        ${with[rank]-} "$TRAIN_GPT" --threads=1 "$@" ${also[rank]-} >"out.$rank" 2>"err.$rank" </dev/null &
    pids[rank]=$!
}

# start_ranks COUNT ARGUMENTS...
start_ranks() {
    local count=$1 rank port
    shift
    port=$(free_port)
    for ((rank = 0; rank < count; rank++)); do
        start_rank "$rank" "$count" "$port" "$@"
    done
}

# end_of_ranks SECONDS: waits for the processes in $pids; those that take longer are killed, and "late" is their code.
end_of_ranks() {
    local rank deadline=$((SECONDS + $1))
    codes=()
    for rank in "${!pids[@]}"; do
        while kill -0 "${pids[rank]}" && [ $SECONDS -lt $deadline ]; do sleep 0.01; done
        if kill -KILL "${pids[rank]}"; then
            wait "${pids[rank]}"
            codes[rank]=late
        else
            wait "${pids[rank]}"
            codes[rank]=$?
        fi
    done
    pids=()
} 2>/dev/null # without the shell's own remarks on killed jobs

# tcp_ranks COUNT ARGUMENTS...: start and end. Exit codes also in the files rc.RANK.
tcp_ranks() {
    local rank
    start_ranks "$@"
    end_of_ranks 120
    for rank in "${!codes[@]}"; do echo "${codes[rank]}" >"rc.$rank"; done
}

must_tcp_ranks() {
    local name=$1
    shift
    tcp_ranks "$@"
    [[ ${codes[*]} =~ ^[0\ ]+$ ]] && return
    not_ok "$name" "exit codes ${codes[*]}: $* -- $(grep -h -v ' I ' err.* | head -c 400 | tr '\n' ' ')"
    exit 1
}

# full_pipe: makes `pipe`, and fills it: who writes into it waits for read_pipe.
full_pipe() {
    rm -f pipe
    mkfifo pipe
    exec 7<>pipe
    dd if=/dev/zero of=pipe oflag=nonblock bs=4096 count=100000 2>/dev/null
}
read_pipe() {
    cat pipe >/dev/null 7>&- &
    exec 7>&-
}

# ---- what comes of them ----------------------------------------------------------------------------------------

# eventually SECONDS COMMAND...: asks again and again until the command succeeds.
eventually() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return
        sleep 0.01
    done
}

# steps_done FOLDER STEPS: whether the run there has come so far.
steps_done() { [ "$(grep -c '"loss"' "$1/metrics.jsonl" 2>/dev/null)" -ge "$2" ] 2>/dev/null; }

# newest FOLDER: the step of its newest checkpoint, which a killed writer may not have come to name; nothing if it has
# none.
newest() {
    local name
    for name in .tmp-latest/latest latest; do
        [ -s "$1/checkpoints/$(cat "$1/checkpoints/$name" 2>/dev/null)/manifest.json" ] || continue
        sed 's/^step-0*//' "$1/checkpoints/$name"
        return
    done
}

# errors FILE: its lines of error, without the time.
errors() { sed -n 's/^[0-9:]* E //p' "$1"; }
