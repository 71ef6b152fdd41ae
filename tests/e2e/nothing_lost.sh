#!/bin/bash
# Nothing that was trained is lost: what fails late fails after a checkpoint, a resume with a mistake changes nothing, a
# full disk is waited for, a signal is answered at once, and one run folder has one process.
# shellcheck disable=SC2317  # functions are called through check and eventually
set -u
. tests/e2e/ranks.bash # for its ways to wait
. tests/e2e/lib.bash

small=("${tiny[@]}" --sample-length=0 --val-every=0 --lr-schedule=constant --warmup=0)
long=("${small[@]}" --steps=1000000)

# start FOLDER ARGUMENTS...: a run in the background, its process in $job, its output in the files out and err.
start() {
    local folder=$1
    shift
    env --default-signal=INT "$TRAIN_GPT" "$@" --output-dir="$folder" >out 2>err & # what a script's & would ignore
    job=$!
}
end() {
    wait "$job"
    status=$?
}
steps_of() { sed -n 's/^{"step":\([0-9]*\),"loss".*/\1/p' "$1/metrics.jsonl" | tail -n 1; }
error() { sed -n 's/^[0-9:]* E //p' err; }

# saved NAME FOLDER CAUSE: it ended with exit code 1 and one line of error, which says the cause and how to go on, after
# a checkpoint of the last step that was done.
saved() {
    local why='' steps
    steps=$(steps_of "$2")
    [ "$status" = 1 ] || why="exit code $status"
    [ "$(newest "$2")" = "$steps" ] || : "${why:=$steps steps, and the checkpoint is of $(newest "$2")}"
    [ "$(error | wc -l)" = 1 ] || : "${why:=not one line of error}"
    error | grep -q -E "$3.*step $steps is saved: go on with --resume=$2\$" || : "${why:=the error does not match $3}"
    if [ -z "$why" ]; then ok "$1"; else not_ok "$1" "$why: $(error | head -c 400)"; fi
}

# ---- what fails after training began -----------------------------------------------------------------------------

of_ids=(--layers=1 --channels=16 --heads=1 --batch-size=2 --seq-len=32 --sample-length=0 --warmup=0
    --lr-schedule=constant --tokenizer=none)

ids good.bin
cp good.bin data.bin
start data "${of_ids[@]}" --data=data.bin --val-every=0 --steps=1000000
eventually 30 steps_done data 3
spoil data.bin
end
saved "data that turns bad" data "has token 65535 in 'data.bin'"
cp good.bin data.bin
must "after the bad data" --resume=data --steps=$(($(steps_of data) + 2))

cp good.bin val.bin
start val "${of_ids[@]}" --data=good.bin --val-data=val.bin --val-every=25 --val-sequences=4 --steps=1000000
eventually 30 steps_done val 1
spoil val.bin
end
saved "validation data that turns bad" val "has token 65535 in 'val.bin'"

# The folder of the page goes while the run waits for a reader of its first sample.
mkdir gone
full_pipe
"$TRAIN_GPT" "${tiny[@]}" --val-every=0 --sample-length=5 --sample-every=1 --data=text.txt --steps=9 \
    --profile=gone/trace.json --output-dir=profile >pipe 2>err &
job=$!
eventually 60 steps_done profile 1
rmdir gone
read_pipe
end
saved "a profile that cannot be written" profile "profile=gone/trace.json: no folder 'gone'"
run "${small[@]}" --data=text.txt --steps=9 --profile=gone/trace.json --output-dir=new
check "where it cannot be written from the beginning, there is no beginning" test "$status:$(leftovers)" = "1:" -a \
    "$(error)" = "--profile=gone/trace.json: no folder 'gone'; make it first, or choose another place"

