#!/usr/bin/env bash
# Does communication hide behind the backward? Two ranks, one thread each, exchange gradients over a link that is slowed
# until moving them takes as long as the backward; trained with overlap and with --no-overlap, in turn.
#
#   dev/bench/overlap.sh [--quick]      or: make bench BENCH=overlap
#
# Prints a table and writes dev/bench/results/overlap.md and .json. --quick is ZeRO 0 in one round of few steps and
# writes nothing. The ranks run in two network namespaces joined by a veth pair whose ends pass a rate (tc's tbf), so
# it needs root. The rate is what a rank sends at ZeRO 0 over two thirds of a step without a limit: a backward is about
# twice a forward. A time is the median over the rounds of a run's median step after two warm-up steps. About five
# minutes on two cores that do nothing else. Exits with 1 if a step with overlap takes more than 0.75 times one without;
# ZeRO 1 has no such target, since half of what it sends, the gather after the update, has nothing to hide behind.
set -euo pipefail

quick=no
case "${1-}" in
    --quick) quick=yes ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=dev/bench/common.bash
source "$(dirname "$0")/common.bash"
[ "$(id -u)" -eq 0 ] || die "needs root, to make network namespaces; run it with sudo"
for program in ip tc; do
    command -v $program > /dev/null || die "there is no $program; install the Debian package iproute2"
done

stages="0 1 3" rounds=3 steps=8
[ "$quick" = no ] || stages=0 rounds=1 steps=6
common=(--model=gpt2-mini --layers=12 --batch-size=8 --seq-len=256 --recompute=0)
declare -A target=([0]=0.75 [3]=0.75)
warmup=2
status=0
rows=""
objects=""

# ---- the link ----------------------------------------------------------------------------------

spaces=("overlap-$$-0" "overlap-$$-1")
children=()
# shellcheck disable=SC2317  # the trap calls it
remove_link() {
    [ ${#children[@]} -eq 0 ] || kill -KILL "${children[@]}" 2> /dev/null || :
    for space in "${spaces[@]}"; do ip netns delete "$space" 2> /dev/null || :; done
    rm -rf "$tmp"
}
trap remove_link EXIT

make_link() {
    local end
    for end in 0 1; do ip netns add "${spaces[end]}"; done
    ip -n "${spaces[0]}" link add dev link0 type veth peer name link1 netns "${spaces[1]}"
    for end in 0 1; do
        ip -n "${spaces[end]}" address add "10.77.0.$((end + 1))/24" dev "link$end"
        ip -n "${spaces[end]}" link set "link$end" up
        ip -n "${spaces[end]}" link set lo up
    done
}

# slow_link BITS: lets so many through per second, in each direction.
slow_link() {
    local end
    for end in 0 1; do
        tc -n "${spaces[end]}" qdisc replace dev "link$end" root tbf rate "$1bit" burst 256kb latency 100ms
    done
}

# ---- the runs ----------------------------------------------------------------------------------

LLMC_JOB_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export LLMC_JOB_SECRET

# train_pair OPTION...: trains with two ranks; prints the median of the steps after the warm-up, in milliseconds.
train_pair() {
    local rank
    rm -rf "$tmp/run"
    children=()
    for rank in 0 1; do
        RANK=$rank WORLD_SIZE=2 MASTER_ADDR=10.77.0.1 MASTER_PORT=29500 ip netns exec "${spaces[rank]}" \
            "$train_gpt" --comm-init=tcp --threads=1 --data="$data" --steps=$steps --val-every=0 --sample-length=0 \
            --output-dir="$tmp/run" --log-level=warn "${common[@]}" "$@" 2> "$tmp/log$rank" &
        children+=($!)
    done
    for rank in 0 1; do
        wait "${children[rank]}" || { cat "$tmp/log$rank" >&2; die "train_gpt $* failed"; }
    done
    children=()
    sed -n 's/.*"step_ms":\([0-9.]*\).*/\1/p' "$tmp/run/metrics.jsonl" | tail -n "+$((warmup + 1))" | median
}

# planned KEY OPTION...: a number of the plan for two ranks.
planned() {
    local key=$1
    shift
    "$train_gpt" plan --json --ranks=2 --data="$data" "${common[@]}" "$@" | sed -n "s/.*\"$key\": *\([0-9.]*\).*/\1/p"
}

# compare STAGE: a row and a JSON object.
compare() {
    local stage=$1 round setting option ms sent ratio verdict=""
    declare -A times=()
    for ((round = 1; round <= rounds; ++round)); do
        for setting in with without; do
            option=()
            [ $setting = with ] || option=(--no-overlap)
            ms=$(train_pair --zero="$stage" "${option[@]}")
            times[$setting]+=$ms$'\n'
            say "ZeRO $stage, round $round: $setting overlap $(calculate "$ms") ms"
        done
    done
    local with without
    with=$(printf '%s' "${times[with]}" | median)
    without=$(printf '%s' "${times[without]}" | median)
    sent=$(planned communication_bytes_per_update --zero="$stage")
    ratio=$(awk "BEGIN { printf \"%.3f\", $with / $without }")
    if [ -n "${target[$stage]-}" ]; then
        verdict="${target[$stage]} pass"
        holds "$ratio <= ${target[$stage]}" || { verdict="${target[$stage]} **MISS**"; status=1; }
    fi
    rows+="| $stage | $(mib "$sent") | $(calculate "1000 * $sent * 8 / $rate") | $(calculate "$without") "
    rows+="| $(calculate "$with") | $ratio | $verdict |"$'\n'
    objects+="${objects:+,}"$'\n'"  {\"model\": \"gpt2-mini L=12 B=8 T=256\", \"zero\": $stage, \"sent_bytes\": $sent, "
    objects+="\"link_bits_per_second\": $rate, \"step_ms_without_overlap\": $without, \"step_ms_with_overlap\": $with, "
    objects+="\"ratio\": $ratio, \"step_ms_of_rounds_without\": [$(printf '%s' "${times[without]}" | paste -sd,)], "
    objects+="\"step_ms_of_rounds_with\": [$(printf '%s' "${times[with]}" | paste -sd,)]}"
}

make_link
free=$(train_pair)
rate=$(awk "BEGIN { printf \"%.0f\", 8 * $(planned communication_bytes_per_update) / ($free / 1000 * 2 / 3) }")
say "a step over a link without a limit: $(calculate "$free") ms; slowed to $(calculate "$rate / 1e6") Mbit/s"
slow_link "$rate"
for stage in $stages; do compare "$stage"; done

report="# Communication beside the backward

$(about). gpt2-mini with 12 layers, 8 x 256 tokens per rank, fp32; two ranks of one thread each,
linked by $(calculate "$rate / 1e6") Mbit/s each way. Without a limit a step takes $(calculate "$free") ms.

| ZeRO | sent per rank and update, MiB | alone on the link, ms | step without overlap, ms | with, ms | ratio | target |
|---:|---:|---:|---:|---:|---:|---|
$rows"
printf '%s\n' "$report"
[ "$quick" = yes ] || publish overlap "$report" "$objects"
exit "$status"
