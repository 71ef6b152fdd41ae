#!/bin/bash
# The contract of bits over the whole grid: for each family, type, number of ranks and size of update, every policy
# (auto too) at every ZeRO stage trains with the same losses, norms and parameters, to the last bit. About ten minutes.
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

ranks_here

setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=4 --warmup=2 --check-ranks)
types=(fp32)
bf16_works && types+=(bf16)

# bits FOLDER: losses, norms and the checksum of all parameters, step by step.
bits() { sed 's/,"step_ms".*"parameters"/,"parameters"/' "$1/metrics.jsonl"; }

for model in gpt2-nano llama-nano; do
    for type in "${types[@]}"; do
        for count in 1 2 3; do
            for micro_batches in 1 3; do
                name="$model, $type, $count ranks, $micro_batches micro-batches"
                rm -rf runs
                stages=(0 1 2 3)
                [ $count -gt 1 ] || stages=(0)
                # Stages share an order of sums where a rank reduces once per update; 2 and 3 reduce every micro-batch.
                for zero in "${stages[@]}"; do
                    group=whole
                    [ "$zero" -lt 2 ] || [ $micro_batches -eq 1 ] || group=pieces
                    for level in "${policies[@]}" auto; do
                        must_ranks "$name, ZeRO $zero, $level" $count "${setting[@]}" --model=$model --dtype="$type" \
                            --total-batch-size=$((64 * count * micro_batches)) --zero="$zero" --recompute="$level" \
                            --output-dir="runs/$zero-$level"
                        bits "runs/$zero-$level" >"bits.$zero-$level"
                        [ -s "bits.$group" ] || cp "bits.$zero-$level" "bits.$group"
                        cmp -s "bits.$group" "bits.$zero-$level" || echo "ZeRO $zero, $level" >>differing
                    done
                done
                check "$name: the same bits at every stage and level" test ! -s differing
                rm -f bits.* differing
            done
        done
    done
done

exit $((failures > 0))
