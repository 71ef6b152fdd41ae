#!/bin/bash
# What can be wrong with the ranks themselves: how many there are, how they are to find each other, and what they are
# asked to share. One line of error that names the option or variable and the remedy; nothing hangs and nothing is left.
# shellcheck disable=SC2317  # functions are called through check
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

good=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --output-dir=new)

# ---- options ---------------------------------------------------------------------------------------------------

for value in 4 -1 two 1.5; do
    refused "--zero=$value" 2 "--zero: must be .*from 0 to 3" "${good[@]}" "--zero=$value"
done
for value in nonsense file: TCP; do
    refused "--comm-init=$value" 2 "--comm-init=$value: must be auto, mpi, tcp, file:PATH or none" "${good[@]}" \
        "--comm-init=$value"
done
for value in 0 -1 nan 1e7; do
    refused "--comm-timeout=$value" 2 "--comm-timeout: must be .*from 1 to 1e\\+06" "${good[@]}" \
        "--comm-timeout=$value"
done
refused "--ranks is for plan" 2 "--ranks: training does not have this option, only plan" "${good[@]}" --ranks=2

refused "plan for no rank" 2 "--ranks: must be .*from 1 to" plan --ranks=0
run plan --zero=2
check "plan a stage for one rank: a note" test "$status $(grep -c 'W --zero: has no effect; .*add --ranks' err)" = "0 1"
refused "plan a batch that does not divide" 2 "--total-batch-size=4096: must be a multiple of .*3 x 16 x 128 = 6144" \
    plan --ranks=3 --total-batch-size=4096
refused "plan a fixed order for 3 ranks" 2 "--rank-invariant: .* 3 ranks; use 1, 2, 4" plan --ranks=3 --rank-invariant

# ---- variables -------------------------------------------------------------------------------------------------

# variables NAME CODE PATTERN NAME=VALUE...: one process with these, beside the usual ones; an empty value is none.
variables() {
    local name=$1 code=$2 pattern=$3
    shift 3
    local -x RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 "$@"
    refused "$name" "$code" "$pattern" "${good[@]}" --comm-init=tcp --comm-timeout=1
}
for name in RANK WORLD_SIZE MASTER_ADDR MASTER_PORT; do
    variables "no $name" 2 "--comm-init: the variable $name is not set; .*set" "$name="
    [ $name = MASTER_ADDR ] || variables "$name is no number" 2 "--comm-init: $name=x1: must be a number from " $name=x1
done
variables "rank 2 of 2" 2 "--comm-init: RANK=2: must be a number from 0 to 1; .*below WORLD_SIZE=2" RANK=2
variables "rank -1" 2 "--comm-init: RANK=-1: must be" RANK=-1
variables "a million ranks" 2 "--comm-init: WORLD_SIZE=1000000: must be" WORLD_SIZE=1000000
variables "no ranks" 2 "--comm-init: WORLD_SIZE=0: must be" WORLD_SIZE=0
variables "a port beyond all" 2 "--comm-init: MASTER_PORT=70000: must be a number from 1 to 65535" MASTER_PORT=70000
variables "an address that is none" 2 "--comm-init: MASTER_ADDR=256.0.0.1: is no IPv4 address; set it to the host" \
    MASTER_ADDR=256.0.0.1

port=$(free_port)
begin=$SECONDS
variables "nobody listens" 1 \
    "rank 1: no answer from rank 0 at 127.0.0.1:$port within 1 s (.*refused.*); see that rank 0" "MASTER_PORT=$port"
check "nobody listens: after a second, not much more" test $((SECONDS - begin)) -le 3

# ---- a file ----------------------------------------------------------------------------------------------------

