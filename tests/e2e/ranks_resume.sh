#!/bin/bash
# A run goes on with another number of ranks and another ZeRO stage as if nothing had changed, to the bit where the
# order of sums is fixed; and what several ranks have saved is as good as what one saves for everything else.
# shellcheck disable=SC2317  # functions are called through check
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

ranks_here

setting=(--layers=3 --channels=32 --heads=2 --batch-size=1 --seq-len=32 --data=text.txt --steps=12 --warmup=4
    --val-every=4 --val-sequences=10 --sample-length=0 --check-ranks --checkpoint-every=6)
fixed=("${setting[@]}" --total-batch-size=256 --rank-invariant)

# Parameters, too: their checksum stands at the end of a line.
bits() { sed 's/,"step_ms".*"parameters"/,"parameters"/' "$1/metrics.jsonl"; }
second_half() { sed -n '/"step":7,/,$p'; }
half=checkpoints/step-00000006
end=checkpoints/step-00000012

# resume COUNT FROM TO ARGUMENTS...: from the middle of a run, into another folder; with one rank without mpirun.
resume() {
    local count=$1 from=$2 to=$3
    shift 3
    set -- --resume="$from/$half" --output-dir="$to" --check-ranks "$@"
    if [ "$count" -eq 1 ]; then
        must "$to" "$@"
    else
        must_ranks "$to" "$count" "$@"
    fi
}

# ---- the same bits ---------------------------------------------------------------------------------------------

for family in gpt2-nano llama-nano; do
    must "$family" "${fixed[@]}" --model=$family --output-dir=$family-1
    few="4-2 4-3 2-1 1-0"
    [ $family = gpt2-nano ] || few=4-3
    for saved in $(all_or "$few" "4-2 4-3 2-1 1-0"); do # ranks and stage
        saved=${saved/-/ }
        read -r count zero <<<"$saved"
        from=$family-$count-$zero
        if [ "$count" -eq 1 ]; then
            from=$family-1
        else
            must_ranks "$from" "$count" "${fixed[@]}" --model=$family --zero="$zero" --output-dir="$from"
            check "$family, $count ranks, ZeRO $zero: the bits of one" cmp <(bits $family-1) <(bits "$from")
        fi
        for then in "4 2" "2 1" "2 3" "1 0"; do
            read -r count zero <<<"$then"
            [ "$saved" != "$then" ] || continue
            resume "$count" "$from" to "--zero=$zero"
            check "$family: ${saved% *} ranks at ZeRO ${saved#* }, then $count at ZeRO $zero: the bits of one run" \
                cmp <(bits $family-1 | second_half) <(bits to)
            rm -rf to
        done
    done
done

if bf16_works; then
    must_ranks "bf16" 4 "${fixed[@]}" --dtype=bf16 --zero=2 --output-dir=bf16
    resume 2 bf16 bf16-2 --zero=3
    resume 1 bf16 bf16-1 --zero=0
    check "bf16: 4 ranks at ZeRO 2, then 2 at ZeRO 3: the bits of one run" cmp <(bits bf16 | second_half) <(bits bf16-2)
    check "bf16: 4 ranks at ZeRO 2, then 1: the bits of one run" cmp <(bits bf16 | second_half) <(bits bf16-1)
else
    skip "bf16" "this processor or build has no bf16"
fi

# ---- three ranks -----------------------------------------------------------------------------------------------

losses() { sed -n 's/^{"step":\([0-9]*\),"\(val_\)\{0,1\}loss":\([^,}]*\).*/\1 \3/p' "$1/metrics.jsonl"; }
# near A B LINES: losses and validation losses agree to 1e-6.
near() {
    paste -d' ' <(losses "$1" | tail -n "$3") <(losses "$2") | awk -v lines="$3" '
        NF != 4 || $1 != $3 { print "line " NR ": " $0; bad = 1; exit }
        { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d }
        END { if (bad || NR != lines || worst > 1e-6) { print "worst", worst, "of", NR; exit 1 } }'
}

