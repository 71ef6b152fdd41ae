#!/bin/bash
# Frozen parameters: they stay as they were, the rest trains alike at every level and on any ranks, memory is what was
# planned, checkpoints and resumes know them, and patterns that cannot be meant are refused.
set -u
. tests/e2e/ranks.bash
. tests/e2e/lib.bash

if ! command -v python3 >/dev/null; then
    skip freeze "no python3, which reads checkpoints here"
    exit 0
fi

memory() { sed -n '1s/.*"memory_bytes":\([0-9]*\).*/\1/p' "$1/metrics.jsonl"; }
step() { echo "$1/checkpoints/step-0000000$2"; }
# names FILE...: of the tensors in checkpoints' files.
names() { cat "$@" | grep -a -o '"[a-z0-9_.]*":{"dtype"' | cut -d'"' -f2 | sort; }

# tensors STEP_FOLDER PATTERN: a checksum of every weight whose name matches, by name.
tensors() {
    python3 - "$1" "$2" <<'END'
import glob, hashlib, json, re, sys
lines = []
for path in glob.glob(sys.argv[1] + "/model*.safetensors"):
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8:8 + size]).items():
        if name == "__metadata__" or not re.fullmatch(sys.argv[2], name): continue
        first, end = tensor["data_offsets"]
        lines.append(name + " " + hashlib.sha1(data[8 + size + first:8 + size + end]).hexdigest())
print("\n".join(sorted(lines)))
END
}

freeze='wte,wpe,layers.0-1.*'
pattern='w.e|layers\.[01]\..*'
setting=(--steps=6 --checkpoint-every=3 --warmup=0 --learning-rate=1e-2)

train whole "${setting[@]}"
train frozen "${setting[@]}" --freeze=wte,wpe --freeze='layers.0-1.*'
check "the banner says what trains" grep -q -E \
    'trains  12,[0-9]+ of [0-9,]+ parameters \([0-9.]+ %\), from layer 2 up; --freeze=wte,wpe,layers.0-1\.\*$' err
check "frozen weights stay as they are" cmp <(tensors "$(step frozen 3)" "$pattern") \
    <(tensors "$(step frozen 6)" "$pattern")
check "the others change" test -z "$(comm -12 <(tensors "$(step frozen 3)" 'l.*') \
    <(tensors "$(step frozen 6)" 'l.*') | grep -v -E "^($pattern) ")"
check "all weights are stored" cmp <(names "$(step whole 6)"/model*) <(names "$(step frozen 6)"/model*)
check "those that are frozen once" test "$(names "$(step frozen 6)/model.safetensors" | grep -c -E "^($pattern)$") \
$(stat -c %h "$(step frozen 6)/model-frozen.safetensors")" = "0 2"
check "moments only of what trains" test -z "$(names "$(step frozen 6)/optimizer.safetensors" |
    grep -E "^[mv]\.($pattern)$")"
check "it begins with the loss of an unfrozen run" cmp <(curve whole | head -n 1 | sed 's/,"grad_norm".*//') \
    <(curve frozen | head -n 1 | sed 's/,"grad_norm".*//')

must "plan" plan --json "${tiny[@]}" --vocab-size=257 --recompute=0 --freeze="$freeze"
check "planned bytes are allocated bytes" \
    test "$(sed -n 's/^ *"total_bytes": \([0-9]*\),/\1/p' out)" = "$(memory frozen)"
check "plan --json counts what trains" grep -q '"trainable_parameters": 12[0-9]*' out
check "it takes less than half of the memory" test $((2 * $(memory frozen))) -lt "$(memory whole)"
must "plan of steps" plan "${tiny[@]}" --vocab-size=257 --recompute=1 --freeze="$freeze" --list-steps
check "no backward below the first layer that trains" \
    test -z "$(grep -E 'layer [01], .*(gradient|backward|repeated)' out)"
check "the layer above has one" grep -q 'layer 2, weight gradient of qkv' out

