#!/bin/bash
# A run is used from other folders than it was started in, and after it was moved: it knows where its files were, finds
# them in the same place as seen from its own folder, and says so. Paths in a config file count from that file.
set -u
root=$PWD
. tests/e2e/lib.bash

says() { grep -q -E -e "$1" err; }
short=("${tiny[@]}" --sample-length=0 --val-every=2 --val-sequences=4)

mkdir -p proj/parts other
make_text proj/t.txt 20000 7
make_text proj/v.txt 6000 3
make_text proj/parts/a.txt 9000 1
make_text proj/parts/b.txt 9000 2
cd proj || exit 1
must "a tokenizer" tokenize --train-bpe --vocab-size=300 --out=words t.txt
must "a run" "${short[@]}" --data=t.txt --val-data=./v.txt --steps=4 --output-dir=run
must "a run of a pattern" "${short[@]}" --data='parts/*.txt' --steps=4 --output-dir=runs/pattern
must "a run of a folder, with a tokenizer" "${short[@]}" --data=parts --tokenizer=words --steps=4 --output-dir=folder
must "on" --resume=run --steps=6 --output-dir=whole
must "evaluated" evaluate --run=run
mv out here
cd ../other || exit 1

# ---- from another folder --------------------------------------------------------------------------------------------

must "evaluate" evaluate --run=../proj/run
check "evaluate, of the run's own data: the same" cmp <(grep -v ^data out) <(grep -v ^data ../proj/here)
must "generate" generate --run=../proj/run --length=5
must "export" export --run=../proj/run --out=exported
must "resume" --resume=../proj/run --steps=6 --output-dir=on
check "resume: the same bits" cmp <(curve ../proj/whole) <(curve on)
must "resume" --resume=on --steps=7
must "resume of a pattern" --resume=../proj/runs/pattern --steps=6
check "nothing was found elsewhere, and nothing said of it" test "$(grep -c 'is taken' err)" = 0
must "resume of a folder, with a tokenizer" --resume=../proj/folder --steps=6
must "evaluate of a folder, with a tokenizer" evaluate --run=../proj/folder
must "tuned" --model=../proj/run --data=../proj/t.txt --seq-len=32 --steps=1 --sample-length=0 --output-dir=tuned
ok "a run is resumed, evaluated, sampled and exported from another folder"

# ---- after a move ----------------------------------------------------------------------------------------------------

cd "$WORK_DIR" || exit 1
cp -r proj/run alone
must "the run alone, moved" evaluate --run=alone
check "its data are where they were" cmp <(grep -v ^data out) <(grep -v ^data proj/here)
mv proj moved
must "the whole tree, moved" evaluate --run=moved/run
check "its data are found beside it, which is said, once a path" \
    test "$(grep -c -E "W --(val-)?data: there is no '.*/proj/[tv].txt'; '.*/moved/[tv].txt' is taken" err)" = 2
must "resume there" --resume=moved/run --steps=6
check "resume there: said once a path, too" test "$(grep -c ' W --.*is taken' err)" = 2
check "resume there: the same bits" cmp <(curve moved/whole) <(curve moved/run | sed -n '/"step":5,/,$p')
must "again" --resume=moved/run --steps=7
check "afterwards the new place is where they were" test "$(grep -c 'is taken' err)" = 0
must "a pattern, moved" --resume=moved/runs/pattern --steps=7

# ---- where they are nowhere ------------------------------------------------------------------------------------------

rm moved/t.txt
refused "evaluate without the data" 1 "--run=moved/run: the data it was trained on, '.*/moved/t.txt'.*--data=FILE" \
    evaluate --run=moved/run
refused "resume without the data" 1 "--resume=moved/run: the run's data '.*/moved/t.txt'.* is now: --data=FILE" \
    --resume=moved/run --steps=9
check "nobody is told of the demo" test "$(grep -c demo err)" = 0
must "the advice works" --resume=moved/run --steps=9 --data=text.txt
must "the advice works" evaluate --run=moved/run --data=text.txt
ok "and the advice works"
refused "without any data" 1 "demo text data/demo.txt is not there.*--data=FILE" "${tiny[@]}" --steps=2
must "import" import --from=other/exported --out=imported
refused "an imported model has no data" 2 "--resume=imported: .*imported model.*--model=imported --data=FILE" \
    --resume=imported --steps=2
must "the advice works" --model=imported --data=text.txt --steps=1 --seq-len=32 --batch-size=2 --sample-length=0 \
    --output-dir=from-import

# ---- a run of an earlier version -------------------------------------------------------------------------------------

mkdir old
cp -r "$root/tests/golden/run_3e66bb4" old/run
chmod -R u+w old
cp text.txt old/text.txt
rm text.txt
must "an old run from another folder" evaluate --run=old/run
check "its data are found beside it, which is said" says "W --data: there is no 'text.txt'; '.*/old/text.txt' is taken"
must "an old run resumed" --resume=old/run --steps=8
cd other || exit 1
must "and from yet another folder" --resume=../old/run --steps=9
check "without a word" test "$(grep -c 'is taken' err)" = 0
cd ..

# ---- paths in a config file ------------------------------------------------------------------------------------------

mkdir -p set/sub
make_text set/sub/t.txt 20000 5
make_text t.txt 3000 9
cp -r moved/words set/words
cat >set/c.toml <<'END'
[data]
data = "sub/*.txt"
val-data = "../moved/v.txt"
tokenizer = "words"
[run]
output-dir = "out"
profile = "trace.json"
END
must "a config file elsewhere" "${short[@]}" --config=set/c.toml --steps=3
check "its paths count from it" test -e set/out/config.toml -a -s set/trace.json -a ! -e out.toml
check "the data too" says 'data .*set/sub/t.txt'
printf 'data = "sub/t.txt"\nmodel = "../moved/run"\nseq-len = 32\n' >set/tuned.toml
must "a model in a config file" --config=set/tuned.toml --steps=1 --sample-length=0 --output-dir=set/tuned
check "a model's folder counts from it" says "weights of the checkpoint 'set/../moved/run/"
printf 'data = "t.txt"\n' >set/wrong.toml
refused "not from the current folder" 1 "--data: 'set/t.txt' does not exist" "${tiny[@]}" --config=set/wrong.toml
must "the command line's from the current folder" "${tiny[@]}" "${quiet[@]}" --config=set/wrong.toml --data=t.txt \
    --steps=1 --output-dir=typed

exit $((failures > 0))
