#!/bin/bash
# Formats of optimiser state: planned bytes are allocated bytes, checkpoints hold them exactly, a run goes on bit for
# bit after a resume, also at other levels and thread counts; a resume converts them and says so; what contradicts is
# refused.
set -u
. tests/e2e/lib.bash

tiny=(--layers=3 --channels=64 --heads=2 --batch-size=2 --seq-len=32)
base=("${tiny[@]}" "${quiet[@]}" --data=text.txt --total-batch-size=128 --steps=12 --warmup=2)

memory() { sed -n '1s/.*"memory_bytes":\([0-9]*\).*/\1/p' "$1/metrics.jsonl"; }
planned() {
    run plan --json "${tiny[@]}" --vocab-size=257 --recompute=0 --total-batch-size=128 "$@"
    sed -n 's/^ *"total_bytes": \([0-9]*\),/\1/p' out
}
# types FOLDER STEM: "F32 U8" etc., the types of the tensors in a file of its last checkpoint.
types() {
    local header
    header=$(head -c 65536 "$1/checkpoints/step-00000012/$2.safetensors" | tr -d '\0')
    grep -a -o '"dtype":"[A-Z0-9]*"' <<<"$header" | cut -d'"' -f4 | sort -u | tr '\n' ' '
}
bytes_of() { stat -c %s "$1/checkpoints/step-00000012/optimizer.safetensors"; }

# goes_on NAME OPTIONS...: trains, stops half way, goes on at another level and thread count; the same bits.
goes_on() {
    local name=$1
    shift
    must "$name" "${base[@]}" "$@" --checkpoint-every=6 --output-dir="$name"
    must "$name, resumed" --resume="$name/checkpoints/step-00000006" --output-dir="$name-resumed" --recompute=2 \
        --threads=1
    for file in model optimizer; do
        check "$name: resumed half way, the same $file" cmp \
            {"$name","$name-resumed"}/checkpoints/step-00000012/$file.safetensors
    done
    check "$name: the same curve" diff <(curve "$name" | tail -n 6) <(curve "$name-resumed" | tail -n 6)
    check "$name: planned bytes are allocated bytes" test "$(planned "$@")" = "$(memory "$name")"
}

must "fp32" "${base[@]}" --output-dir=fp32
goes_on moments-bf16 --moments=bf16
goes_on moments-8bit --moments=8bit
goes_on gradients-bf16 --gradients=bf16
check "moments in bf16 are stored so" test "$(types moments-bf16 optimizer)" = "BF16 "
check "moments in 8 bits are stored so, small ones in fp32" test "$(types moments-8bit optimizer)" = "F32 U8 "
check "a checkpoint of 8-bit moments is small" test $((3 * $(bytes_of moments-8bit))) -lt "$(bytes_of fp32)"
check "8-bit moments take less than bf16 ones" test "$(memory moments-8bit)" -lt "$(memory moments-bf16)"
check "bf16 moments take less than fp32 ones" test "$(memory moments-bf16)" -lt "$(memory fp32)"

check "the banner says what is kept" grep -q 'state   moments 8bit, gradients bf16; bf16 of it is rounded' <(
    "$TRAIN_GPT" "${base[@]}" --moments=8bit --gradients=bf16 --dry-run 2>&1)
run plan --json "${tiny[@]}" --moments=8bit --gradients=bf16 --recompute=0
check "plan --json says it" grep -q '"moments": "8bit"' out

# Conversions: every format into every other.
for from in fp32 moments-bf16 moments-8bit; do
    for to in fp32 bf16 8bit; do
        [ "$from" = fp32 ] && [ $to = fp32 ] || [ "$from" = "moments-$to" ] && continue
        must "$from resumed with $to" --resume=$from --output-dir="$from-to-$to" --moments=$to --steps=14
        check "$from resumed with $to says what was converted" \
            grep -q "resume  optimiser state converted: .*; the run kept .* before" err
        check "$from resumed with $to goes on" grep -q '"step":14,' "$from-to-$to/metrics.jsonl"
    done
done
must "8bit resumed as it was" --resume=moments-8bit --output-dir=as-it-was --steps=14
check "a resume that converts nothing says nothing of it" test "$(grep -c converted err)" = 0

# Without masters the parameters are the weights.
if bf16_works; then
    goes_on no-masters --dtype=bf16 --masters=none --moments=8bit --gradients=bf16
    check "weights without masters are stored in bf16" test "$(types no-masters model)" = "BF16 "
    must "llm.c's -w 0" "${base[@]}" --dtype=bf16 -w 0 --moments=8bit --gradients=bf16 --output-dir=no-masters-w
    check "-w 0 is --masters=none" diff <(curve no-masters) <(curve no-masters-w)
    must "masters come back" --resume=no-masters --output-dir=with-masters --masters=fp32 --steps=14
    check "masters that come back are said" grep -q "converted: .*; the run kept .*masters none" err
    must "export" export --run=no-masters --out=exported
    must "generate" generate --run=no-masters --length=8
    refused "no masters in fp32 at a resume" 2 'masters=none: fp32 parameters are the weights' \
        --resume=no-masters --dtype=fp32 --steps=14 --output-dir=new
else
    skip "weights without masters" "this processor or build cannot train in bf16"
fi
refused "no masters in fp32" 2 'masters=none: fp32 parameters are the weights.*add --dtype=bf16' \
    "${base[@]}" --dtype=fp32 --masters=none --output-dir=new
refused "bf16 sums in an order for any number of ranks" 2 'rank-invariant: .*take --gradients=fp32' \
    "${base[@]}" --rank-invariant --gradients=bf16 --output-dir=new
refused "a format there is not" 2 'moments' "${base[@]}" --moments=4bit --output-dir=new
refused "8-bit gradients" 2 'gradients' "${base[@]}" --gradients=8bit --output-dir=new

# A format of a newer program: named, not guessed.
cp -r moments-8bit strange
sed -i 's/"moments": *"8bit"/"moments": "3bit"/' strange/checkpoints/step-00000012/manifest.json
run --resume=strange --steps=14 --output-dir=new
check "a damaged format ends with one line" test "$status" -eq 1 -o "$status" -eq 2
check "and names what is wrong" grep -q -E 'E .*(3bit|checksum|damaged)' err

exit $((failures > 0))
