#!/bin/bash
# Checkpoints that are damaged, foreign, too new, or cannot be written: one line of error, and the good ones stay good.
set -u
. tests/e2e/lib.bash

train run --steps=4 --checkpoint-every=2
step2=run/checkpoints/step-00000002
step4=run/checkpoints/step-00000004

# ---- no checkpoint at all -------------------------------------------------------------------

mkdir folder
refused "resume of nothing" 1 "--resume=absent" --resume=absent
refused "resume of a folder that is no run" 1 "--resume=folder: has no config.toml" --resume=folder
refused "resume of a file" 1 "--resume=text.txt: is a file; give a run folder, such as runs/NAME" --resume=text.txt
refused "resume of a step that is not there" 1 "--resume.*step-00000003" --resume=run/checkpoints/step-00000003
refused "resume with a configuration" 2 "--config=x: .*leave --config out" --resume=run --config=x
refused "generate without a run" 2 "--run" generate
refused "generate from nothing" 2 "--run=absent" generate --run=absent
refused "generate from a folder that is no run" 2 "--run=folder" generate --run=folder

mkdir young
cp run/config.toml young
refused "resume of a run without a checkpoint" 1 \
    "--resume: 'young' holds no complete checkpoint: the run ended before its first; begin again, .*every=50$" \
    --resume=young
refused "generate from it" 1 "--run: 'young' holds no complete checkpoint: the run ended before" generate --run=young
"$TRAIN_GPT" --resume=young >out 2>err
eval "advice=($(grep -o -e '--config=.*' err))"
must "the advice" "${advice[@]}" --steps=60 --output-dir=begun
check "the advice: there is one" test "$(ls -d begun/checkpoints/step-* | wc -l)" = 2
"$TRAIN_GPT" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1000000 --output-dir=busy >/dev/null 2>&1 &
job=$!
for _ in $(seq 300); do grep -q loss busy/metrics.jsonl 2>/dev/null && break; sleep 0.1; done
refused "resume of a run in progress" 1 "'busy' has no complete checkpoint yet; process $job on .* trains into it at" \
    generate --run=busy
kill -KILL $job
wait $job 2>/dev/null
refused "of one killed" 1 "--run: 'busy' holds no complete checkpoint: the run ended before" generate --run=busy

# ---- damage ------------------------------------------------------------------------------------

# damaged NAME PATTERN: resume and generate from the damaged copy refuse; the copy is made anew each time.
fresh_copy() { rm -rf copy && cp -r run copy; }
damaged() {
    refused "$1: resume" 1 "--resume: $2" --resume=copy --steps=6
    refused "$1: generate" 1 "--run: $2" generate --run=copy --length=3
}
flip() { # flip FILE OFFSET: changes one bit of that byte, from the end if negative
    local file=$1 offset=$2 byte
    [ "$offset" -ge 0 ] || offset=$(($(wc -c <"$file") + offset))
    byte=$(od -An -tu1 -j "$offset" -N 1 "$file")
    bytes $((byte ^ 4)) 1 | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
}

for file in model.safetensors optimizer.safetensors manifest.json; do
    size=$(wc -c <"$step4/$file")
    for offset in 9 $((size / 2)) -10; do
        fresh_copy
        flip "copy/checkpoints/step-00000004/$file" "$offset"
        damaged "one bit of $file at $offset" "'copy/.*/$file' (is damaged|was written by a newer)"
    done
    for keep in 0 7 $((size - 1)); do
        fresh_copy
        truncate -s "$keep" "copy/checkpoints/step-00000004/$file"
        damaged "$file truncated to $keep bytes" "'copy/.*/$file' is (truncated|damaged)"
    done
done
fresh_copy
rm copy/checkpoints/step-00000004/optimizer.safetensors
damaged "a missing file" "'copy/.*/optimizer.safetensors' is missing"