# from_file NAME RANK CODE PATTERN PATH
from_file() {
    local -x RANK=$2 WORLD_SIZE=2 TRAIN_GPT_JOB=this
    local late="rank 1: no answer from rank 0.* within 1 s \($4.*'$5' is stale or missing"
    refused "$1" "$3" "--comm-init=file:$5: $4|$late" \
        "${good[@]}" "--comm-init=file:$5" --comm-timeout=1
}
from_file "a file nobody writes" 1 1 "the file is missing" place
(umask 077 && echo "something else" >place)
from_file "a file with other content" 1 1 "the file has other content" place
printf 'train_gpt: where rank 0 listens\njob other\nsecret 12\nport 9\nhost 127.0.0.1\n' >place
from_file "the file of another job" 1 1 "the file is of job 'other', not 'this'" place
sed -i 's/job other/job this/' place
from_file "the file of a job that is gone" 1 1 "connection refused" place
chmod 644 place
from_file "a file that others read" 1 1 "the file can be read or written by others" place
from_file "a folder that is not there" 0 2 ".*absent.*; choose a path" absent/place
from_file "the others do not come" 0 1 "rank 1 of 2 did not come within 1 s" place
check "the file goes with rank 0" test ! -e place

# ---- ranks that do not fit together -------------------------------------------------------------------------------

# ended NAME CODES PATTERN...: the exit codes were these, by rank; and every rank has one line of error that matches its
# pattern, or has said nothing where that is "-". Nothing is left behind.
ended() {
    local name=$1 expected=$2 why='' rank
    shift 2
    [ "${codes[*]}" = "$expected" ] || why="exit codes ${codes[*]}"
    for rank in "${!codes[@]}"; do
        if [ "$1" = - ]; then
            [ ! -s "err.$rank" ] || : "${why:=rank $rank says something}"
        else
            [ "$(grep -c -v ' I ' "err.$rank")" -eq 1 ] || : "${why:=rank $rank: not one line of error}"
            errors "err.$rank" | grep -q -E -e "$1" || : "${why:=rank $rank: the error does not match $1}"
        fi
        shift
    done
    : "${why:=$(leftovers)}"
    [ -z "$why" ] || why="$why: $(grep -h -v ' I ' err.? | head -c 600 | tr '\n' ' ')"
    rm -f err.? out.?
    if [ -z "$why" ]; then ok "$name"; else not_ok "$name" "$why"; fi
}

port=$(free_port)
for rank in 0 1; do start_rank $rank 4 "$port" "${good[@]}" --comm-timeout=3; done
end_of_ranks 20
ended "ranks that never come" "1 1" "^--comm-init=tcp: ranks 2, 3 of 4 did not come within 3 s; .*--comm-timeout" \
    "^rank 1: rank 0 gave up: .*ranks 2, 3 of 4 did not come"

# What one rank finds alone, before they have met, the others hear at once.
also[2]=--frobnicate
start_ranks 3 "${good[@]}" --comm-timeout=300
end_of_ranks 20
ended "a rank whose command line is wrong" "2 2 2" "^rank 2 \(.*\): .*--frobnicate" \
    "^rank 1: rank 0 gave up: rank 2 \(.*--frobnicate" "--frobnicate"
also=([0]=--frobnicate)
start_ranks 3 "${good[@]}" --comm-timeout=300
end_of_ranks 20
ended "rank 0, whose command line is wrong" "2 2 2" "--frobnicate" \
    "^rank 1: rank 0 gave up: rank 0 \(.*--frobnicate" "^rank 2: rank 0 gave up: rank 0 \(.*--frobnicate"
also=()
start_ranks 3 "${good[@]}" --comm-timeout=300 --frobnicate
end_of_ranks 20
ended "a command line that is wrong on all ranks" "2 2 2" "^--frobnicate: there is no" "^--frobnicate: there is no" \
    "^--frobnicate: there is no"

port=$(free_port)
start_rank 0 4 "$port" "${good[@]}"
start_rank 1 3 "$port" "${good[@]}"
end_of_ranks 20
cause="rank 1 \(.*\) was started as one of 3 ranks, rank 0 \(.*\) as one of 4; give every process"
ended "another number of ranks" "2 2" "^--comm-init=tcp: $cause" "^rank 1: rank 0 gave up: .*$cause"

port=$(free_port)
start_rank 0 3 "$port" "${good[@]}"
start_rank 1 3 "$port" "${good[@]}"
one=${pids[1]}
mkdir other
cd other || exit
start_rank 1 3 "$port" "${good[@]}"
pids[2]=$one
end_of_ranks 20
cd .. || exit
mv other/err.1 err.2
ended "two processes of one rank" "2 2 2" "^--comm-init=tcp: two processes say they are rank 1, on .*its own rank" \
    "^rank 1: rank 0 gave up: .*two processes say they are rank 1" "^rank 1: rank 0 gave up: .*two processes"