# A file that has grown to the largest size there may be, which the checkpoints are far from.
train metrics --steps=4
yes '{"step":1,"loss":1.5,"note":"to be larger than a checkpoint ........"}' | head -n 20000 >>metrics/metrics.jsonl
limit=$(($(wc -c <metrics/metrics.jsonl) / 1024 + 1))
(ulimit -f $limit && exec "$TRAIN_GPT" --resume=metrics --steps=400) >out 2>err
status=$?
check "metrics that cannot be written: exit code 1" test $status = 1
check "metrics that cannot be written: said, with how to go on" \
    grep -q -E ' E cannot write .metrics/metrics.jsonl.*step [0-9]+ is saved: go on with --resume=metrics$' err
check "metrics that cannot be written: a checkpoint of that step" \
    test "$(newest metrics)" = "$(sed -n 's/.*; step \([0-9]*\) is saved.*/\1/p' err)" -a "$(newest metrics)" -gt 4

# The closing sample may draw an id that no text belongs to; however it ends, the training is there.
run "${tiny[@]}" --val-every=0 --data=text.txt --vocab-size=320 --steps=3 --sample-length=200 --output-dir=padded
check "a closing sample of a padded vocabulary" test "$(newest padded)" = 3

# ---- a resume with a mistake -------------------------------------------------------------------------------------

must "ids" "${of_ids[@]}" --data=good.bin --val-every=0 --steps=4 --checkpoint-every=2 --output-dir=kept
cp good.bin spoiled.bin
spoil spoiled.bin
printf 'too short' >short.txt
state() { find kept -type f ! -name lock -exec cksum {} + | sort; }
state >before
# mistake NAME ARGUMENTS...
mistake() {
    run --resume=kept/checkpoints/step-00000002 --steps=8 "${@:2}"
    check "$1: refused" test "$status" != 0
    check "$1: nothing in the run folder has changed" cmp before <(state)
}
mistake "a resume with other data" --data=spoiled.bin
mistake "a resume with short validation data" --val-data=short.txt
mistake "a resume with another model" --layers=2
mistake "a resume in too little memory" --memory-budget=1KiB
mistake "a resume with a short file" --data=text.txt
"$TRAIN_GPT" --resume=kept/checkpoints/step-00000002 --steps=8 --total-batch-size=6400000 >out 2>err &
job=$!
eventually 30 grep -q ' I resumed from' err
sleep 0.3
kill -KILL $job
end 2>/dev/null
check "a resume that is killed in its first step: nothing in the run folder has changed" cmp before <(state)
must "a resume without a mistake" --resume=kept/checkpoints/step-00000002 --steps=8
check "then config.toml is that of the run" grep -q -x 'steps = 8' kept/config.toml
check "and train.log has its beginning" test "$(grep -c "resumed from 'kept" kept/train.log)" = 1

