#!/bin/bash
# Answers for a card that is not here: its memory and type, whether a plan fits, the fastest setting that does, as a
# file to run with, every preset; tables in the columns there are; profiles of your own.
set -u
. tests/e2e/lib.bash

number() { sed -n "s/^ *\"$1\": \([0-9.e+-]*\),*$/\1/p" out | sed -n "${2:-1}p"; }
widest() { awk '{ if (length($0) > most) most = length($0) } END { print most }' out; }

# ---- a card's memory and type ----------------------------------------------------------------------------------

must "a card" plan --model=llama3-8b --batch-size=1 --seq-len=2048 --device-profile=rtx4090 --json
check "its budget is what it leaves" test "$(number limit_bytes)" = $(((24564 - 1024) * 1048576))
check "what needs more does not fit" test "$(grep -c '"fits": false' out)" = 6
must "a budget beside the card" plan --model=gpt2 --batch-size=1 --seq-len=64 --device-profile=rtx4090 \
    --memory-budget=50% --json
check "is a share of that" test "$(number limit_bytes)" = $(((24564 - 1024) * 524288))
must "the card's type" plan --model=gpt2 --batch-size=1 --seq-len=64 --device-profile=h100
check "is bf16" grep -q '^micro-batch 1 x 64 tokens, bf16' out
step_of() {
    run plan --model=gpt2-xl -b 4 -t 1024 -r 1 --offload=moments,masters --json "$@"
    number predicted_step_ms
}
fast=$(step_of --device-profile=rtx4090 --link-gbs=50) slow=$(step_of --device-profile=rtx4090 --link-gbs=5)
usual=$(step_of --device-profile=rtx4090)
check "--link-gbs overrides the link ($fast < $usual < $slow)" \
    awk -v a="$fast" -v b="$usual" -v c="$slow" 'BEGIN { exit !(a < b && b < c) }'
for card in rtx3060 rtx3080 rtx3090 rtx4060 rtx4060ti-16gb rtx4070 rtx4080 rtx4090 rtx5060ti-16gb rtx5070ti rtx5080 \
    rtx5090 a10 a100 a100-80gb l4 l40s h100 h200 b200 gh200; do
    run plan --model=gpt2 -b 1 -t 64 -r 0 --device-profile=$card --json
    check "$card" test "$status $(grep -c '"fits": true' out)" = "0 1"
done

# ---- --offload=auto ----------------------------------------------------------------------------------------------

eight=(--model=llama3-8b -b 2 -t 2048 --device-profile=rtx4090)
must "a placement of itself" plan "${eight[@]}" --recompute=0,auto --offload=auto
check "is said for every level" grep -q -- '(--offload=moments,masters' out
must "as JSON" plan "${eight[@]}" --recompute=auto --offload=auto --json
check "it fits" grep -q '"fits": true' out
best=$(number predicted_step_ms) list=$(sed -n 's/^ *"offload": "\(.*\)",$/\1/p' out)
must "the one it chose" plan "${eight[@]}" --recompute=auto --offload="$list" --json
check "is the same plan" test "$(number predicted_step_ms)" = "$best"
must "all of it" plan "${eight[@]}" --recompute=auto --offload=all --json
check "is no faster" awk -v a="$best" -v b="$(number predicted_step_ms)" 'BEGIN { exit !(a <= b) }'
must "where nothing need go" plan --model=gpt2 -b 1 -t 64 -r 0 --device-profile=rtx4090 --offload=auto --json
check "nothing goes" grep -q '"offload": "none"' out
refused "host memory that is too small for any" 1 "lower --batch-size|--host-memory-budget|smaller model" \
    plan "${eight[@]}" --recompute=auto --offload=auto --host-memory-budget=1GiB
must "a run on a CPU" --layers=2 --channels=32 --heads=2 --batch-size=2 --seq-len=32 --data=text.txt --steps=2 \
    --recompute=auto --offload=auto --sample-length=0 --output-dir=on-cpu
check "keeps all where it is" grep -q 'offload nothing; --offload=auto' err

# ---- what fits --------------------------------------------------------------------------------------------------

must "--what-fits" plan --model=gpt2 --device-profile=rtx3060 --what-fits --emit-config=best.toml
check "the card's memory, and what of it is kept back" grep -q 'what fits in 11.0 GiB (12.0 GiB of rtx3060, less' out
check "sequences as long as the model's own" grep -q 'sequences of 1,024' out
check "a row for every level and auto" \
    test "$(grep -c -E '^(0 none|1 layer|2 sqrt|  act|  attn|  offload|  auto) .*yes' out)" = 7
