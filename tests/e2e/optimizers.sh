#!/bin/bash
# Every optimiser learns, keeps what it needs and nothing else, and goes on bit for bit after a resume.
set -u
. tests/e2e/lib.bash

# falls FOLDER: the mean loss of the last five steps is well below that of the first.
falls() {
    sed -n 's/.*"loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl" | awk '
        NR == 1 { first = $1 }
        { last[NR % 5] = $1 }
        END { for (i in last) sum += last[i]; exit !(sum / 5 < first - 0.5) }'
}

# moments FOLDER: the letters of the moments in its last checkpoint.
moments() {
    grep -a -o '"[mv]\.[a-z_0-9.]*"' "$1"/checkpoints/step-00000040/optimizer.safetensors | cut -c2 | sort -u |
        tr -d '\n'
}
memory() { sed -n '1s/.*"memory_bytes":\([0-9]*\).*/\1/p' "$1/metrics.jsonl"; }

for optimizer in adamw lion; do
    rate=3e-3
    [ $optimizer = adamw ] || rate=5e-4
    setting=("${tiny[@]}" "${quiet[@]}" --data=text.txt --optimizer=$optimizer --learning-rate=$rate --steps=40
        --warmup=4)
    must "$optimizer" "${setting[@]}" --checkpoint-every=20 --output-dir=$optimizer
    check "$optimizer learns" falls $optimizer
    wanted=mv
    [ $optimizer = adamw ] || wanted=m
    check "$optimizer keeps its moments" test "$(moments $optimizer)" = $wanted
    must "$optimizer resumed" --resume=$optimizer/checkpoints/step-00000020 --output-dir=$optimizer-resumed
    for file in model optimizer; do
        check "$optimizer resumed at step 20 ends with the same $file" cmp \
            {$optimizer,$optimizer-resumed}/checkpoints/step-00000040/$file.safetensors
    done
    must "plan of $optimizer" plan --json --optimizer=$optimizer --layers=3 --channels=32 --heads=2 --batch-size=2 \
        --seq-len=32 --vocab-size=257 --recompute=0
    check "$optimizer: planned bytes are allocated bytes" \
        test "$(sed -n 's/^ *"total_bytes": \([0-9]*\),/\1/p' out)" = "$(memory $optimizer)"
done
check "lion holds less than adamw" test "$(memory lion)" -lt "$(memory adamw)"
refused "another optimiser at a resume" 2 '--optimizer=lion: the run began with adamw' \
    --resume=adamw --optimizer=lion --steps=50

exit $((failures > 0))