train begun --steps=2
rm -r begun/checkpoints/* && mkdir begun/checkpoints/.tmp-step-00000002
sed -i -e '/"saved"/d' -e 's/,$//' begun/run.json # as it is before the first
must "a run that never came to a checkpoint" "${small[@]}" --data=text.txt --steps=2 --output-dir=begun

# ---- a full disk ----------------------------------------------------------------------------------------------

(ulimit -S -f 50 && exec "$TRAIN_GPT" "${small[@]}" --data=text.txt --steps=1000000 --checkpoint-every=10 \
    --output-dir=full) >out 2>err &
job=$!
warned() {
    grep -q -E ' W step 10: no checkpoint: .*too large.*; training goes on, and tries again at step 20$' err
}
eventually 30 grep -q ' W step 10' err
check "a full disk: said, and training goes on" warned
prlimit --pid $job --fsize=unlimited
saved_later() { [ -s full/checkpoints/latest ]; }
check "a full disk: the next checkpoint is tried" eventually 30 saved_later
kill -TERM $job
end
check "a full disk that got room: exit code 0" test "$status:$(newest full)" = "0:$(steps_of full)"

run_limited() { (ulimit -f 50 && exec "$TRAIN_GPT" "$@") >out 2>err; }
run_limited "${small[@]}" --data=text.txt --steps=6 --checkpoint-every=2 --output-dir=never
check "a disk full to the end: exit code 1, and nothing half-written" \
    test "$?:$(grep -c ' W step [24]: no checkpoint' err):$(ls -A never/checkpoints)" = 1:2:
check "a disk full to the end: what there is to go on from" \
    grep -q ' E step 6 could not be saved: .*File too large.*; there is no checkpoint to go on from' err

# ---- a disk that fails once ---------------------------------------------------------------------------------------

# Whatever is synced fails in one of the runs: a file of the only checkpoint, and it is tried once more; the metrics,
# which ends the run after that; or before the first step.
faults=$BUILD_DIR/faults.so
if [ -e "$faults" ] && ! is_sanitized; then
    faulty() {
        rm -rf faulty
        LD_PRELOAD=$faults "$TRAIN_GPT" "${small[@]}" --data=text.txt --steps=2 --output-dir=faulty >out 2>err
        status=$?
    }
    CHAOS_COUNT=$PWD/count CHAOS_FAULT=sync:0 faulty
    again=0 of_metrics=0 lost=
    for ((n = 1; n <= $(cat count); n++)); do
        CHAOS_FAULT=sync:$n:5 faulty
        if grep -q -E ' W step 2: no checkpoint: .*Input/output error; it is tried once more$' err; then
            again=$((again + 1))
        elif error | grep -q "^cannot write 'faulty/metrics.jsonl' to the disk: Input.*; step 2 is saved: go on"; then
            of_metrics=$((of_metrics + 1))
        fi
        if grep -q ' I step 2/2' err && [ "$(newest faulty)" != 2 ]; then lost+=" $n"; fi
    done
    check "a disk that fails once: the last checkpoint is tried once more" test $again -gt 2
    check "a disk that fails once: metrics" test $of_metrics = 1
    check "a disk that fails once: nothing is lost" test -z "$lost"

    # Every file that is mapped cannot be read in one of the runs, which goes on from a checkpoint with frozen weights.
    must "frozen weights" "${small[@]}" --data=text.txt --steps=2 --freeze='layers.0-1.*' --output-dir=frozen
    unreadable() {
        rm -rf faulty
        cp -r frozen faulty
        LD_PRELOAD=$faults "$TRAIN_GPT" --resume=faulty --steps=4 >out 2>err
        status=$?
    }
    CHAOS_COUNT=$PWD/count CHAOS_FAULT=page:0 unreadable
    begun=0 lost=
    for ((n = 1; n <= $(cat count); n++)); do
        CHAOS_FAULT=page:$n unreadable
        case $status in 0 | 1 | 2) ;; *) lost+=" $n: exit code $status" ;; esac
        [ "$(steps_of faulty)" = 2 ] || begun=$((begun + 1))
        [ "$(newest faulty)" = "$(steps_of faulty)" ] || lost+=" $n: $(error | head -c 200)"
    done
    check "files that cannot be read" test "$begun" -gt 2
    check "files that cannot be read: nothing is lost" test -z "$lost"
else
    skip "a disk that fails once" "a sanitizer, or no $faults"
fi

# ---- checkpoints by time ------------------------------------------------------------------------------------------

start timed "${long[@]}" --data=text.txt --checkpoint-minutes=0.001
saved_twice() { [ "$(find timed/checkpoints -name 'step-*' | wc -l)" -ge 2 ]; }
check "checkpoints by time" eventually 30 saved_twice
kill -KILL $job
end
step=$(newest timed)
must "after kill -9, from a checkpoint by time" --resume=timed --steps=$((step + 5))
must "the same without" "${small[@]}" --data=text.txt --steps=$((step + 5)) --output-dir=untimed
check "checkpoints by time change nothing" cmp <(curve untimed) <(curve timed)

must_tcp_ranks "checkpoints by the time of rank 0" 3 "${small[@]}" --data=text.txt --total-batch-size=384 --steps=100 \
    --checkpoint-minutes=0.001 --keep-checkpoints=0 --output-dir=together
check "all ranks save at the same steps" test "$(find together/checkpoints -name 'step-*' | wc -l)" -ge 2
early=$(find together/checkpoints -name 'step-*' | sort | head -n 1)
must_tcp_ranks "a resume from the first of them" 3 --resume="$early" --output-dir=again --steps=100
check "is the same run" cmp <(curve together | tail -n 3) <(curve again | tail -n 3)

# A GPU has begun the next step when the clock says that one is due: it comes first.
if on_executor "checkpoints by time on a GPU"; then
    gpu=("${small[@]}" --data=text.txt --device=cuda --steps=8)
    must "without them" "${gpu[@]}" --output-dir=gpu0
    must "with them" "${gpu[@]}" --checkpoint-minutes=0.0001 --keep-checkpoints=0 --output-dir=gpu1
    check "checkpoints by time on a GPU: every other step" \
        test "$(find gpu1/checkpoints -name 'step-*' | wc -l)" -ge 3
    check "checkpoints by time on a GPU change nothing" cmp <(curve gpu0) <(curve gpu1)
    early=$(find gpu1/checkpoints -name 'step-*' | sort | head -n 1)
    must "from the first of them" --resume="$early" --device=cuda --output-dir=gpu2
    check "they go on as if nothing had been" cmp <(curve gpu0 | tail -n 3) <(curve gpu2 | tail -n 3)
    TRAIN_GPT=$on_cpu
fi

# ---- an update of very many tokens --------------------------------------------------------------------------------

# Its tokens are not all kept: the memory is that of any other update.
start vast "${small[@]}" --data=text.txt --steps=2 --total-batch-size=1000000000000
eventually 30 grep -q ' W --total-batch-size=1000000000000: an update of 15625000000 micro-batches takes about ' err
sleep 0.5
check "an update of very many tokens: said, and within 300 MB" \
    test "$(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$job/status)" -lt 300000
kill -KILL $job
end 2>/dev/null

mkdir disk
if mount -t tmpfs -o size=1300k none disk 2>/dev/null; then
    trap 'umount disk' EXIT
    run "${small[@]}" --data=text.txt --steps=6 --checkpoint-every=2 --output-dir=disk/run
    check "a disk that will be full: a warning at the start" grep -q \
        " W 'disk/run' has .* free, but 3 checkpoints of .* need .*; free some space, or choose another --out" err
    mount -o remount,size=2600k disk
    run "${small[@]}" --data=text.txt --steps=6 --checkpoint-every=2 --output-dir=disk/run2
    keep=$(sed -n 's/.* W .*keep fewer (\(--keep-checkpoints=[0-9]*\)).*/\1/p' err)
    rm -r disk/run disk/run2
    must "the advice" "${small[@]}" --data=text.txt --steps=6 --checkpoint-every=2 --output-dir=disk/run \
        "${keep:---absent}"
    check "a disk that will be full: its advice helps" test -n "$keep" -a "$(grep -c ' W ' err)" = 0
    # More checkpoints than are to be kept, as a run leaves them that fails, and no room for another beside them.
    rm -r disk/run
    mount -o remount,size=20m disk
    must "two checkpoints" "${small[@]}" --data=text.txt --steps=4 --checkpoint-every=2 --output-dir=disk/run
    each=$(du -s -B 1 disk/run/checkpoints/step-00000002 | cut -f 1)
    mount -o remount,size=$(($(du -s -B 1 disk | cut -f 1) + each / 2 + 1048576)) disk
    run --resume=disk/run --steps=6 --keep-checkpoints=2
    check "a disk that is full: what to keep is said" grep -q ' W .*keep fewer (--keep-checkpoints=1)' err
    must "a resume that keeps fewer" --resume=disk/run --steps=8 --keep-checkpoints=1
    check "a disk that is full: what is not kept any more makes room" test \
        "$(grep -c ' W ' err):$(ls disk/run/checkpoints | tr '\n' ' ')" = "0:latest step-00000008 "
    umount disk
    trap - EXIT