must "as JSON" plan --model=gpt2 --device-profile=rtx3060 --what-fits --json
cp out by-all-threads.json
must "by five threads" plan --model=gpt2 --device-profile=rtx3060 --what-fits --json --threads=5
check "the same on any machine" cmp out by-all-threads.json
speeds() { # of every row's fastest batch, auto's last
    awk -F'[:,]' '/"fastest"/ { inside = 1 } inside && /"predicted_tokens_per_second"/ { print $2; inside = 0 }' out
}
cp out ways.json
check "auto is no slower than any level" awk '{ rate[NR] = $1 } END {
    for (i = 1; i < 7; i++) if (rate[7] < rate[i]) exit 1
    exit NR < 7 }' <(speeds)
config_value() { sed -n "s/^$1 = \"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" best.toml; }
must "the file that was written" plan --config=best.toml --device-profile=rtx3060 --json
check "fits" grep -q '"fits": true' out
check "is for one batch" test "$(number batch_size)" = "$(config_value batch-size)"
must "training takes it, too" --config=best.toml --data=text.txt --dtype=fp32 --dry-run \
    --memory-budget=200GiB --host-memory-budget=200GiB
# Other ways to train, each with a command: what `plan` says of it is that it fits.
for way in in_part with_lora with_qlora; do
    command=$(sed -n "/\"$way\"/,/}/s/^ *\"command\": \"train_gpt \(.*\)\",*$/\1/p" <ways.json)
    eval "must '$way: $command' plan --device-profile=rtx3060 --json $command"
    check "$way fits" test -n "$command" -a "$(grep -c '"fits": true' out)" = 1
done
must "with adapters" plan --model=gpt2 --device-profile=rtx3060 --what-fits --recompute=0,1 --lora=4 \
    --lora-targets=c_attn --lora-dropout=0.1 --dropout=0.1 --emit-config=adapters.toml
check "its file has their options" test "$(grep -c -E \
    '^(lora = 4|lora-targets = "c_attn"|lora-dropout = 0.1|dropout = 0.1)$' adapters.toml)" = 4
must "which fits when taken" plan --config=adapters.toml --device-profile=rtx3060 --json
check "with adapters" test "$(grep -c '"fits": true' out)" = 1
must "training takes it" --config=adapters.toml --data=text.txt --dtype=fp32 --dry-run --memory-budget=200GiB
must "twice the batch" plan --config=best.toml --device-profile=rtx3060 --json \
    --batch-size=$(($(config_value batch-size) * 2))
must "of four ranks" plan --model=llama3-8b --seq-len=4096 --device-profile=h100 --what-fits --ranks=4 --zero=3 \
    --recompute=0,layer
check "have rows" test "$(grep -c -E '^(0 none|1 layer) .*yes' out)" = 2
must "where the optimiser is too large" plan --model=llama3-8b --seq-len=2048 --device-profile=rtx4090 --what-fits \
    --recompute=layer
check "it says with which placement" grep -q -- '--offload=' out
check "and how much host memory" grep -q 'of host' out
must "nothing at all" plan --model=gpt2 --offload=none --what-fits=1GiB
check "then what binds, and what would do" \
    test "$(tr '\n' ' ' <out | tr -s ' ' | grep -c 'optimiser alone take .*; .*--')" = 1
# A CPU's device is the host: what does not fit does not fit elsewhere in it either.
run plan --model=gpt2-nano --what-fits --memory-budget=14MiB --emit-config=cpu.toml
check "on a CPU, nothing to write" test "$status" = 1 -a ! -e cpu.toml
check "is said" grep -q "E --emit-config: 'cpu.toml' is not written, since nothing fits; raise" err
budget=$(sed -n 's/.*raise --memory-budget to \([0-9A-Za-z]*\).*/\1/p' err)
must "the budget that it names" plan --model=gpt2-nano --what-fits --memory-budget="$budget" --emit-config=cpu.toml
check "is enough" grep -q '^fastest: ' out
must "its file" plan --config=cpu.toml --json
check "is a run that fits" grep -q '"fits": true' out
must "one budget for all" plan --model=gpt2 --seq-len=256 --what-fits --memory-budget=4GiB --recompute=1
check "--memory-budget is what fits" grep -q 'what fits in 4.00 GiB' out

# ---- columns ----------------------------------------------------------------------------------------------------

for columns in 60 80 140; do
    export COLUMNS=$columns
    for report in "" "--what-fits --recompute=0,1" --frontier "--ranks=2 --zero=1" --recompute=auto; do
        # shellcheck disable=SC2086
        run plan --model=gpt2 --batch-size=4 --seq-len=256 --device-profile=rtx4070 $report
        check "plan $report in $columns columns ($(widest))" test "$status" = 0 -a "$(widest)" -le "$columns"
    done
