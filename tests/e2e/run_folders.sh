#!/bin/bash
# What holds of a run folder: going back to an earlier checkpoint, links, names of any bytes, folders that are moved or
# removed while a run trains in them, and whatever a checkpoint will need tried before the first step.
set -u
. tests/e2e/ranks.bash # for its ways to wait
. tests/e2e/lib.bash

make_text text.txt 20000 1
steps_of() { ls "$1/checkpoints" | tr '\n' ' '; }
step() { printf 'checkpoints/step-%08d' "$1"; }
lines() { grep -c '"loss"' "$1/metrics.jsonl"; }

# one_branch FOLDER: what the files of the folder say, read as they are: the rate of its options, the newest checkpoint,
# the last line of metrics.
branch() {
    echo "$(sed -n 's/^learning-rate = //p' "$1/config.toml") $(cat "$1/checkpoints/latest") $(
        tail -n 1 "$1/metrics.jsonl" | sed 's/^{"step":\([0-9]*\).*/\1/')"
}

# ---- going back ---------------------------------------------------------------------------------

must "train whole" "${tiny[@]}" --sample-length=0 --data=text.txt --output-dir=whole --steps=12 --checkpoint-every=2 \
    --keep-checkpoints=0 --learning-rate=1e-3 --keep-best --val-every=3
cp -r whole back
must "from an earlier checkpoint" --resume=back/"$(step 4)" --learning-rate=5e-4 --keep-checkpoints=3 --steps=9
check "going back: the newest of the continuation are kept, up to --keep-checkpoints" \
    test "$(ls -d back/checkpoints/step-* | xargs -n 1 basename | tr '\n' ' ')" = \
    "step-00000006 step-00000008 step-00000009 "
check "going back: said" grep -q "I resume  back at step 4: later checkpoints are kept in 'back/abandoned/1'" err
check "going back: one branch" test "$(branch back)" = "0.0005 step-00000009 9"
check "going back: what is abandoned is a run folder, with its own options and metrics" \
    test "$(branch back/abandoned/1)" = "0.001 step-00000012 12"
check "going back: with all its checkpoints" test "$(ls -d back/abandoned/1/checkpoints/step-* | wc -l)" = 5
must "the abandoned one goes on" --resume=back/abandoned/1 --steps=14
check "going back: the abandoned run can go on" test "$(branch back/abandoned/1)" = "0.001 step-00000014 14"
must "going back again" --resume=back/"$(step 6)" --steps=8
check "going back twice: two places" test "$(ls back/abandoned | tr '\n' ' ')" = "1 2 "
must "the newest checkpoint" --resume=back --steps=10
check "going on from the newest checkpoint puts nothing aside" test "$(ls back/abandoned | tr '\n' ' ')" = "1 2 "

# Where nothing can be moved aside: found before the first step, and nothing has changed.
cp -r whole stuck
touch stuck/abandoned
state() { find stuck -type f ! -name lock -exec cksum {} + | sort; }
before=$(state)
refused "going back where nothing can be moved aside" 1 "--resume: later checkpoints cannot be moved" \
    --resume=stuck/"$(step 4)" --steps=6
check "going back where nothing can be moved aside: nothing has changed" test "$(state)" = "$before"

# Killed before the first new checkpoint: of one branch.
cp -r whole killed
"$TRAIN_GPT" --resume=killed/"$(step 4)" --learning-rate=5e-4 --steps=100000 --checkpoint-every=0 --val-every=0 \
    >out 2>err &
job=$!
eventually 60 grep -q '^learning-rate = 0.0005' killed/config.toml
eventually 60 grep -q '"step":7,' killed/metrics.jsonl
kill -KILL $job
wait $job 2>check.out
check "killed before its first checkpoint: options, metrics and checkpoints are of one branch" \
    test "$(branch killed | cut -d' ' -f1,2)" = "0.0005 step-00000004"
