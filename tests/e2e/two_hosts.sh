#!/bin/bash
# Two hosts with a network between them, played by two network namespaces of this one: ranks meet and train over TCP and
# over MPI, and end when the link is cut.
# shellcheck disable=SC2317  # functions are called through check, eventually and trap
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

export LLMC_JOB_SECRET=a-secret-of-two-hosts
name=tg$$
hosts=("$name-1" "$name-2")
address=(10.77.0.1 10.77.0.2)

remove_hosts() {
    local host
    for host in "${hosts[@]}"; do
        ip netns pids "$host" | xargs -r kill -KILL
        ip netns del "$host"
    done
} 2>/dev/null

make_hosts() {
    local i
    for i in 0 1; do ip netns add "${hosts[i]}" || return; done
    ip link add link0 netns "${hosts[0]}" type veth peer name link1 netns "${hosts[1]}" || return
    for i in 0 1; do
        ip -n "${hosts[i]}" addr add "${address[i]}/24" dev "link$i" || return
        ip -n "${hosts[i]}" link set lo up || return
        ip -n "${hosts[i]}" link set "link$i" up || return
    done
}
link() { ip -n "${hosts[0]}" link set link0 "$1"; }
# What has gone through the link, in bytes.
traffic() { ip netns exec "${hosts[0]}" cat /sys/class/net/link0/statistics/tx_bytes; }

trap remove_hosts EXIT
trap 'exit 143' TERM INT HUP
if ! command -v ip >/dev/null || ! make_hosts 2>why; then
    skip "two hosts" "network namespaces cannot be made here: $(head -c 200 why)"
    exit 0
fi

setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=256 --lr-schedule=constant --warmup=0 --zero=2
    --comm-timeout=3)
must_tcp_ranks "one host" 4 "${setting[@]}" --steps=400 --output-dir=one

# The first two ranks on one host, the other two on the other.
with=()
for rank in 0 1 2 3; do
    with[rank]="ip netns exec ${hosts[rank / 2]} env TRAIN_GPT_HOST_NAME=host$((rank / 2 + 1))"
done
master_address=${address[0]}

# same_so_far FOLDER: the curve is that of one host.
same_so_far() {
    curve "$1" >part.curve
    [ -s part.curve ] && cmp <(curve one | head -n "$(wc -l <part.curve)") part.curve
}

# ---- TCP -------------------------------------------------------------------------------------------------------

before=$(traffic)
must_tcp_ranks "two hosts" 4 "${setting[@]}" --steps=100 --output-dir=two
check "over TCP: the banner has the hosts" grep -q 'ranks   4 ranks on 2 hosts, TCP; ZeRO 2' err.0
check "over TCP: the bits of one host" same_so_far two
check "over TCP: it went through the link" test $(($(traffic) - before)) -gt 1000000

master_address=10.77.0.9
start_ranks 4 "${setting[@]}" --steps=100 --output-dir=new
end_of_ranks 10
check "an address that no host has: all ranks end" test "${codes[*]}" = "1 1 1 1"
check "an address that no host has: it is named" \
    grep -q "rank 2: no answer from rank 0 at 10.77.0.9:[0-9]* within 3 s (.*); see that rank 0 runs on 10.77.0.9" err.2
check "an address that no host has: rank 0 names the absent" \
    grep -q "ranks 1, 2, 3 of 4 did not come within 3 s" err.0
master_address=${address[0]}

start_ranks 4 "${setting[@]}" --steps=100000 --checkpoint-every=2 --output-dir=cut
eventually 30 steps_done cut 5
link down
begin=$EPOCHREALTIME
end_of_ranks 15
took=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
check "the link is cut: exit code 1 on all ranks" test "${codes[*]}" = "1 1 1 1"
check "the link is cut: within --comm-timeout=3, and a second or two to say so" \
    awk -v took="$took" 'BEGIN { print took; exit !(took <= 6) }'
check "the link is cut: rank 0 names the other host" grep -q " E rank [23] (host2) " err.0
for rank in 2 3; do
    check "the link is cut: rank $rank names the other host" grep -q " E rank $rank: rank [01] (host1) " err.$rank
done
link up
step=$(newest cut)
tcp_ranks 4 --resume=cut "--steps=$((step + 6))" --checkpoint-every=0
check "the link is back: the run goes on" test "${codes[*]} $(newest cut)" = "0 0 0 0 $((step + 6))"
check "the link is back: the bits of one host" same_so_far cut

# ---- MPI -------------------------------------------------------------------------------------------------------

ranks_here

# Instead of ssh. A namespace of the network alone would leave both hosts one name, by which mpirun knows them.
cat >remote <<END
#!/bin/bash
host=\$1
shift
exec ip netns exec "$name-\${host##*.}" unshare --uts sh -c "hostname host\${host##*.}; \$*"
END
chmod +x remote
printf '%s slots=2\n' "${address[@]}" >hostfile
mpirun=(./remote "${address[0]}" exec mpirun --hostfile hostfile --bind-to none --mca plm_rsh_agent "$PWD/remote"
    --mca btl "tcp,self" --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24)

# start_mpirun ARGUMENTS...: in the background.
start_mpirun() {
    "${mpirun[@]}" "$TRAIN_GPT" --threads=1 "${setting[@]}" "$@" >out 2>err </dev/null &
    pids=($!)
}

before=$(traffic)
start_mpirun --steps=100 --output-dir="$PWD/mpi"
end_of_ranks 60
if [ "${codes[0]}" != 0 ] && ! grep -q ' I ' err; then
    skip "two hosts under mpirun" "mpirun does not start ranks there: $(head -c 300 err | tr '\n' ' ')"
    exit $((failures > 0))
fi
check "under mpirun: exit code 0" test "${codes[0]}" = 0
check "under mpirun: the banner has the hosts" grep -q 'ranks   4 ranks on 2 hosts, MPI (.*); ZeRO 2' err
check "under mpirun: the bits of one host" same_so_far mpi
check "under mpirun: it went through the link" test $(($(traffic) - before)) -gt 1000000

start_mpirun --steps=100000 --output-dir="$PWD/stopped"
eventually 30 steps_done stopped 3
kill -USR1 "${pids[0]}"
end_of_ranks 20
check "SIGUSR1 to mpirun: exit code 0, and one checkpoint of the last step" \
    test "${codes[0]} $(newest stopped)" = "0 $(grep -c '"loss"' stopped/metrics.jsonl)"

there_are() { [ "$(pgrep -c -f "^$TRAIN_GPT .*--output-dir=$PWD/mpicut( |\$)")" -eq "$1" ]; }
start_mpirun --steps=100000 --checkpoint-every=2 --output-dir="$PWD/mpicut"
eventually 30 steps_done mpicut 5
check "under mpirun: four ranks" there_are 4
link down
check "the link is cut under mpirun: all ranks end" eventually 8 there_are 0
# mpirun itself waits for the other host.
kill -KILL "${pids[0]}"
end_of_ranks 5
check "the link is cut under mpirun: rank 0 names the other host" grep -q " E rank [23] (host2) " err
link up

exit $((failures > 0))