done
unset COLUMNS
must "a pipe" plan --model=gpt2 --batch-size=4 --seq-len=256
check "has 80 columns" test "$(widest)" -le 80
check "GiB and seconds" grep -q 'GiB' out
must "--bytes" plan --model=gpt2 --batch-size=4 --seq-len=256 --bytes
check "all digits" grep -q '^total .*[0-9],[0-9]\{3\},[0-9]\{3\},[0-9]\{3\}' out

# ---- what was decided -------------------------------------------------------------------------------------------

must "auto" plan --model=gpt2 --batch-size=16 --seq-len=1024 --device-profile=rtx3060 --recompute=auto \
    --memory-budget=6GiB
check "a table of layers" grep -q '^auto: what each layer keeps for its backward' out
names=$(sed -n '/^auto: what each/,$p' out | sed -n 's/^[0-9][0-9-]*  *\([a-z-]*\)  *[0-9].*/\1/p' | sort -u)
for name in $names; do check "the name $name is explained" grep -q "^$name: " out; done
check "there were names" test -n "$names"
must "auto as JSON" plan --model=gpt2 --batch-size=16 --seq-len=1024 --device-profile=rtx3060 --recompute=auto \
    --memory-budget=6GiB --json
check "auto says how far it may be from the best" awk -v a="$(number above_bound_ratio)" \
    'BEGIN { exit !(a != "" && a > -1e-9 && a < 0.02) }'
must "sqrt" plan --model=gpt2 --batch-size=16 --seq-len=1024 --recompute=sqrt
check "sqrt prints its k" test "$(tr '\n' ' ' <out | grep -c '(k = 3)')" = 1

must "auto with host memory" plan --model=gpt2 -b 16 -t 1024 --device-profile=rtx3060 --recompute=auto \
    --memory-budget=3GiB --host-memory-budget=8GiB --json
with=$(number predicted_step_ms)
check "sends inputs there" test "$(number host_bytes)" -gt 0
must "auto without" plan --model=gpt2 -b 16 -t 1024 --device-profile=rtx3060 --recompute=auto --memory-budget=3GiB \
    --json
check "and is faster for it ($with < $(number predicted_step_ms))" \
    awk -v a="$with" -v b="$(number predicted_step_ms)" 'BEGIN { exit !(a < b) }'

# ---- --device=cuda without a GPU, profiles of your own ----------------------------------------------------------

if "$TRAIN_GPT" plan --model=gpt2-nano --device=cuda >out 2>err && grep -q 'there is no GPU here' err; then
    must "--device=cuda" plan --model=gpt2 --batch-size=8 --seq-len=1024 --device=cuda --recompute=0 --json
    check "has a GPU's times" awk -v ms="$(number predicted_step_ms)" 'BEGIN { exit !(ms > 0 && ms < 2000) }'
else
    skip "--device=cuda without a GPU" "there is one, or the build has no CUDA"
fi
must "--calibrate" plan "${tiny[@]}" --vocab-size=257 --device=cpu --dtype=fp32 --recompute=0 --calibrate
profile=$(ls "$XDG_CACHE_HOME"/train_gpt/profile-*.toml)
check "writes a profile" grep -q "a profile of this device is in '$profile'" err
must "which plans" plan --model=gpt2 --batch-size=1 --seq-len=64 --device-profile="$profile" --recompute=0
check "by its rates" grep -q '^step times: analytic' out
cat >mine.toml <<'END'
name = "mine"
memory-gib = 20
reserve-gib = 2
fp32-tflops = 20
bf16-tflops = 80
bandwidth-gbs = 500
link-gbs = 12
END
must "a profile of your own" plan --model=gpt2 --batch-size=1 --seq-len=64 --device-profile=mine.toml --json
check "has its memory" test "$(number limit_bytes)" = $((18 << 30))
for name in memory-gib fp32-tflops bf16-tflops bandwidth-gbs link-gbs; do
    grep -v "^$name" mine.toml >lacks.toml
    refused "without $name" 2 "--device-profile=lacks.toml: '$name' is missing" plan --device-profile=lacks.toml
done
sed 's/^bf16-tflops = 80/bf16-tflops = -80/' mine.toml >negative.toml
refused "a negative rate" 2 "line 5: 'bf16-tflops' must be a number above 0" plan --device-profile=negative.toml
sed 's/^bf16-tflops/bf16-tflop/' mine.toml >misspelled.toml
refused "a rate misspelled" 2 "'bf16-tflop' is nothing .*did you mean bf16-tflops" plan --device-profile=misspelled.toml
refused "no such card" 2 "--device-profile=rtx4091: no such profile; did you mean rtx4090" plan --device-profile=rtx4091
refused "no such file" 2 "--device-profile=./none.toml: there is no such file" plan --device-profile=./none.toml
refused "a link of nothing" 2 "--link-gbs" plan --link-gbs=0
exit $((failures > 0))
