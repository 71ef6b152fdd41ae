#!/bin/bash
# --recompute=auto: stays within its budget, trains the same curve, and says what would do when nothing fits.
set -u
. tests/e2e/lib.bash
export XDG_CACHE_HOME=$PWD/cache

shape=(--layers=8 --channels=32 --heads=2 --batch-size=4 --seq-len=64)

total() { # total POLICY [ARGUMENTS...]: bytes that plan predicts
    local policy=$1
    shift
    run plan "${shape[@]}" --vocab-size=257 --recompute="$policy" "$@" --json
    sed -n 's/.*"total_bytes": \([0-9]*\).*/\1/p' out
}
none=$(total none)
sqrt=$(total sqrt)
fit() { # fit FOLDER ARGUMENTS...
    must "$1" "${shape[@]}" "${quiet[@]}" --data=text.txt --steps=4 --warmup=1 --output-dir="$1" "${@:2}"
}
auto_train() { # auto_train FOLDER BUDGET ARGUMENTS...
    fit "$1" --recompute=auto --memory-budget="$2"B "${@:3}"
}
memory_of() { sed -n 's/.*"memory_bytes":\([0-9]*\).*/\1/p' "$1/metrics.jsonl" | head -n 1; }

fit none --recompute=none
for budget in "$sqrt" $(((sqrt + none) / 2)) "$none"; do
    auto_train "auto-$budget" "$budget"
    check "with $budget bytes: the curve of level 0" cmp <(curve none) <(curve "auto-$budget")
    check "with $budget bytes: within the budget" test "$(memory_of "auto-$budget")" -le "$budget"
done
check "with all the memory it wants, auto keeps everything" test "$(memory_of "auto-$none")" -eq "$none"

check "plan names what auto keeps" grep -q "auto: the fastest within" <(
    run plan "${shape[@]}" --recompute=2,auto --memory-budget="$sqrt"B && cat out
)
run plan "${shape[@]}" --recompute=auto --memory-budget=1MiB
check "nothing fits: exit code 1" test "$status" -eq 1
check "nothing fits: one line that says what would" \
    grep -Eq "^.*--recompute=auto: the smallest plan .* needs .* is not enough .*raise --memory-budget to [0-9]+" err
bytes_of() { numfmt --from=iec-i <<<"${1%B}"; } # bytes_of 512KiB
smallest=$(bytes_of "$(sed -n 's/.*raise --memory-budget to \([0-9A-Za-z]*\).*/\1/p' err)")
run plan "${shape[@]}" --recompute=auto --memory-budget="$smallest"B
check "the smallest budget it names is enough" test "$status" -eq 0

# take BUDGET: every way out that the error names is one.
ways=0
take() {
    local way advice batch length bytes level more
    run plan "${shape[@]}" --recompute=auto --memory-budget="$1"B
    advice=$(sed -n '/ E /s/.*; //p' err | sed 's/, or /\n/g')
    while read -r way; do
        batch=4 length=64 bytes=$1 level=(--recompute=auto) more=()
        case $way in
            "raise --memory-budget to "*) bytes=$(bytes_of "${way##* }") ;;
            "lower --batch-size to "*) batch=${way##* } ;;
            "lower --seq-len to "*) length=${way##* } ;;
            "take --"* | "keep less of the optimiser"* | "take a smaller model, such as"*)
                way=--${way#*--} way=${way%% (*}
                read -ra more <<<"$way"
                [[ $way != *--recompute=* ]] || level=()
                ;;
            "take a smaller model" | "nothing that was tried fits" | "a device with more memory") continue ;;
            *) more=(--unknown) ;;
        esac
        run plan --layers=8 --channels=32 --heads=2 "--batch-size=$batch" "--seq-len=$length" "${level[@]}" \
            "--memory-budget=${bytes}B" "${more[@]}"
        check "advice with $1 bytes, $way: it helps" test "$status" = 0
        ways=$((ways + 1))
    done <<<"$advice"
}
for share in 99 90 80 60 1; do take $((smallest * share / 100)); done
check "there was advice" test "$ways" -ge 8

