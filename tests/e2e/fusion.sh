#!/bin/bash
# Operations that run as one: the same at every level, said, recorded, and off with --no-fuse.
set -u
. tests/e2e/lib.bash

make_text text.txt 20000 5
base=(--data=text.txt "${tiny[@]}" "${quiet[@]}" --dtype=fp32 --device=cpu --steps=4)
gpt2=(--model=gpt2-nano "${base[@]}")
pair="backward of gelu + weight gradient of fc"

# ---- the same bits at every level --------------------------------------------------------

folders=()
for level in "${policies[@]}"; do
    must "$level" "${gpt2[@]}" --recompute="$level" --total-batch-size=128 --output-dir="$level"
    check "$level: the banner says what is fused" grep -q "plan    fused: $pair\$" err
    folders+=("$level")
done
same_curves() {
    for folder in "$@"; do cmp <(curve "$1") <(curve "$folder") || return 1; done
}
check "the same curve at every level" same_curves "${folders[@]}"
must "auto" "${gpt2[@]}" --recompute=auto --total-batch-size=128 --memory-budget=4MiB --output-dir=auto
check "and with --recompute=auto" same_curves none auto
for threads in 1 2 3; do
    must "$threads threads" "${gpt2[@]}" --recompute=act --total-batch-size=128 --threads=$threads \
        --output-dir="t$threads"
done
check "and with 1, 2 and 3 threads" same_curves none t1 t2 t3

# ---- --no-fuse ----------------------------------------------------------------------------

must "--no-fuse" "${gpt2[@]}" --no-fuse --total-batch-size=128 --output-dir=separate
check "--no-fuse: the banner says so" grep -q 'plan    fused: nothing (--no-fuse)$' err
check "--no-fuse: the run folder says so" grep -q '^no-fuse = true$' separate/config.toml
check "a fused run's folder says that" grep -q '^no-fuse = false$' none/config.toml
close() {
    paste -d: <(curve none) <(curve separate) | awk -F'[:,]' '
        { difference = $4 - $12; if (difference > 1e-5 || difference < -1e-5) { print; bad = 1 } }
        END { exit bad || NR != 4 }'
}
check "fused and separate agree to rounding" close
must "--no-fuse resumed" --resume=separate --steps=6
check "a resume keeps to the record" grep -q 'plan    fused: nothing (--no-fuse)$' err
must "fused resumed" --resume=none --steps=6
check "and a fused run goes on fused" grep -q "plan    fused: $pair\$" err

# ---- nothing to fuse ----------------------------------------------------------------------

must "nothing to fuse" --model=llama-nano "${base[@]}" --no-fuse --output-dir=llama
check "--no-fuse where nothing would be fused: said, and trained" \
    grep -q 'plan    fused: nothing; --no-fuse changes nothing: no operations of this model would be$' err
must "nothing fused" --model=llama-nano "${base[@]}" --output-dir=llama2
check "a model with nothing to fuse" grep -q 'plan    fused: nothing$' err

# ---- plan ---------------------------------------------------------------------------------

planned() { run plan --model=gpt2-nano --layers=3 --device=cpu --dtype=fp32 -b 2 -t 32 "$@"; }
planned --list-steps --recompute=none,layer,sqrt,act,attn,offload
check "plan says what is fused" grep -q "^fused: $pair\$" out
check "plan lists it with both names, in every layer of every level" \
    test "$(grep -c "backward *layer [012], $pair " out)" = 18
check "and no part of it by itself" test "$(grep -c 'backward *layer [012], backward of gelu  ' out)" = 0
# act brings the norm's output back for the weight gradient: ahead of the fused step.
planned --list-steps --recompute=act
ahead() { grep -B1 "layer 1, $pair " out | head -n 1 | grep -q 'repeated ln2'; }
check "a repeat that falls between is moved ahead" ahead
planned --json
check "plan --json names it" grep -q "\"$pair\"" out
planned --no-fuse
check "plan --no-fuse" grep -q '^fused: nothing (--no-fuse)$' out
planned --device-profile=h100 --no-fuse
check "plan --no-fuse for a device that fuses nothing" \
    grep -q '^fused: nothing; --no-fuse changes nothing: no operations of this model would be$' out

exit $((failures > 0))