must "resume after that" --resume=killed --steps=6 --checkpoint-every=2
check "and it goes on from where it went back to" grep -q "resumed from 'killed/$(step 4)', 4 steps done" err

# Killed between the decision and the last move: the next that uses the folder sees one branch, and ends the moves.
for moved in none some; do
    rm -rf half
    cp -r whole half
    mkdir half/.tmp-next
    sed 's/^learning-rate = .*/learning-rate = 0.0005/' whole/config.toml >half/.tmp-next/config.toml
    head -n 4 whole/metrics.jsonl >half/.tmp-next/metrics.jsonl
    id=$(sed -n 's/.*"id": "\(.*\)".*/\1/p' whole/run.json)
    printf '{"id": "%s", "going_back": {"step": 4, "aside": "abandoned/1"}}\n' "$id" >half/run.json
    if [ $moved = some ]; then
        mkdir -p half/abandoned/1/checkpoints
        cp half/config.toml half/abandoned/1/
        mv half/"$(step 8)" half/abandoned/1/checkpoints/
        echo step-00000004 >half/checkpoints/latest
    fi
    chmod -R a-w half
    if [ ! -w half/run.json ]; then
        must "a folder that cannot be written" evaluate --run=half
        check "half moved ($moved), read-only: the branch that goes on is read" \
            grep -q "step-00000004" err
    fi
    chmod -R u+w half
    must "half moved" evaluate --run=half
    check "half moved ($moved): settled by the next that uses it" \
        test "$(cut -d' ' -f1,2 <<<"$(branch half)"):$(steps_of half)" = \
        "0.0005 step-00000004:latest step-00000002 step-00000003 step-00000004 "
    check "half moved ($moved): the other branch too" \
        test "$(branch half/abandoned/1):$(ls -A half | grep -c tmp)" = "0.001 step-00000012 12:0"
done

# Killed after a checkpoint was put in its place, and before `latest` named it.
cp -r whole unnamed
echo step-00000010 >unnamed/checkpoints/latest
mkdir unnamed/checkpoints/.tmp-latest
echo step-00000012 >unnamed/checkpoints/.tmp-latest/latest
must "resume" --resume=unnamed --steps=13
check "a checkpoint that its killed writer could not name any more is the newest" \
    grep -q "resumed from 'unnamed/$(step 12)'" err

# ---- links --------------------------------------------------------------------------------------

cp -r whole x
ln -s checkpoints/step-00000004 x/favourite
ln -s x to-x
ln -s x/checkpoints/latest to-latest
for link in x/favourite to-x/favourite to-latest x/checkpoints/latest x/checkpoints/best to-x to-x/"$(step 4)"; do
    must "evaluate --run=$link" evaluate --run=$link
    ok "evaluate --run=$link"
done
must "resume by a link" --resume=x/favourite --steps=6
check "a link to a checkpoint is the checkpoint" test "$(branch x)" = "0.001 step-00000006 6"
train z --steps=4 --learning-rate=2e-3
before=$(branch z)
ln -s ../../whole/"$(step 10)" z/checkpoints/of-another
ln -s ../whole/"$(step 10)" z/of-another
for link in z/checkpoints/of-another z/of-another; do
    rm -rf whole-now
    cp -r whole whole-now
    must "resume by a link to another run" --resume=$link --steps=12 --output-dir=linked
    check "a link to another run's checkpoint is that run's: $link" test "$(branch z):$(
        sed -n 's/^learning-rate = //p' linked/config.toml)" = "$before:0.001"
    rm -rf linked
done
cp -r whole/"$(step 10)" z/checkpoints/
refused "another run's checkpoint copied into a run" 2 "--resume=z/.*checkpoint of another run.*--model=z/$(step 10)" \
    --resume=z/"$(step 10)" --steps=12
must "taking that advice" --model=z/"$(step 10)" "${quiet[@]}" --data=text.txt --steps=1 --output-dir=begun
rm -r z/"$(step 10)"

