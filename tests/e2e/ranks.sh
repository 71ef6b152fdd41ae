#!/bin/bash
# Several ranks under mpirun train what one rank trains: the same losses, the same parameters on every rank, at every
# ZeRO stage and level, with the memory that was planned; and to the bit where the order of sums is fixed.
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

ranks_here

# What one rank makes of the batch that four share.
setting=(--layers=3 --channels=32 --heads=2 --batch-size=1 --seq-len=32 --data=text.txt --steps=20 --warmup=4
    --val-every=10 --val-sequences=10 --sample-length=0 --check-ranks)
gpt2=("${setting[@]}" --total-batch-size=768)
llama=("${setting[@]}" --total-batch-size=768 --model=llama-nano --kv-heads=1)

# near A B: losses and validation losses of two runs agree to 1e-6.
near() {
    paste -d' ' <(losses "$1") <(losses "$2") | awk '
        NF != 4 || $1 != $3 { print "line " NR ": " $0; bad = 1; exit }
        { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d }
        END { if (bad || NR < 20 || worst > 1e-6) { print "worst", worst, "of", NR; exit 1 } }'
}
losses() { sed -n 's/^{"step":\([0-9]*\),"\(val_\)\{0,1\}loss":\([^,}]*\).*/\1 \3/p' "$1/metrics.jsonl"; }

must "one rank, gpt2" "${gpt2[@]}" --output-dir=gpt2-1
must "one rank, llama" "${llama[@]}" --output-dir=llama-1

declare -A stages=([2]=$(all_or "1" "0 1 2 3") [3]=$(all_or "2" "0 1 2 3") [4]="0 1 2 3")
for count in 2 3 4; do
    for zero in ${stages[$count]}; do
        must_ranks "$count ranks, ZeRO $zero" $count "${gpt2[@]}" --zero="$zero" --output-dir="gpt2-$count-$zero"
        check "$count ranks, ZeRO $zero: losses of one rank to 1e-6" near gpt2-1 "gpt2-$count-$zero"
    done
done

# What `plan` says of a rank is what every rank allocates.
for zero in 0 1 2 3; do
    must "plan, ZeRO $zero" plan --ranks=4 --zero=$zero --layers=3 --channels=32 --heads=2 --batch-size=1 --seq-len=32 \
        --vocab-size=257 --total-batch-size=768 --recompute=0 --threads=1 --json
    check "4 ranks, ZeRO $zero: planned bytes are allocated bytes" \
        test "$(sed -n 's/^ *"total_bytes": \([0-9]*\),/\1/p' out)" \
        = "$(sed -n '/"step":1,"loss"/s/.*"memory_bytes":\([0-9]*\).*/\1/p' gpt2-4-$zero/metrics.jsonl)"
done

# Checkpointing levels change nothing, at no stage. (Those of make test: every level at some stage; the tests of
# tests/run have all at all.)
levels=("sqrt" "act" "attn offload" "auto")
for zero in 0 1 2 3; do
    for level in layer $(all_or "${levels[zero]}" "sqrt act attn offload auto"); do
        must_ranks "ZeRO $zero, $level" 2 "${llama[@]}" --zero=$zero --recompute="$level" --output-dir="l-$zero-$level"
        check "LLaMA, ZeRO $zero, --recompute=$level: losses of one rank to 1e-6" near llama-1 "l-$zero-$level"
        check "LLaMA, ZeRO $zero, --recompute=$level: the bits of the other levels" \
            cmp <(curve l-$zero-layer) <(curve "l-$zero-$level")
    done
done

# ---- the same bits at any number of ranks ---------------------------------------------------------

# Parameters, too: their checksum stands at the end of a line.
bits() { sed 's/,"step_ms".*"parameters"/,"parameters"/' "$1/metrics.jsonl"; }

fixed=("${setting[@]}" --total-batch-size=256 --rank-invariant)
for family in gpt2-nano llama-nano; do
    must "one rank, fixed order" "${fixed[@]}" --model=$family --output-dir=$family-f1
    few=4
    [ $family = gpt2-nano ] || few=2
    for count in $(all_or $few "2 4"); do
        for zero in 0 1 2 3; do
            run_dir=$family-f$count-$zero
            must_ranks "$count ranks, fixed order" "$count" "${fixed[@]}" --model=$family --zero=$zero \
                --output-dir="$run_dir"
            check "$family, $count ranks, ZeRO $zero: --rank-invariant gives the bits of one rank" \
                cmp <(bits $family-f1) <(bits "$run_dir")
        done
    done
done
check "the fixed order has its checksum in every line" \
    test "$(grep -c '"parameters":"[0-9a-f]\{16\}"' gpt2-nano-f1/metrics.jsonl)" -eq 20

if bf16_works; then
    must "bf16, one rank" "${fixed[@]}" --dtype=bf16 --output-dir=bf16-alone
    for zero in 0 1 2 3; do
        must_ranks "bf16" 4 "${fixed[@]}" --dtype=bf16 --zero=$zero --output-dir=bf16-$zero
        check "bf16, 4 ranks, ZeRO $zero: the bits of one rank" cmp <(bits bf16-alone) <(bits bf16-$zero)
    done
else
    skip "bf16" "this processor or build has no bf16"
fi

# ---- without MPI --------------------------------------------------------------------------------------

tcp_ranks 3 "${gpt2[@]}" --zero=2 --comm-init=tcp --output-dir=tcp
check "3 ranks over TCP: exit codes 0" test "$(cat rc.0 rc.1 rc.2 | tr -d '\n')" = 000
check "3 ranks over TCP: the bits of 3 ranks under mpirun" cmp <(bits gpt2-3-2) <(bits tcp)

# ---- start-up ------------------------------------------------------------------------------------------

check "the banner names ranks, transport and stage" \
    grep -q 'ranks   3 ranks on 1 host, TCP; ZeRO 2: optimiser state and gradients in pieces' err.0
check "rank 0 alone speaks for all" test "$(cat err.1 err.2 | wc -c) $(grep -c 'done: 20 steps' tcp/train.log)" = "0 1"

exit $((failures > 0))