else
    skip "a disk that will be full" "file systems cannot be mounted here"
fi

# ---- signals ---------------------------------------------------------------------------------------------------

# Steps of a second and more.
start slow --layers=4 --channels=128 --heads=2 --batch-size=16 --seq-len=128 --total-batch-size=32768 --val-every=0 \
    --sample-length=0 --steps=100 --data=text.txt
eventually 60 steps_done slow 1
kill -INT $job
check "the first Ctrl-C is answered in the middle of a step" eventually 1 grep -q \
    ' I stopping after this step; again to quit without saving$' err
sleep 0.3
kill -INT $job
end
check "the second one quits" test "$status" = 130
check "and says so" grep -q ' W quitting without saving, as asked again; --resume=slow goes on from' err

# Validations of a second or so; a run that is stopped in one goes on with it.
make_text val.txt 60000 5
validated=("${tiny[@]}" --sample-length=0 --lr-schedule=constant --warmup=0 --val-every=3 --val-sequences=100000
    --val-data=val.txt --data=text.txt --steps=6)
must "validated" "${validated[@]}" --output-dir=straight
start cut "${validated[@]}"
eventually 30 steps_done cut 3
kill -INT $job
end
check "a validation is cut short by a signal" \
    test "$status:$(newest cut):$(grep -c '"step":3,"val' cut/metrics.jsonl)" = 0:3:0