mkdir elsewhere
train far --steps=2
mv far/checkpoints elsewhere/far
ln -s ../elsewhere/far far/checkpoints
must "checkpoints behind a link" --resume=far --steps=4 --checkpoint-every=1
check "checkpoints behind a link: go on there" test "$(branch far)" = "0.003 step-00000004 4"
must "checkpoints behind a link, an earlier one" --resume=far/"$(step 2)" --steps=3
check "checkpoints behind a link: going back moves nothing to another disk" \
    test "$(ls elsewhere/far):$(ls far/abandoned/1/checkpoints/ | tr '\n' ' ')" = "$(printf \
    'abandoned-1\nlatest\nstep-00000002\nstep-00000003'):latest step-00000003 step-00000004 "
must "evaluate what was put aside" evaluate --run=far/abandoned/1
rm -r far/abandoned # As the notes say: when it is not needed.
must "checkpoints behind a link, going back again" --resume=far/"$(step 2)" --steps=3
check "checkpoints behind a link: what is left of an abandoned branch is not mixed with another" \
    test "$(ls far/abandoned/1/checkpoints far/abandoned/2/checkpoints 2>check.out | grep -c step-):$(
        ls far/abandoned)" = 1:2

# Its disk is not there at the next start, and the place where it was mounted is empty: no reason to begin anew.
mv far/checkpoints link && mv elsewhere/far elsewhere/unmounted && mkdir elsewhere/far && mv link far/checkpoints
branch far >before
again=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=4 --output-dir=far)
for way in --resume=1 --resume=0; do
    refused "checkpoints that are not mounted, $way" 1 "the run in 'far' has saved checkpoints.*remove 'far/run.json'" \
        "${again[@]}" $way
done
check "checkpoints that are not mounted: nothing was changed" cmp before <(branch far)
rm -r elsewhere/far && mv elsewhere/unmounted elsewhere/far
must "checkpoints that are mounted again" "${again[@]}" --resume=1
rm -r elsewhere/far && mkdir elsewhere/far && rm far/run.json
must "taking the advice to begin anew" "${again[@]}" --resume=1
check "begun anew" grep -q '"step":1,' far/metrics.jsonl

# ---- what a checkpoint will need is tried first -----------------------------------------------------

# early NAME PATTERN FOLDER: refused before the first step.
early() {
    run "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2 --output-dir="$3"
    check "$1: refused before the first step, exit code 1" test "$status:$(grep -c 'I step' err)" = 1:0
    check "$1: says why" grep -q -E " E --output-dir.*$2" err
}
mkdir gone
ln -s "$PWD/not-mounted/x" gone/checkpoints
early "checkpoints on a disk that is not there" \
    "gone/checkpoints' is a link to '.*not-mounted/x', which is not there" gone
ln -s "$PWD/not-mounted/y" dangling
early "a folder on a disk that is not there" "'dangling' is a link to '.*not-mounted/y'" dangling
for name in metrics.jsonl config.toml; do
    mkdir -p "taken-$name/$name"
    early "$name is a folder" "'taken-$name/$name' is a folder" "taken-$name"