for policy in "${policies[@]}" auto; do
    budget=()
    [ "$policy" = auto ] && budget=(--memory-budget=900KiB)
    train "level-$policy" "${setting[@]}" --freeze="$freeze" --recompute="$policy" "${budget[@]}"
    check "the same curve with --recompute=$policy" cmp <(curve frozen) <(curve "level-$policy")
done

train again "${setting[@]}" --freeze="$freeze" --recompute=2
must "resume" --resume="$(step again 3)" --output-dir=resumed --recompute=0
for file in model optimizer; do
    check "a resumed run ends with the same $file" cmp {"$(step frozen 6)","$(step resumed 6)"}/$file.safetensors
done
check "the run's config.toml has the patterns" grep -q '^freeze = "wte,wpe,layers.0-1.\*"$' resumed/config.toml
must "the same rows by other words" --resume="$(step again 3)" --output-dir=others --freeze='*,!layers.2.*,!lnf_*'
check "are no other run" cmp "$(step frozen 6)/model.safetensors" "$(step others 6)/model.safetensors"
refused "other rows at a resume" 2 '--freeze=wte: in the run wpe was frozen .*leave --freeze and --trainable out' \
    --resume=again --freeze=wte --steps=9
refused "more rows at a resume" 2 'in the run wte was frozen .*--model=again --freeze=' \
    --resume=again --trainable=wte --steps=9
must "a new run with its weights" --model=again "${quiet[@]}" --data=text.txt --seq-len=32 --batch-size=2 --steps=1 \
    --trainable='lnf_*' --output-dir=tuned
check "only they changed" cmp <(tensors "$(step again 6)" '[^l].*|layers.*') \
    <(tensors "$(step tuned 1)" '[^l].*|layers.*')
must "generate" generate --run=frozen --length=5
must "export" export --run=frozen --format=hf --out=exported
must "evaluate" evaluate --run=frozen --data=text.txt

if bf16_works; then
    train bf16 "${setting[@]}" --freeze="$freeze" --dtype=bf16
    must "resume in bf16" --resume="$(step bf16 3)" --output-dir=bf16-resumed
    check "a run in bf16 resumes to the same weights" cmp {"$(step bf16 6)","$(step bf16-resumed 6)"}/model.safetensors
fi

refused "a pattern that matches nothing" 2 \
    '--freeze=h.0.attn: no parameter .* there are wte, wpe, layers.\*.ln1_weight' \
    "${tiny[@]}" --data=text.txt --freeze=h.0.attn
refused "a layer there is not" 2 '--trainable=layers.3.\*: no parameter .*\(layers 0-2\)' "${tiny[@]}" --data=text.txt \
    --trainable='layers.3.*'
refused "everything frozen" 2 '--freeze=\*: every parameter is frozen' "${tiny[@]}" --data=text.txt --freeze='*'
refused "an empty pattern" 2 '--freeze: an empty pattern' "${tiny[@]}" --data=text.txt --freeze=wte,,wpe
refused "an open bracket" 2 "--freeze=layers.\[0.\*: '\[' without '\]'" "${tiny[@]}" --data=text.txt \
    --freeze='layers.[0.*'
refused "a plan of nothing" 2 'every parameter is frozen' plan "${tiny[@]}" --freeze='w*,l*'

if command -v mpirun >/dev/null && ldd "$TRAIN_GPT" | grep -q libmpi; then
    for zero in 0 1 2 3; do
        must_ranks "zero $zero" 2 "${tiny[@]}" "${quiet[@]}" --data=text.txt --output-dir="zero-$zero" --steps=4 \
            --freeze="$freeze,layers.2.*_bias" --zero=$zero --check-ranks
        check "two ranks at ZeRO $zero train as at ZeRO 0" cmp <(curve zero-0) <(curve "zero-$zero")
        check "and end with its weights" cmp <(cat zero-0/checkpoints/step*/model*) \
            <(cat "zero-$zero"/checkpoints/step*/model*)
    done
else
    skip "ranks" "no mpirun, or this build has no MPI"
fi

exit $((failures > 0))
