#!/bin/bash
# A nano model at 65,536 tokens trains on the CPU: in the bytes that were planned, with losses and gradient norms that
# are those of another policy with other tiles, to the last digit.
set -u
. tests/e2e/lib.bash

if [ ! -x /usr/bin/time ]; then
    skip "long context" "there is no /usr/bin/time: the Debian package time"
    exit 0
fi
make_text text.txt 400000 7
base=(--model=llama-nano --layers=2 --channels=32 --heads=2 --kv-heads=1 --ffn-size=96 --seq-len=65536
    --max-seq-len=65536 --batch-size=1 --steps=2 --warmup=1 --sample-length=0 --val-every=0 --data=text.txt
    --dtype=fp32)

# resident FOLDER ARGUMENTS...: a run, and the most memory that it had.
resident() {
    local folder=$1
    shift
    /usr/bin/time -f %M -o "$folder.peak" "$TRAIN_GPT" "${base[@]}" "$@" --output-dir="$folder" >out 2>err
    status=$?
}

resident whole --recompute=1
check "65,536 tokens, no tiles" test $status = 0
resident tiled --recompute=offload --tile-tokens=2048
check "65,536 tokens, tiles of 2,048, offload" test $status = 0
resident sqrt --recompute=2 --tile-tokens=8192
check "65,536 tokens, tiles of 8,192, sqrt" test $status = 0
check "the same losses and norms" cmp <(curve whole) <(curve tiled)
check "the same losses and norms at level 2" cmp <(curve whole) <(curve sqrt)
for folder in whole tiled sqrt; do
    bytes=$(sed -n 's/.*"memory_bytes":\([0-9]*\).*/\1/p' $folder/metrics.jsonl | tail -n 1)
    echo "$folder: planned $bytes bytes, resident at most $(cat $folder.peak) KiB"
    # The program itself takes 25 MiB.
    check "$folder: what was planned, and the program" test $(($(cat $folder.peak) * 1024 - bytes)) -lt $((64 << 20))
done
exit $((failures > 0))