check "the end says how to go on" \
    grep -q "stopped: 3 of 6 steps are done; go on with $TRAIN_GPT --resume=cut\$" err
must "after the stop" --resume=cut
check "the resume begins with that validation" cmp <(curve straight) <(curve cut)

start sampled "${small[@]/--sample-length=0/--sample-length=1000000}" --data=text.txt --steps=6 --sample-every=3
eventually 30 steps_done sampled 3
sleep 0.1
kill -INT $job
check "a sample is cut short by a signal" eventually 5 test -s sampled/checkpoints/latest
end
check "and nothing of it is printed" test "$status:$(newest sampled):$(wc -c <out)" = 0:3:0

# ---- two processes -----------------------------------------------------------------------------------------------

start held "${long[@]}" --data=text.txt --checkpoint-every=5
eventually 30 test -s held/checkpoints/latest
other() { "$TRAIN_GPT" "$@" >out2 2>err2; [ $? -eq 2 ] && grep -q "$why" err2; }
why=" E --resume=held: process $job on .* trains into 'held' at the moment"
check "a second process in the run folder is refused" other --resume=held
why=" E --output-dir=held: process $job on .* trains into 'held'"
check "and a new run there" other "${small[@]}" --data=text.txt --steps=2 --output-dir=held
kill -KILL $job
end 2>/dev/null
must "after the holder was killed" --resume=held --steps=$(($(newest held) + 1))
check "nothing of the lock stays" test ! -e held/lock

# ---- going on with a run that is done ----------------------------------------------------------------------------

must "nothing left" --resume=held
check "a finished run: exit code 0, nothing left to do" grep -q ' I nothing left to do: the run has done' err

train longer --steps=10 --warmup=2
must "longer" --resume=longer --steps=20
check "a longer schedule is announced" grep -q \
    'I resume  another schedule of learning rates (20 steps in all, 10 before): 1.77e-03 at step 11, not 3.00e-04$' err
must "the same schedule" --resume=longer/checkpoints/step-00000010
check "the same schedule is not" test "$(grep -c 'another schedule' err)" = 0

# ---- a model that has been trained -------------------------------------------------------------------------------

tuned=("${quiet[@]}" --model=longer --data=text.txt --batch-size=2 --seq-len=32 --steps=60)
must "a model that has been trained" "${tuned[@]}" --output-dir=tuned
check "a model that has been trained: a smaller learning rate, said" grep -q \
    'I rate    peak 3e-05 (the model has been trained; .*), cosine, after 3 updates of warm-up (5 % of the run; ' err