refused "too large for a level" 1 "none needs .*, fits with --batch-size=[1-3]; layer needs" "${shape[@]}" \
    --data=text.txt --output-dir=new --memory-budget=$((none * 7 / 10))B
batch=$(sed -n 's/.* none needs [^,]*, fits with --batch-size=\([0-9]*\);.*/\1/p' err)
must "the batch size it names" "${shape[@]/--batch-size=4/--batch-size=$batch}" --data=text.txt --dry-run \
    --memory-budget=$((none * 7 / 10))B

auto_train calibrated "$none" --calibrate
check "--calibrate keeps its times" test -n "$(ls "$XDG_CACHE_HOME/train_gpt/")"
check "and says so" grep -q "calibrated: operation times" err
printf 'damaged' >"$(ls "$XDG_CACHE_HOME"/train_gpt/*.json)"
auto_train after "$none"
check "damaged times are ignored with a line" grep -q "is damaged .* and is ignored; --calibrate measures again" err

auto_train again "$none" --calibrate
sed -i 's/"made_by": "[^"]*"/"made_by": "of-old"/' "$(ls "$XDG_CACHE_HOME"/train_gpt/*.json)"
auto_train stale "$none"
check "times of another build are ignored with a line" \
    grep -q "is of train_gpt of-old, .* --calibrate measures again" err
check "what a step took stands beside what was predicted" \
    grep -Eq "time +[0-9.]+ ms per step in the median of 2, predicted [0-9.]+ ms" err

# --batch-size=auto: the total stays, the micro-batch is what fits.
small=(--layers=8 --channels=32 --heads=2 --seq-len=64 --total-batch-size=512 --batch-size=auto)
train_auto() { # train_auto FOLDER BUDGET ARGUMENTS...
    must "$1" "${small[@]}" "${quiet[@]}" --data=text.txt --steps=4 --warmup=1 --output-dir="$1" \
        --memory-budget="$2"B "${@:3}"
}
batch_of() { sed -n 's/^batch-size = //p' "$1/config.toml"; }
plan_total() { # plan_total POLICY BATCH
    run plan --layers=8 --channels=32 --heads=2 --seq-len=64 --vocab-size=257 --batch-size="$2" --recompute="$1" --json
    sed -n 's/.*"total_bytes": \([0-9]*\).*/\1/p' out
}
train_auto roomy "$(plan_total none 8)" --recompute=0
check "with room for all eight sequences it takes them" test "$(batch_of roomy)" -eq 8
train_auto tight $(($(plan_total none 4) - 1)) --recompute=0
check "a byte less than four sequences need: two" test "$(batch_of tight)" -eq 2
train_auto search $(($(plan_total sqrt 8) - 1)) --recompute=auto
check "auto and auto: fits" test "$(memory_of search)" -lt "$(plan_total sqrt 8)"
loss_of() { sed -n 's/.*"step":4,"loss":\([0-9.]*\).*/\1/p' "$1/metrics.jsonl"; }
check "the same training, whatever the micro-batch" \
    awk -v a="$(loss_of roomy)" -v b="$(loss_of tight)" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-8) }'
run plan "${small[@]}" --vocab-size=257 --recompute=none,sqrt --memory-budget=$(($(plan_total none 4) - 1))B
check "plan says which micro-batch each level gets" grep -q "512 tokens per update.*micro-batch: none 2 sqrt [48]" out
run --batch-size=auto --total-batch-size=100 --seq-len=64
check "a total that is no multiple of the sequence is refused" \
    grep -q -- "--total-batch-size=100: must be a multiple of --seq-len=64" err
run --batch-size=some
check "a batch size that is neither number nor auto is refused" grep -q -- "--batch-size: must be auto or a whole" err
run --memory-budget=900TiB --data=text.txt
check "a budget beyond the device is refused" grep -q -- "--memory-budget=900TiB: this device has" err

run plan --model=gpt2-xl --device-profile=h100 --dtype=bf16 --recompute=1,auto --memory-budget=40GiB
check "plans for another device" grep -q "step times: analytic, h100" out
run plan --device-profile=abacus
check "an unknown device profile is refused by name" grep -q -- "--device-profile=abacus: no such profile" err
exit $((failures > 0))
