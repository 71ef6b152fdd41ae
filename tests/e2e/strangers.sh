#!/bin/bash
# Who is not of the job gets no part in it: a wrong secret or none, garbage, announced terabytes, and a thousand silent
# connections. Training goes on, or ends with one line; memory stays as it is. (Recorded conversations: unit tests.)
# shellcheck disable=SC2317  # functions are called through check and eventually
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=128 --lr-schedule=constant --warmup=0)
must_tcp_ranks "without strangers" 2 "${setting[@]}" --steps=20 --output-dir=quiet

# one_line NAME CODES PATTERN FILE: the ranks ended with these codes, and the file has one line of error that matches.
one_line() {
    if [ "${codes[*]}" != "$2" ]; then
        not_ok "$1" "exit codes ${codes[*]}: $(grep -h -v ' I ' err.? | head -c 400)"
    elif [ "$(errors "$4" | wc -l)" -ne 1 ] || ! errors "$4" | grep -q -E -e "$3"; then
        not_ok "$1" "not one line that matches: $(errors "$4" | head -c 400)"
    else
        ok "$1"
    fi
}

# ---- a secret, or none -----------------------------------------------------------------------------------------

patience=2
! is_sanitized || patience=10
# So that what is released does not count.
export ASAN_OPTIONS="quarantine_size_mb=0:thread_local_quarantine_size_kb=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
with=("env LLMC_JOB_SECRET=the-secret-of-rank-0" "env LLMC_JOB_SECRET=another-that-is-not-it")
start_ranks 2 "${setting[@]}" --steps=3 --output-dir=new --comm-timeout="$patience"
end_of_ranks 30
one_line "another secret: rank 0" "1 1" \
    "rank 1 of 2 did not come within $patience s; .* did not know .*LLMC_JOB_SECRET" err.0
one_line "another secret: rank 1" "1 1" "no answer from rank 0 .*does not know this job's secret" err.1
with=("env LLMC_JOB_SECRET=the-secret-of-rank-0")
start_ranks 2 "${setting[@]}" --steps=3 --output-dir=new --comm-timeout="$patience"
end_of_ranks 30
one_line "a secret on rank 0 alone" "1 1" "does not know this job's secret" err.1
with=()
export LLMC_JOB_SECRET=short
start_ranks 2 "${setting[@]}" --steps=3 --output-dir=new
end_of_ranks 20
one_line "what is no secret" "2 2" "^LLMC_JOB_SECRET: is 5 characters long, .*export LLMC_JOB_SECRET=" err.0
check "it is not repeated" bash -c '! grep -q -w short err.0'
unset LLMC_JOB_SECRET

master_address=$(hostname -I 2>/dev/null | tr ' ' '\n' | grep -m 1 -x '[0-9.]*')
if [ -n "$master_address" ]; then
    start_ranks 2 "${setting[@]}" --steps=3 --output-dir=new
    end_of_ranks 20
    one_line "beyond the loopback without a secret" "2 2" "MASTER_ADDR=$master_address .*--comm-insecure" err.1
    advice=$(errors err.0 | grep -o 'export LLMC_JOB_SECRET=[0-9a-f]*')
    (eval "$advice" && tcp_ranks 2 "${setting[@]}" --steps=3 --output-dir=advised)
    check "the line it advises works" cmp <(curve quiet | head -n 3) <(curve advised)
    must_tcp_ranks "insecure" 2 "${setting[@]}" --steps=3 --output-dir=insecure --comm-insecure
    check "--comm-insecure says what it means" grep -q ' W --comm-insecure: who reaches .* can join' err.0
else
    skip "beyond the loopback" "this host has no other address"
fi
master_address=127.0.0.1

# ---- a flood ---------------------------------------------------------------------------------------------------

export LLMC_JOB_SECRET=a-secret-for-the-flood
port=$(free_port)
start_rank 0 2 "$port" "${setting[@]}" --steps=20 --output-dir=flooded --comm-timeout=60
rank_0=${pids[0]}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
eventually 20 listens
memory() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$rank_0/status"; }
before=$(memory)
idle=()
ulimit -S -n "$(ulimit -H -n)" # For a thousand files open here; what rank 0 may open is as it was.
for ((i = 0; i < 1000; i++)); do
    { exec {fd}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || break
    idle+=("$fd")
    case $((i % 4)) in # A header is "GTG2", a type and a length, here of a terabyte.
        1) printf 'GTG2\0\0\0\0\0\0\0\0\0\1\0\0' >&"$fd" ;;
        2) head -c 3000 /dev/zero >&"$fd" ;;
        3) printf 'GTG2' >&"$fd" ;;
    esac 2>/dev/null
done
check "a thousand connections are made" test "${#idle[@]}" -ge 1000
sleep 0.5
check "rank 0's memory is flat" awk -v a="$before" -v b="$(memory)" 'BEGIN { print a, b; exit !(b < a + 4096) }'
check "it holds few of them" test "$(find "/proc/$rank_0/fd" -mindepth 1 | wc -l)" -lt 200
start_rank 1 2 "$port" "${setting[@]}" --steps=20 --output-dir=flooded --comm-timeout=60
end_of_ranks 60
check "the other rank comes all the same" test "${codes[*]}" = "0 0"
check "and nothing has changed" cmp <(curve quiet) <(curve flooded)
for fd in "${idle[@]}"; do exec {fd}>&-; done

# ---- while it trains -------------------------------------------------------------------------------------------

port=$(free_port)
for rank in 0 1; do start_rank $rank 2 "$port" "${setting[@]}" --steps=100000 --output-dir=closed; done
eventually 30 steps_done closed 3
check "once all have come nobody listens" bash -c "! (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null"
kill -USR1 "${pids[@]}"
end_of_ranks 20
check "and the run ends well" test "${codes[*]}" = "0 0"

exit $((failures > 0))