must_ranks "3 ranks" 3 "${setting[@]}" --total-batch-size=768 --zero=3 --output-dir=three
resume 3 three three-3 --zero=3
check "3 ranks at ZeRO 3, then 3: the bits of one run" cmp <(bits three | second_half) <(bits three-3)
for then in "4 2" "2 3" "1 0"; do
    read -r count zero <<<"$then"
    resume "$count" three "three-$count" "--zero=$zero"
    check "3 ranks at ZeRO 3, then $count at ZeRO $zero: the losses of one run to 1e-6" near three "three-$count" 8
done

# ---- everything else takes the files of several ranks -----------------------------------------------------------

four_parts() {
    local what
    for what in model optimizer; do
        printf ' %s-%05d-of-00004.safetensors' $what 1 $what 2 $what 3 $what 4
    done
}
check "four ranks save four parts" test "$(cd gpt2-nano-4-2/$end && echo *)" = "manifest.json$(four_parts) run"

for from in one four; do
    run_folder=gpt2-nano-1
    [ $from = one ] || run_folder=gpt2-nano-4-2
    must "generate, $from" generate --run=$run_folder --prompt="the lord" --length=40 --temperature=0.7 --seed=3
    mv out generated.$from
    must "evaluate, $from" evaluate --run=$run_folder
    sed 's/gpt2-nano-[0-9-]*//' out >evaluated.$from
    must "export, $from" export --run=$run_folder --out=hf.$from
    must "export, llm.c, $from" export --run=$run_folder --format=llmc --out=llmc.$from.bin
done
check "generate: the text of one rank's checkpoint" cmp generated.one generated.four
check "generate: there is text" test "$(wc -c <generated.one)" -gt 40
check "evaluate: the loss of one rank's checkpoint" cmp evaluated.one evaluated.four
check "evaluate: there is a loss" grep -q '[0-9]\.[0-9]' evaluated.one
check "export: the files of one rank's checkpoint" diff -r hf.one hf.four
check "export to llm.c: the file of one rank's checkpoint" cmp llmc.one.bin llmc.four.bin
must "other weights" generate --run=gpt2-nano-4-2/$half --prompt="the lord" --length=40 --temperature=0.7 --seed=3
check "generate: another text from other weights" bash -c '! cmp -s generated.four out'

# ---- damage ----------------------------------------------------------------------------------------------------

flip() { # flip FILE OFFSET: changes one bit of that byte
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    bytes $((byte ^ 4)) 1 | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# damaged NAME PATTERN: one line of error from whatever reads the copy; with ranks from rank 0 alone.
damaged() {
    refused "$1: resume with one rank" 1 "--resume: $2" --resume=copy --steps=14
    refused "$1: generate" 1 "--run: $2" generate --run=copy --length=3
    refused "$1: evaluate" 1 "--run: $2" evaluate --run=copy
    refused "$1: export" 1 "--run: $2" export --run=copy --out=new
    tcp_ranks 4 --resume=copy --steps=14 --comm-timeout=10
    check "$1: resume with four ranks: exit code 1" test "${codes[*]}" = "1 1 1 1"
    check "$1: resume with four ranks: one line" \
        test "$(errors err.0 | grep -c -E "^rank [0-3] \(.*\): --resume: $2"):$(cat err.? | grep -c -v ' I ')" = 1:1
}
fresh_copy() { rm -rf copy && cp -r gpt2-nano-4-2 copy; }

for file in model-00003-of-00004 optimizer-00002-of-00004; do
    fresh_copy
    rm "copy/$end/$file.safetensors"
    damaged "a missing $file" "'copy/.*/$file.safetensors' is missing"
    fresh_copy
    flip "copy/$end/$file.safetensors" 5000
    damaged "one bit of $file" "'copy/.*/$file.safetensors' is damaged"
    fresh_copy
    truncate -s 5000 "copy/$end/$file.safetensors"
    damaged "a truncated $file" "'copy/.*/$file.safetensors' is truncated"
done
fresh_copy
cp "copy/$end/model-00001-of-00004.safetensors" "copy/$end/model-00002-of-00004.safetensors"
damaged "a part in the place of another" "'copy/.*/model-00002-of-00004.safetensors' is (damaged|truncated|too long)"
fresh_copy
cp "gpt2-nano-1/$end/model.safetensors" "copy/$end/"
must "a file too many" --resume=copy --steps=14
check "a file that the manifest does not name changes nothing" test "$(newest copy)" = 14

exit $((failures > 0))