# The first to listen has the port until it ends.
port=$(free_port)
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
start_rank 0 2 "$port" "${good[@]}" --total-batch-size=128
eventually 20 listens
first=("${pids[@]}")
start_rank 0 2 "$port" "${good[@]}"
end_of_ranks 20
ended "a port in use" 2 "^--comm-init=tcp: port $port is in use on .*; set MASTER_PORT to another"
check "a port in use: the first waits on" kill -0 "${first[0]}"
start_rank 1 2 "$port" "${good[@]}" --total-batch-size=128
pids[0]=${first[0]}
end_of_ranks 20
check "a port in use: the first trains" test "${codes[*]} $(newest new)" = "0 0 3"
rm -rf new

# ---- what they are to share --------------------------------------------------------------------------------------

start_ranks 4 "${good[@]}" --total-batch-size=128
end_of_ranks 20
ended "a batch that does not divide" "2 2 2 2" \
    "^rank . .*: --total-batch-size=128: must be a multiple of .*, 4 x 2 x 32 = 256 tokens" - - -
start_ranks 3 "${good[@]}" --total-batch-size=192 --rank-invariant
end_of_ranks 20
ended "a fixed order for 3 ranks" "2 2 2" "^rank . .*: --rank-invariant: .* 3 ranks; use 1, 2, 4" - -

# The emulation has one GPU.
if on_executor "ranks and GPUs"; then
    start_ranks 3 "${good[@]}" --total-batch-size=192 --device=cuda
    end_of_ranks 20
    ended "more ranks than GPUs" "2 2 2" \
        "^rank . .*: --device=cuda: 3 ranks on .*, which shows each .* 1 GPU; start one rank per GPU" - -
    start_ranks 2 "${good[@]}" --total-batch-size=128 --device=cuda:0
    end_of_ranks 20
    ended "one GPU for two ranks" "2 2" "^rank . .*: --device=cuda:0: 2 ranks on .* would share it; use --device=cuda" -
    with[1]="env TRAIN_GPT_HOST_NAME=other"
    also=(--device=cpu --device=cuda)
    start_ranks 2 "${good[@]}" --total-batch-size=128
    end_of_ranks 20
    ended "a GPU for one rank alone" "2 2" \
        "^rank . .*: --device: rank 0 computes on the CPU, rank 1 on a GPU; give all ranks one kind" -
    with=()
    also=()
    TRAIN_GPT=$on_cpu
fi

# ---- mpirun ----------------------------------------------------------------------------------------------------

ranks_here

# under_mpirun NAME PATTERN COUNT ARGUMENTS...: fails with one line of ours that matches, beside what mpirun says.
under_mpirun() {
    local name=$1 pattern=$2
    shift 2
    ranks "$@"
    if [ "$status" -eq 0 ] || [ "$status" -eq 124 ]; then
        not_ok "$name" "exit code $status"
    elif [ "$(errors err | wc -l)" -ne 1 ] || ! errors err | grep -q -E -e "$pattern"; then
        not_ok "$name" "not one line that matches $pattern: $(errors err | head -c 600 | tr '\n' ' ')"
    elif [ -n "$(leftovers)" ]; then
        not_ok "$name" "$(leftovers)"
    else
        ok "$name"
    fi
}
under_mpirun "mpirun: a batch that does not divide" "^rank . .*: --total-batch-size=128: must be .* 4 x 2 x 32 = 256" \
    4 "${good[@]}" --total-batch-size=128
under_mpirun "mpirun: a fixed order for 3 ranks" "^rank . .*: --rank-invariant: .* 3 ranks" \
    3 "${good[@]}" --total-batch-size=192 --rank-invariant
under_mpirun "mpirun: data that is not there" "^rank . .*: --data: 'absent.txt' does not exist" \
    3 "${tiny[@]}" "${quiet[@]}" --data=absent.txt --output-dir=new

exit $((failures > 0))