done
mkdir -p latest/checkpoints/latest
early "latest is a folder" "latest/checkpoints/latest' is a folder" latest
mkdir file
touch file/checkpoints
early "checkpoints is a file" "file/checkpoints" file
long=$(printf '%0250d' 0)
deep=.
while [ ${#deep} -lt 3300 ]; do deep=$deep/$long; done
early "a path that is too long for a checkpoint" "too long" "$deep/$(printf '%0200d' 0)/$long/$(printf '%0200d' 0)"
rm -rf "./$long"
cp -r whole unwritable
rm unwritable/metrics.jsonl
mkdir unwritable/metrics.jsonl
run --resume=unwritable --steps=14
check "a resume tries it, too" \
    test "$status:$(grep -c 'I step' err):$(grep -c 'E --resume.*metrics.jsonl. is a folder' err)" = 1:0:1

# ---- the folder changes while a run trains in it ----------------------------------------------------

endless=("${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=1000000)
# start FOLDER: a run that has done some steps.
start() {
    "$TRAIN_GPT" "${endless[@]}" --output-dir="$1" >out 2>err &
    job=$!
    eventually 60 test -s "$1/metrics.jsonl"
}
stop() {
    kill -TERM $job
    wait $job
    status=$?
}
start first
mv first second
stop
check "moved while it trains: follows, exit code 0" test "$status:$(ls -d first 2>check.out)" = 0:
check "moved: nothing is left of a lock" test ! -e second/lock
check "moved: the advice leads there" grep -q -- "--resume=.*second" err
must "moved: goes on" --resume=second --steps=1000000 --dry-run
ok "moved: goes on where it is"

start first
mv first third
mkdir first
stop
check "moved, and another folder in its place: the right one is written" \
    test "$status:$(ls -A first):$(ls third/checkpoints | wc -l)" = 0::2

start removed
rm -r removed
stop
check "removed while it trains: made anew, exit code 0" \
    test "$status:$(grep -c "W the run folder 'removed' was removed" err)" = 0:1
must "removed: goes on" --resume=removed --steps=1000000 --dry-run
must "removed: can be used" generate --run=removed --length=3
ok "removed: the run goes on from the folder that was made anew"

start removed2
rm -r removed2
touch removed2 # Nothing can be made in its place.
stop
check "removed, and no way to make it anew: exit code 1 and why" \
    test "$status:$(grep -c ' E step .* could not be saved: .*removed2' err)" = 1:1

start mended
rm mended/config.toml mended/run.json mended/metrics.jsonl
stop
check "files removed while it trains: written again" \
    test "$status:$(grep -c "W files of the run folder 'mended' were removed" err)" = 0:1
must "files removed while it trains: goes on" --resume=mended --steps=1000000 --dry-run

# Another file gets the name, as by sed -i: lines go on in that.
"$TRAIN_GPT" "${endless[@]}" --checkpoint-every=5 --output-dir=replaced >out 2>err &
job=$!
eventually 60 grep -q -s '"step":3,' replaced/metrics.jsonl
kill -STOP $job
sed -i 's/"loss"/"edited":1,"loss"/' replaced/metrics.jsonl
edited=$(grep -c edited replaced/metrics.jsonl)
kill -CONT $job
goes_on() { [ "$(lines replaced)" -gt $((edited + 5)) ]; }
check "metrics replaced while it trains: lines go on" eventually 60 goes_on
stop
check "metrics replaced while it trains: what was in the other file stays, and it is said once" \
    test "$status:$(grep -c edited replaced/metrics.jsonl):$(
        grep -c "W 'replaced/metrics.jsonl' was replaced by another file" err)" = "0:$edited:1"
check "metrics replaced while it trains: the last line is of the last step" \
    test "$(cat replaced/checkpoints/latest)" = "$(printf 'step-%08d' "$(branch replaced | cut -d' ' -f3)")"

start blocked
rm blocked/config.toml blocked/metrics.jsonl
mkdir blocked/metrics.jsonl
stop
check "metrics removed while it trains, and a folder in their place: saved, exit code 1 and why" test \
    "$status:$(grep -c " E cannot read 'blocked/metrics.jsonl': not a regular file; step .* is saved" err)" = 1:1

"$TRAIN_GPT" "${tiny[@]}" --val-every=0 --data=text.txt --steps=1000000 --sample-length=3 --sample-every=10 \
    --checkpoint-every=10 --output-dir=sampled >out 2>err &
job=$!
eventually 60 test -s sampled/samples.jsonl
kill -STOP $job
rm -r sampled
kill -CONT $job
check "removed while it trains: samples are in the folder that was made anew" \
    eventually 60 test -s sampled/samples.jsonl
stop
check "and it ends well" test "$status" = 0

"$TRAIN_GPT" "${tiny[@]}" --val-every=0 --data=text.txt --steps=1000000 --sample-length=3 --sample-every=10 \
    --checkpoint-every=10 --output-dir=samples >out 2>err &
job=$!
eventually 60 grep -q -s '"step":20,' samples/samples.jsonl
rm samples/config.toml
eventually 60 test -e samples/config.toml
sampled=$(tail -n 1 samples/samples.jsonl | sed 's/^{"step":\([0-9]*\).*/\1/')
eventually 60 grep -q -s "\"step\":$((sampled + 20))," samples/samples.jsonl
stop
check "config.toml removed while it trains: samples so far stay" test "$(head -n 2 samples/samples.jsonl |
    sed 's/,.*//' | tr '\n' ' '):$(grep -c "W files of the run folder 'samples' were removed" err)" = \
    '{"step":10 {"step":20 :1'

make_text long.txt 8000000 3
"$TRAIN_GPT" "${tiny[@]}" --sample-length=0 --data=text.txt --steps=5 --val-data=long.txt --val-sequences=1000000 \
    --val-every=1 --output-dir=early >out 2>err &
job=$!
eventually 60 grep -q "stopp\|I memory.*in all" err
sleep 0.3
stop
rm long.txt
if grep -q "I step 1" err; then
    skip "a signal before the first step" "the first step was done before it came"
else
    check "a signal in the validation before the first step: exit code 128 + 15" test "$status" = 143
fi

# ---- names are bytes ---------------------------------------------------------------------------

odd=$'r\xff\xfe n'"'q"
cp text.txt $'t\xff.txt'
must "a name that is not UTF-8" "${tiny[@]}" --data=$'t\xff.txt' --steps=2 --val-every=1 --sample-length=4 \
    --output-dir="$odd"
check "a name that is not UTF-8: trained and saved" test -s "$odd/checkpoints/step-00000002/manifest.json"
check "a name that is not UTF-8: shown escaped" grep -q 'r\\xff\\xfe n' err
check "a name that is not UTF-8: no such byte in the log" test -z "$(LC_ALL=C grep -a $'\xff' err)"
advice=$(sed -n "s/.*; try //p" err)
(eval "$advice --length=3" >out 2>err)
check "a name that is not UTF-8: the advice can be pasted" test $? -eq 0
must "resume of it" --resume="$odd" --steps=4
must "evaluate it" evaluate --run="$odd"
must "export it" export --run="$odd" --out="out$odd"
must "start from its export" --model="out$odd" "${quiet[@]}" --data=text.txt --steps=2 --output-dir=from-odd
must "plan with its export" plan --model="out$odd" --json
check "a name that is not UTF-8: plan --json is UTF-8" iconv -f UTF-8 -t UTF-8 out
newline=$'a\nb'
must "a name with a line end" "${tiny[@]}" "${quiet[@]}" --data=text.txt --steps=2 --output-dir="$newline"
must "resume of that" --resume="$newline" --steps=3
check "a name with a line end can be resumed" test -s "$newline/$(step 3)/manifest.json"

# ---- all damaged, and imported -------------------------------------------------------------------

cp -r whole damaged
for file in damaged/checkpoints/step-*/model.safetensors; do truncate -s 100 "$file"; done
refused "all checkpoints are damaged" 1 "truncated.*its run's other checkpoints are damaged too, so start again" \
    --resume=damaged --steps=14
cp whole/"$(step 6)"/model.safetensors damaged/"$(step 6)"/
refused "all but one are damaged" 1 "another one of its run is --resume=damaged/$(step 6)$" --resume=damaged --steps=14
must "taking that advice" --resume=damaged/"$(step 6)" --steps=7

must "export" export --run=whole --out=hf
must "import" import --from=hf --out=imported
refused "resume of an import without data" 2 "--resume=imported: an imported model.*--model=imported --data=FILE" \
    --resume=imported
must "taking that advice" --model=imported --data=text.txt "${quiet[@]}" --steps=1 --output-dir=taken

exit $((failures > 0))
