#!/bin/bash
# `plan`: the memory of every level, to the byte, without allocating it.
set -u
. tests/e2e/lib.bash

# number KEY [N]: the N-th value of that key in the JSON text on stdin.
number() { sed -n "s/^ *\"$1\": \([0-9.e+-]*\),*$/\1/p" | sed -n "${2:-1}p"; }

# ---- JSON -------------------------------------------------------------------------------

must "--json" plan --model=gpt2-xl --batch-size=8 --seq-len=1024 --json
mv out plan.json
if command -v python3 >/dev/null; then
    check "--json is JSON" python3 -m json.tool plan.json
else
    skip "--json is JSON" "no python3"
fi
check "the keys of the object" test "$(sed -n 's/^  "\([a-z_]*\)":.*/\1/p' plan.json | tr '\n' ' ')" \
    = "model parameters formats limit_bytes plans "
keys="recompute batch_size arena_bytes activation_bytes layer_activation_bytes logits_chunk_tokens block_tokens"
keys="$keys tile_tokens fused"
keys="$keys peak_position extra_flops_ratio predicted_step_ms update total_bytes offload host_bytes by_consumer"
last="layers modes in_words fits"
of_host="host_by_consumer host_bytes_in_per_update host_bytes_out_per_update"
wanted=$(for policy in "${policies[@]}"; do
    [ "$policy" = offload ] && printf '%s ' "$keys $of_host $last" || printf '%s ' "$keys $last"
done)
check "the keys of every plan" test "$(sed -n 's/^      "\([a-z_]*\)":.*/\1/p' plan.json | tr '\n' ' ')" = "$wanted"
check "every policy, in order" test "$(sed -n 's/^ *"recompute": "\(.*\)",/\1/p' plan.json | tr '\n' ' ')" \
    = "${policies[*]} "
check "the published number of parameters" test "$(number parameters <plan.json)" = 1557611200
falling() { # three numbers, each below the one before
    [ "$2" -lt "$1" ] && [ "$3" -lt "$2" ]
}
for key in layer_activation_bytes arena_bytes total_bytes; do
    check "$key(2) < $key(1) < $key(0)" falling $(number $key <plan.json) $(number $key 2 <plan.json) \
        $(number $key 3 <plan.json)
done
adds_up() {
    awk -F'[:,]' '
        /"total_bytes"/ { total = $2 }
        /"by_consumer"/ { inside = 1; sum = 0; next }
        inside && /}/ { inside = 0; plans++; if (sum != total) { print sum, total; bad = 1 } }
        inside { sum += $2 }
        END { exit bad || plans != 6 }' plan.json
}
check "the consumers add up to the total" adds_up

# ---- without allocating -----------------------------------------------------------------------

TIMEFORMAT='%3U %3S'
{ time confined plan --model=gpt2-xl --batch-size=8 --seq-len=1024 --bytes; } 2>times
seconds=$(cat times)
rm times
check "60 GB are planned within 2 GB" test "$status" = 0
check "in less than 2 s of processor time ($seconds)" awk '{ exit !($1 + $2 < 2) }' <<<"$seconds"
check "every policy has a line, and a column of each memory" \
    test "$(grep -c -E '^(0 none|1 layer|2 sqrt|  act|  attn|  offload) ' out) \
$(COLUMNS=160 "$TRAIN_GPT" plan --model=gpt2-xl --batch-size=8 --seq-len=1024 |
        grep -c -E 'none +layer +sqrt +act +attn +offload')" = "6 2"
check "the breakdown ends with the total" \
    grep -q "^total .*$(number total_bytes <plan.json | sed ':a; s/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/; ta')" out
check "nothing is written" test -z "$(find . -newer plan.json ! -name out ! -name err ! -name 'check.out' ! -name .)"

# ---- what is planned is what a run takes -----------------------------------------------------------

for setting in "gpt2-nano 0 fp32" "gpt2-nano 2 fp32" "llama-nano 1 fp32" "llama-nano attn fp32" "gpt2-nano 1 bf16" \
    "gpt2-nano offload fp32"; do
    read -r model level dtype <<<"$setting"
    shape=("${tiny[@]}" --model="$model" --recompute="$level" --dtype="$dtype" --data=text.txt)
    must "plan $setting" plan "${shape[@]}" --json
    planned=$(number total_bytes <out)
    if [ "$dtype" = bf16 ] && ! bf16_works; then
        skip "$setting" "this processor or build has no bf16"
        continue
    fi
    must "train $setting" "${shape[@]}" "${quiet[@]}" --steps=2 --output-dir="run $setting"
    check "$setting: planned bytes are allocated bytes" \
        test "$(sed -n '$s/.*"memory_bytes":\([0-9]*\).*/\1/p' "run $setting/metrics.jsonl")" = "$planned"
done

# ---- options -------------------------------------------------------------------------------------------

must "some" plan --recompute=2,0 --json
check "--recompute names the plans" test "$(sed -n 's/^ *"recompute": "\(.*\)",/\1/p' out | tr '\n' ' ')" = "sqrt none "
must "steps" plan --layers=2 --recompute=1 --list-steps
check "--list-steps prints the plan" test "$(grep -c -i -E '(forward|backward) of' out)" -ge 30
must "budget" plan --model=gpt2 --batch-size=4 --seq-len=1024 --memory-budget=4GiB
check "--memory-budget says which levels fit" grep -q 'within --memory-budget=4GiB' out
must "config" plan --config="run gpt2-nano 2 fp32/config.toml" --json
check "--config of a run gives that run's plan" test "$(number total_bytes <out)" \
    = "$(sed -n '$s/.*"memory_bytes":\([0-9]*\).*/\1/p' "run gpt2-nano 2 fp32/metrics.jsonl")"
refused "a policy that does not exist" 2 "--recompute=x" plan --recompute=0,x
refused "a sequence beyond the model's" 2 "--seq-len=2048" plan --model=gpt2 --seq-len=2048

# ---- ranks ---------------------------------------------------------------------------------------------

totals=
for zero in 0 1 2 3; do
    must "ranks" plan --model=llama3-8b --batch-size=2 --seq-len=4096 --dtype=bf16 --device-profile=h100 \
        --recompute=1 --ranks=8 --zero=$zero --json
    totals="$totals $(number total_bytes <out)"
done
# shellcheck disable=SC2086  # a list of numbers
check "memory per rank falls with every ZeRO stage" falling $totals
for key in communication_bytes_per_update link_bytes_per_second exposed_communication_ms hiding_bytes_per_second; do
    check "--ranks adds $key" test -n "$(number $key <out)"
done
must "ranks, table" plan --model=llama3-8b --batch-size=2 --seq-len=4096 --recompute=0,1 --ranks=8 --zero=3
check "the table of communication" grep -q '^8 ranks, ZeRO 3  *none  *layer$' out
must "ranks, steps" plan --layers=2 --recompute=1 --list-steps --ranks=2 --zero=3
check "--list-steps shows reductions and gathers" \
    test "$(grep -c -E 'wait for (gradients|parameters)' out)" -ge 6
run plan --zero=2
check "--zero without ranks is noted" test "$status $(grep -c 'W --zero: has no effect; one rank' err)" = "0 1"
refused "no ranks" 2 "--ranks" plan --ranks=0
refused "--rank-invariant with 3 ranks" 2 "--rank-invariant: has no order of sums for 3 ranks" \
    plan --ranks=3 --rank-invariant

exit $((failures > 0))