check "and kept" grep -q -x -e 'learning-rate = 3e-05' -e 'warmup = 3' tuned/config.toml
must "typed" "${tuned[@]}" --learning-rate=1e-3 --warmup=7 --dry-run
check "what is typed wins" grep -q 'I rate    peak 0.001, cosine, after 7 updates of warm-up$' err
printf 'learning-rate = 0.003\nwarmup = 2\n' >rate.toml
must "in a file" "${tuned[@]}" --config=rate.toml --dry-run
check "and what a file says" grep -q 'I rate    peak 0.003, cosine, after 2 updates of warm-up$' err
must "new" "${tiny[@]}" --data=text.txt --steps=40 --dry-run
check "a new model: warm-up for at most 5 % of the run" grep -q 'I rate    peak 0.003, cosine, after 2 updates' err
must "import" import --from=longer --out=imported
must "resume of an import" --resume=imported --data=text.txt --steps=60 --dry-run
check "an imported model has been trained" grep -q 'I rate    peak 3e-05 (the model has been trained' err

# ---- weights that are no longer numbers ----------------------------------------------------------------------------

must "a good beginning" "${tiny[@]}" "${quiet[@]}" --data=text.txt --warmup=0 --checkpoint-every=1 --steps=4 \
    --output-dir=diverges
run --resume=diverges --steps=40 --learning-rate=1000 --grad-clip=0
check "too high a learning rate ends the run" test "$status" = 1
check "which says why, and where to go on" grep -q "updates in a row had non-finite gradients; go on from before" err
advice=$(sed -n 's/.*--resume=\([^ ]*\).*/\1/p' err | tail -n 1)
check "skipped updates do not push out the last good checkpoint" test -d "$advice"
must "the advice" --resume="$advice" --steps=40 --learning-rate=1e-4 --output-dir=mended
check "as told, the run ends well" test "$(grep -c skipped mended/metrics.jsonl)" = 0

# ---- validation ----------------------------------------------------------------------------------------------------

must "one pass" "${tiny[@]}" --sample-length=0 --data=text.txt --val-every=2 --steps=3 --output-dir=pass
must "more than one" "${tiny[@]}" --sample-length=0 --data=text.txt --val-every=2 --val-sequences=31 --steps=3 \
    --output-dir=passes # 1000 held-out bytes are 31 sequences of 32
check "a validation is at most one pass" cmp <(curve pass) <(curve passes)
check "the model at the beginning is validated" test "$(head -n 1 pass/metrics.jsonl | sed 's/:[0-9.]*}/:x}/')" \
    = '{"step":0,"val_loss":x}'

# A learning rate so high that the loss goes up and down.
unsteady=("${tiny[@]}" --sample-length=0 --data=text.txt --val-every=2 --learning-rate=0.2 --lr-schedule=constant
    --warmup=0 --keep-best --keep-checkpoints=1 --checkpoint-every=10)
must "keep best" "${unsteady[@]}" --steps=40 --output-dir=best
best_of() { # the step with the lowest validation loss, as checkpoints/best would name it
    sed -n 's/^{"step":\([1-9][0-9]*\),"val_loss":\([0-9.e-]*\)}$/\2 \1/p' "$1/metrics.jsonl" | sort -g | head -n 1 |
        awk '{ printf "step-%08d\n", $2 }'
}
check "--keep-best: best names the checkpoint with the lowest validation loss" \
    test "$(cat best/checkpoints/best)" = "$(best_of best)"
check "which is kept beside the newest" test "$(cd best/checkpoints && ls -d step-* | sort -u | tr '\n' ' ')" = \
    "$(printf '%s\n' "$(best_of best)" step-00000040 | sort -u | tr '\n' ' ')"
