#!/bin/bash
# Where memory is short, every way out that an error names is taken, and the run starts: fixed levels and auto, too
# little for activations and too little for parameters and optimiser, device and host, budgets and cards.
set -u
. tests/e2e/lib.bash
export COLUMNS=4000 # Lines of a report are whole.

base=(--layers=6 --channels=32 --heads=2 --batch-size=4 --seq-len=64 --vocab-size=257 --dtype=fp32)
train=(--data=text.txt --dry-run)

number() { sed -n "s/^ *\"$1\": \([0-9]*\),*$/\1/p" out | head -n 1; }

# options_of WAY: the options that a way out means, a line each.
options_of() {
    case $1 in
        *--*=*) grep -oE -e '--[a-z-]+=[^ )]+' <<<"$1" ;;
        *"raise --"*" to "*) sed -n 's/.*raise \(--[a-z-]*\) to \([0-9]*[GMK]*i*B\).*/\1=\2/p' <<<"$1" ;;
        *"lower --"*" to "*) sed -n 's/.*lower \(--[a-z-]*\) to \([0-9]*\).*/\1=\2/p' <<<"$1" ;;
    esac
}

# take NAME ARGUMENTS...: they must fail for want of memory, and with each way out that is named they must not.
taken=0
take() {
    local name=$1 way options
    shift
    run "$@"
    [ "$status" = 0 ] && [[ $name == *auto* ]] && return # It finds plans smaller than any level's.
    check "$name: fails" test "$status" = 1
    check "$name: in one line" test "$(grep -c ' E ' err)" = 1
    while read -r way; do
        mapfile -t options < <(options_of "$way")
        if [ ${#options[@]} = 0 ]; then
            [[ $way == *"take a smaller model"* || $way == *"a device with more memory"* ]] ||
                not_ok "$name: advice in words that this test knows" "$way"
            continue
        fi
        run "$@" "${options[@]}"
        check "$name, ${options[*]}: it starts" test "$status" = 0
        taken=$((taken + 1))
    done < <(sed -n 's/.*\(What would do: \|is not enough for it; \|available, by [^;]*; \|available; \)//p' err |
        sed 's/, or /\n/g')
}

# The last of an option counts, which is how advice is added to a command line. A batch in two places is an error.
without() { # without OPTION ARGUMENTS...: leaves it out.
    local option=$1 word
    shift
    for word; do [[ $word == "$option"=* ]] || printf '%s\n' "$word"; done
}
run() {
    local -a words=() options=()
    local word
    for word; do
        if [[ $word == --*=* ]]; then
            mapfile -t words < <(without "${word%%=*}" "${words[@]}")
        fi
        words+=("$word")
    done
    "$TRAIN_GPT" "${words[@]}" >out 2>err
    status=$?
}

for level in none auto; do
    run plan "${base[@]}" --recompute=$level --json
    whole=$(number total_bytes)
    run plan "${base[@]}" --recompute=sqrt --json
    least=$(number total_bytes)
    run plan "${base[@]}" --recompute=sqrt --json --batch-size=1 --seq-len=16
    floor=$(number total_bytes)
    for budget in $((least * 9 / 10)) $(((least + floor) / 2)) $((floor * 8 / 10)) $((floor / 2)); do
        [ "$budget" -lt "$whole" ] || continue
        take "--recompute=$level in $budget" "${base[@]}" "${train[@]}" --recompute=$level --memory-budget="$budget"B
    done
done
take "batch 1, the optimiser too large" "${base[@]}" "${train[@]}" --batch-size=1 --memory-budget=$((floor * 6 / 10))B
run "${base[@]}" "${train[@]}" --batch-size=1 --memory-budget=$((floor * 6 / 10))B
check "a batch of one is not to be lowered" test "$(grep -c 'lower --batch-size' err)" = 0
check "what binds is named" grep -q 'parameters, gradients and optimiser alone take' err
take "an update of 8 sequences" "${base[@]}" "${train[@]}" --recompute=none --total-batch-size=512 \
    --memory-budget=$((least * 8 / 10))B
take "host memory" "${base[@]}" "${train[@]}" --offload=all --host-memory-budget=100KiB
# Where the host is too small it is the host that is named, by a search as by a level.
for level in 1 auto; do
    refused "host memory, --recompute=$level" 1 "not enough host memory: --offload=all keeps .* there" \
        "${base[@]}" "${train[@]}" --layers=64 --channels=4096 --heads=32 --recompute=$level --offload=all \
        --memory-budget=20GiB
    run plan "${base[@]}" --device-profile=rtx4090 --recompute=$level --offload=all --host-memory-budget=100KiB
    check "a plan of --recompute=$level does not fit" grep -q -E '^(1 layer|  auto) .* no ' out
    check "nor is it said to" grep -q '^within .* and 100.0 KiB of host memory (--host-memory-budget): none; ' out
done
check "there was advice" test "$taken" -ge 20

# A plan for a card says that it does not fit, and what would; taking it, something fits.
run plan --model=gpt2-xl --batch-size=4 --seq-len=1024 --device-profile=rtx4090
check "a plan for a card of 24 GB that needs more says so" \
    grep -q '^within 23.0 GiB (24.0 GiB of rtx4090.*): none; ' out
check "no level is said to fit" test "$(grep -c -E '^(0|1|2| ) .* yes ' out)" = 0
ways=0
while read -r way; do
    mapfile -t options < <(options_of "$way")
    [ ${#options[@]} -gt 0 ] || continue
    run plan --model=gpt2-xl --batch-size=4 --seq-len=1024 --device-profile=rtx4090 --recompute=0 "${options[@]}"
    check "for the card, ${options[*]}: it fits" grep -q -E '^(0|1|2| ) .* yes ' out
    ways=$((ways + 1))
done < <(sed -n 's/.*: none; //p' out | sed 's/.*GiB; //; s/, or /\n/g')
check "there was advice for the card" test "$ways" -ge 1
check "bf16 is not advised where it is in use" test "$(grep -c 'dtype=bf16' out)" = 0
exit $((failures > 0))