fresh_copy
flip copy/checkpoints/step-00000004/model.safetensors -10
must "resume from the one before" --resume=copy/checkpoints/step-00000002 --output-dir=elsewhere
check "an older checkpoint beside a damaged one can be resumed" cmp $step4/model.safetensors \
    elsewhere/checkpoints/step-00000004/model.safetensors

for content in '' 'step-00000099' 'rubbish' '../../etc'; do
    fresh_copy
    printf '%s' "$content" >copy/checkpoints/latest
    must "latest is '$content'" --resume=copy --steps=5
    check "where latest says '$content', the newest complete checkpoint is taken" \
        grep -q "resumed from 'copy/checkpoints/step-00000004'" err
done
fresh_copy
rm copy/checkpoints/step-00000004/manifest.json
must "an incomplete newest" --resume=copy --steps=5
check "a checkpoint without a manifest is not taken for a complete one" \
    grep -q "resumed from 'copy/checkpoints/step-00000002'" err

# ---- another model, another version --------------------------------------------------------------

fresh_copy
sed -i 's/"format_version": 1,/"format_version": 2,/' copy/checkpoints/step-00000004/manifest.json
damaged "a newer version" "'copy/.*/manifest.json' was written by a newer train_gpt .*update"

refused "another depth" 2 "--layers=2: the run's model \(.*\) has 3, and cannot have another; leave --layers out" \
    --resume=run --steps=6 --layers=2
refused "another family" 2 "--model=llama-nano: the run's model is gpt2-nano, and cannot be another; leave --model" \
    --resume=run --steps=6 --model=llama-nano
refused "another seed" 2 "--seed=5" --resume=run --steps=6 --seed=5
refused "another sequence length" 2 "--(seq-len|resume)=" --resume=run --steps=6 --seq-len=16

train other --model=llama-nano --steps=4
fresh_copy
cp other/checkpoints/step-00000004/model.safetensors copy/checkpoints/step-00000004/
damaged "a file of another model's checkpoint" "'copy/.*/model.safetensors' is"
fresh_copy
rm -r copy/checkpoints/step-0000000?
cp -r other/checkpoints/step-00000004 copy/checkpoints/
refused "the checkpoint of another model in the run" 2 "--resume=copy: .*checkpoint of another run" \
    --resume=copy --steps=6

# ---- a full disk -----------------------------------------------------------------------------------

# No file may grow beyond so many KiB. The model has about 200, the moments twice that.
limited() {
    local kib=$1
    shift
    (ulimit -f "$kib" && exec "$TRAIN_GPT" "$@") >out 2>err
    status=$?
}
for kib in 50 300; do
    fresh_copy
    limited $kib --resume=copy --steps=6
    check "a full disk at $kib KiB: one line of error after a second try, exit code 1" test \
        "$status:$(grep -c ' E .*copy/checkpoints.*large' err):$(grep -c ' W .*; it is tried once more$' err):$(
            grep -c -v ' I ' err)" = 1:1:1:2
    check "a full disk at $kib KiB: nothing half-written" \
        test "$(leftovers)$(ls -A copy/checkpoints | tr '\n' ' ')" = "latest step-00000002 step-00000004 "
    check "a full disk at $kib KiB: the old checkpoint is as it was" \
        cmp $step4/model.safetensors copy/checkpoints/step-00000004/model.safetensors
    must "after the full disk" --resume=copy --steps=6
    check "a full disk at $kib KiB: afterwards the run goes on" grep -q "resumed from .*step-00000004" err
done
limited 50 "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2 --output-dir=first
check "a full disk at the first checkpoint" test "$status:$(grep -c ' E ' err):$(ls -A first/checkpoints)" = 1:1:
if is_thread_sanitized; then
    skip "a full disk from the start" "the thread sanitizer writes a file itself as the program starts"
else # Not even the line of error can be written then.
    limited 0 "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2 --output-dir=none
    check "a full disk from the start leaves no run folder" test "$status:$(ls -d none 2>/dev/null)" = 1:
fi

exit $((failures > 0))
