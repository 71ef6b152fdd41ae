#!/bin/bash
# A fresh training run: the files it writes, what it prints and where, and that it learns.
set -u
. tests/e2e/lib.bash

must "a run succeeds" "${tiny[@]}" --model=gpt2-nano --data=text.txt --steps=60 --warmup=5 --val-every=20 \
    --sample-every=30 --sample-length=40 --sample-prompt=the --checkpoint-every=25 --output-dir=run
cp out samples

# ---- the run folder ----------------------------------------------------------------

exist() {
    local file
    for file in "$@"; do [ -s "$file" ] || { echo "no $file"; return 1; }; done
}
check "the run folder has config.toml, metrics.jsonl, train.log, checkpoints/latest" \
    exist run/config.toml run/metrics.jsonl run/train.log run/checkpoints/latest

check "checkpoints every 25 steps and at the end, latest names the newest" \
    test "$(ls run/checkpoints) $(cat run/checkpoints/latest)" \
    = "$(printf 'latest\nstep-00000025\nstep-00000050\nstep-00000060 step-00000060')"

check "nothing temporary stays" test -z "$(find . -name '*tmp*')"

check "config.toml has the options that shape the run" \
    grep -q -x -e 'batch-size = 2' -e 'model = "gpt2-nano"' -e 'learning-rate = 0.003' run/config.toml

# ---- metrics -------------------------------------------------------------------------

keys='{"step","loss","lr","grad_norm","step_ms","tokens_per_second","mfu","memory_bytes"}'
check "metrics.jsonl has a line per step with exactly the documented keys" \
    test "$(grep -v val_loss run/metrics.jsonl | sed 's/":[^,}]*/"/g' | sort | uniq -c | awk '{ print $1, $2 }')" \
    = "60 $keys"

check "the steps are 1 .. 60, in order" \
    test "$(grep -v val_loss run/metrics.jsonl | sed 's/.*"step":\([0-9]*\).*/\1/' | tr '\n' ' ')" = "$(seq -s ' ' 60) "

check "a line with step and val_loss per evaluation" \
    test "$(sed -n 's/^{"step":\([0-9]*\),"val_loss":[0-9.]*}$/\1/p' run/metrics.jsonl | tr '\n' ' ')" = "0 20 40 60 "

falls() {
    awk -F'[:,]' '/"loss"/ { loss[$2] = $4 }
        END { print loss[1], loss[60]; exit !(loss[1] > 5 && loss[60] < loss[1] - 2) }' run/metrics.jsonl
}
check "the loss falls" falls

# ---- stdout, stderr, the log -------------------------------------------------------------

check "stdout holds the samples and nothing else" \
    test "$(grep -a -c -e '^---- sample after 30 steps ----$' -e '^---- sample after 60 steps ----$' samples) \
$(grep -a -c -e ' I ' -e 'loss' samples)" = "2 0"

check "samples begin with the prompt" test "$(grep -a -c '^the' samples)" -ge 2

says() { grep -q -E -e "$1" err || { echo "stderr has no: $1"; return 1; }; }
check "the banner names the model and its parameters" says 'model .*GPT-2, 3 layers, .* parameters'
check "the banner names the data" says "data .*'text.txt'.* tokens for training"
check "the banner says the plan in words" says 'plan .*keeps every activation'
check "the banner has the memory table" says 'memory .* KiB +parameters'
check "the banner has the memory's total and the peak's position" says 'memory .*in all.*peak at'
check "a line per logged step: loss, rate, norm" says 'step 10/60 \| loss [0-9.]+ \| lr [0-9.e+-]+ \| norm [0-9.]+ \|'
check "and time, speed, MFU, memory, time left" says '\| [0-9.]+ ms \| [0-9,]+ tok/s \| .*MFU.* \| .*iB \| .* left'
check "a line per validation" says 'step 20: validation loss [0-9.]+ nats per byte'
check "train.log has what stderr had since the run began" \
    test "$(grep -c 'step .* | loss' run/train.log)" = "$(grep -c 'step .* | loss' err)"

# ---- smaller things -------------------------------------------------------------------------

run "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2 --output-dir=run
check "a new run does not write over an old one" test "$status:$(grep -c -e '--resume=run' err)" = 2:1

must "a run without --output-dir" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2
check "without --output-dir the run is in runs/MODEL-TIME" test "$(ls -d runs/gpt2-nano-*/checkpoints | wc -l)" = 1
check "no samples with --sample-length=0" test ! -s out

must "--config" --config=run/config.toml --steps=3 --output-dir=again
check "--config repeats a run, the command line wins" \
    test "$(sed -n 's/^steps = //p' again/config.toml) $(sed -n 's/^batch-size = //p' again/config.toml)" = "3 2"
check "the repeated run begins with the same loss" \
    test "$(curve run | sed -n '1s/"lr".*//p')" = "$(curve again | sed -n '1s/"lr".*//p')"

must "--log-level=warn" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --output-dir=silent --log-level=warn
check "is silent when all is well" test ! -s err
must "a learning rate that ruins the model" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --output-dir=warm \
    --learning-rate=1 --lr-schedule=constant --warmup=0 --grad-clip=0 --log-level=warn
check "is one warning" test "$(wc -l <err) $(grep -c ' W the training diverged: ' err)" = "1 1"

must "--profile" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --output-dir=profiled --profile=trace.json
check "--profile prints a table" grep -Eq "^weight gradient of qkv +[0-9]+ +[0-9.]+ +[0-9.]+%" out
must "--profile over an older trace" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --profile=trace.json \
    --output-dir=profiled-again
cp text.txt mine.txt
run "${tiny[@]}" "${quiet[@]}" --data=mine.txt --steps=3 --output-dir=new --profile=mine.txt
check "--profile over the training data" test "$status" = 2 -a ! -e new
check "is refused" grep -q " E --profile=mine.txt: is there already, and is no trace; name another file" err
check "which stay as they were" cmp text.txt mine.txt
check "--profile writes a trace" grep -q '"traceEvents"' trace.json
must "the same without it" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=3 --output-dir=unprofiled
check "a profiled step trains like any other" cmp <(curve unprofiled) <(curve profiled)

exit $((failures > 0))