must "generate from the best" generate --run="best/checkpoints/$(cat best/checkpoints/best)" --length=3
must "half of it" "${unsteady[@]}" --steps=20 --output-dir=best2
must "the other half" --resume=best2 --steps=40
check "--keep-best after a resume" test "$(cat best2/checkpoints/best) $(curve best2 | tail -n 1)" = \
    "$(cat best/checkpoints/best) $(curve best | tail -n 1)"
check "a best that is no longer the newest survives" test "$(best_of best)" != step-00000040
# As a process leaves it that is killed between a checkpoint and its name.
must "all are kept" "${unsteady[@]/--keep-checkpoints=1/--keep-checkpoints=0}" --steps=30 --output-dir=best3
killed_before() {
    first=$(ls -d best3/checkpoints/step-* | head -n 1)
    [ "${first##*/}" = "$(best_of best3)" ] && first=none # Of a run that had none yet.
    if [ "$first" = none ]; then rm best3/checkpoints/best; else echo "${first##*/}" >best3/checkpoints/best; fi
}
killed_before
must "nothing is left" --resume=best3
check "a best that has no name yet: a run that is done names it" \
    test "$(cat best3/checkpoints/best)" = "$(best_of best3)"
must "nothing is left, and it is named" --resume=best3
check "which is then done" grep -q ' I nothing left to do' err
killed_before
must "the rest of it" --resume=best3 --steps=40 --keep-checkpoints=1
check "a best that has no name yet: a run that goes on keeps it" test "$(cat best3/checkpoints/best) $(
    ls best3/checkpoints | grep -c step-)" = "$(cat best/checkpoints/best) 2"

# Metrics are lost, and what comes is worse: checkpoints know their losses.
cp -r best2 best4
rm best4/metrics.jsonl
must "without metrics" --resume=best4 --steps=40 --learning-rate=30
check "--keep-best where metrics are lost: best is what it was, and is kept" test \
    "$(cat best4/checkpoints/best):$(cd best4/checkpoints && ls -d step-* | tr '\n' ' ')" = "$(best_of best2):$(
        printf '%s\n' "$(best_of best2)" step-00000040 | tr '\n' ' ')"
# A best whose loss nobody knows, as one of an earlier version without its metrics.
must "no validation" "${unsteady[@]/--val-every=2/--val-every=0}" --steps=2 --output-dir=best6
cp best6/checkpoints/latest best6/checkpoints/best
must "from here on with validations" --resume=best6 --steps=20 --val-every=2
check "a best whose loss is lost: said" grep -q \
    " W --keep-best: 'best6/checkpoints/best' names step 2, whose validation loss is lost: it stays the best" err
check "a best whose loss is lost: kept, and named" test "$(cat best6/checkpoints/best):$(
    ls best6/checkpoints | grep step- | tr '\n' ' ')" = "step-00000002:step-00000002 step-00000020 "
rm best6/checkpoints/best
must "without that name" --resume=best6 --steps=40
check "a best whose loss is lost: without its name the others count" test \
    "$(cat best6/checkpoints/best):$(grep -c ' W ' err)" = "$(for name in best6/checkpoints/step-*; do
        sed -n "s/^{\"step\":$((10#${name##*-})),\"val_loss\":\(.*\)}$/\1 ${name##*/}/p" best6/metrics.jsonl
    done | sort -g | head -n 1 | cut -d' ' -f2):0"

# ---- a last validation that is missing, as where a signal has cut it short, or it has failed -----------------------

must "a run that validates" "${tiny[@]}" --sample-length=0 --data=text.txt --steps=3 --val-every=2 --val-sequences=2 \
    --output-dir=validated
cp validated/metrics.jsonl whole.jsonl
sed -i '/"step":3,"val_loss"/d' validated/metrics.jsonl
must "without its last validation" --resume=validated
check "the validation after the last step is made up for" cmp whole.jsonl validated/metrics.jsonl
must "and now" --resume=validated
check "then nothing is left" grep -q ' I nothing left to do' err

exit $((failures > 0))
