#!/bin/bash
# scripts/sweep.py and scripts/plot.py: every combination is trained or its failure recorded, an interrupted sweep goes
# on, the tables can be read, the pictures are made, and what is wrong is said in one line.
set -u
root=$PWD
. tests/e2e/lib.bash

if ! command -v python3 >/dev/null; then
    skip "sweeps" "no python3"
    exit 0
fi

# sweep ARGUMENTS...: like run, of the script.
sweep() {
    "$root/scripts/sweep.py" "$@" >out 2>err
    status=$?
}
model=(-- --layers=2 --channels=32 --heads=2 --seq-len=32 --data="it's a text.txt")
cp text.txt "it's a text.txt"

# says NAME CODE PATTERN COMMAND...: the command must end so, with one line of error that matches and no output.
says() {
    local name=$1 code=$2 pattern=$3
    shift 3
    "$@" >out 2>err
    status=$?
    if [ $status -eq "$code" ] && [ "$(wc -l <err)" -eq 1 ] && grep -q -E -e "$pattern" err && [ ! -s out ]; then
        ok "$name"
    else
        not_ok "$name" "exit code $status: $(head -c 400 err | tr '\n' ' ')"
    fi
}

# column NAME FILE: its values, a line each. (Only the last columns are quoted.)
column() { awk -F, -v name="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) n = i; next } { print $n }' "$2"; }
list() { column "$@" | tr '\n' ' '; }

# ---- a whole sweep ------------------------------------------------------------------------------

sweep --batch-sizes="2 4" --recompute="0 2" --out=whole --steps=3 "${model[@]}"
check "a sweep ends well" test $status -eq 0
cp out whole.md
check "a row for every combination" test "$(list run whole/sweep.csv)" = "b2-r0 b2-r2 b4-r0 b4-r2 "
check "all are finished" test "$(sort -u <(column status whole/sweep.csv))" = finished
check "of as many steps as asked for" test "$(list steps whole/sweep.csv)" = "3 3 3 3 "
check "planned bytes are allocated bytes" \
    test "$(list predicted_bytes whole/sweep.csv)" = "$(list allocated_bytes whole/sweep.csv)"
check "level 2 takes less memory than level 0" test "$(column predicted_bytes whole/sweep.csv | sed -n 4p)" \
    -lt "$(column predicted_bytes whole/sweep.csv | sed -n 3p)"
check "level 0 has no overhead over itself" \
    test "$(column overhead whole/sweep.csv | sed -n '1p;3p' | sort -u)" = 0.0000
for key in predicted_step_ms step_ms tokens_per_second final_loss; do
    check "every run has its $key" \
        test "$(column $key whole/sweep.csv | grep -c -E '^[0-9]+(\.[0-9]+)?(e-[0-9]+)?$')" = 4
done
check "the same tokens per update" test "$(cat whole/b*/config.toml | grep total-batch-size | sort -u)" \
    = "total-batch-size = 128"
check "the curves of a batch size coincide" test "$(grep -c 'equal bit for bit' whole.md)" = 2
check "sweep.md is what was printed" cmp whole.md whole/sweep.md
check "no checkpoints are left" test -z "$(find whole -name checkpoints)"
if command -v python3 >/dev/null; then
    check "sweep.csv is CSV" python3 -c "
import csv
rows = list(csv.DictReader(open('whole/sweep.csv'), strict=True))
assert len(rows) == 4 and all(None not in row and None not in row.values() for row in rows)"
fi

# ---- again, and other options -----------------------------------------------------------------------

cp whole/b2-r0/metrics.jsonl before
rm whole/b4-r2/sweep.txt # as if it had been killed without a checkpoint
sweep --batch-sizes="2,4" --recompute=0,2 --out whole --steps 3 "${model[@]}"
check "finished runs are skipped" cmp before whole/b2-r0/metrics.jsonl
check "a run that was killed begins again" grep -q '^sweep: b4-r2: finished' err
says "a batch size that is no number" 2 "^sweep: --batch-sizes=two: 'two' is not .*; give numbers.*--batch-sizes=4,8$" \
    "$root/scripts/sweep.py" --batch-sizes=two --out=none
says "other options are refused" 2 "^sweep: --out=.*other options \(.*--steps=3.*\)" \
    "$root/scripts/sweep.py" --batch-sizes="2 4" --recompute="0 2" --out=whole --steps=4 "${model[@]}"

sed -i '2s/"loss":[0-9]/&9/' whole/b4-r2/metrics.jsonl
sweep --batch-sizes="2 4" --recompute="0 2" --out=whole --steps=3 "${model[@]}"
check "a curve that differs is an error" test "$status $(grep -c 'Batch size 4.*DIFFER.* 2 from 0' out)" = "1 1"

# ---- over other options, and repeats ------------------------------------------------------------------

sweep --grid learning-rate=1e-3,3e-3 --grid=seed=1,2 --recompute="0 2" --repeats=2 --out=grid --steps=3 "${model[@]}"
check "a grid ends well" test $status -eq 0
check "a row for every combination and repeat" test "$(column run grid/sweep.csv | wc -l)" = 16
check "named by its values" grep -q '^[0-9]*,2,b[0-9]*-r2-learning-rate=3e-3-seed=2-n2,finished,' grid/sweep.csv
check "each run has the options of its row" test "$(cat grid/*learning-rate=3e-3-seed=2*/config.toml |
    grep -c -x -e 'learning-rate = 0.003' -e 'seed = 2')" = 8
check "curves of a setting are equal" test "$(grep -c 'equal bit for bit' out)" = 4
check "those of another seed are others" test "$(cat grid/b*/metrics.jsonl | grep '"step":3,' |
    sed 's/.*"loss":\([^,]*\).*/\1/' | sort -u | wc -l)" = 4
check "repeats are one line of the table" test "$(grep -c 'learning-rate=1e-3 seed=1' out)" = 3
check "with how far they spread" grep -q '^| batch size | recompute | setting |.*| ± |' out
check "losses over seeds" \
    test "$(grep -c '^| [0-9]* | [02] | learning-rate=[13]e-3 | 2 | [0-9.]* | [0-9.]* |$' out)" = 4
cp grid/sweep.md before
sweep --grid learning-rate=1e-3,3e-3 --grid=seed=1,2 --recompute="0 2" --repeats=2 --out=grid --steps=3 "${model[@]}"
check "again: nothing is run" test "$(grep -c 'was finished before' err) $(cmp before grid/sweep.md)" = "16 "
sweep --batch-sizes=4 --recompute="0 auto" --out=same --steps=2 "${model[@]}"
check "auto says that it is another row" grep -q '^- auto at batch size 4 is the plan of 0: ' out
check "in the table, too" test "$(list same_plan_as same/sweep.csv)" = " b4-r0 "
sweep --grid=data="it's a text.txt,text.txt" --grid seq-len=16,32 --out=texts --steps=2 -- "${model[@]:1:3}"
check "texts with blanks in their names, lengths of a sequence" test "$status $(list status texts/sweep.csv)" \
    = "0 finished finished finished finished "
rates=("$root/scripts/sweep.py" --out=new)
says "a grid without values" 2 "^sweep: --grid=seed: must be" "${rates[@]}" --grid=seed "${model[@]}"
says "an option of the sweep in a grid" 2 "^sweep: --grid=recompute=0,1: .*write --recompute=0,1" \
    "${rates[@]}" --grid=recompute=0,1 "${model[@]}"
says "a grid of what is unknown" 2 "^sweep: --sed: there is no such option" "${rates[@]}" --grid=sed=1,2 "${model[@]}"
says "a value in a grid that cannot be" 2 "^sweep: .*learning-rate" "${rates[@]}" --grid=learning-rate=1e-3,-1 \
    "${model[@]}"
says "an option in a grid and beside it" 2 "^sweep: --seed: is in a --grid" "${rates[@]}" --grid=seed=1,2 \
    "${model[@]}" --seed=3
says "a value twice" 2 "^sweep: --grid=seed=1,1: .*--repeats" "${rates[@]}" --grid=seed=1,1 "${model[@]}"
says "no number of repeats" 2 "^sweep: --repeats=0" "${rates[@]}" --grid=seed=1,2 --repeats=0 "${model[@]}"

# ---- at the same time, and in odd places ---------------------------------------------------------------

# The number of a process that lives, as a container's restart finds its own, and as scripts/sweep.sh left it.
small=(--batch-sizes=2 --recompute=0 --steps=3)
sweep "${small[@]}" --out=again "${model[@]}"
echo $$ >again/sweep.lock
sweep "${small[@]}" --out=again "${model[@]}"
check "a lock that a crash has left holds nobody up" test $status -eq 0
check "none is left" test ! -e again/sweep.lock
if command -v flock >/dev/null; then
    exec 9>again/sweep.lock
    flock 9
    echo "process 7 on moon" >&9
    says "a sweep that another process is at work on" 1 "^sweep: --out=./again: process 7 on moon is at work on it" \
        "$root/scripts/sweep.py" "${small[@]}" --out=again "${model[@]}"
    exec 9>&-
else
    skip "a sweep that another process is at work on" "there is no flock"
fi
odd=$'-\xff $(touch made) \'"\n'
odd_text=$'\xfe "text"\n'
cp text.txt "$odd_text"
odd_model=(-- --layers=2 --channels=32 --heads=2 --seq-len=32)
sweep "${small[@]}" --out="$odd" "${odd_model[@]}" --data="./$odd_text"
check "odd names: a sweep ends well" test "$status $(list status "./$odd/sweep.csv")" = "0 finished "
check "odd names: they are shown, escaped" grep -q -F '`--data=./\xfe "text"\n`' out
check "odd names: they are nothing but names" test ! -e made
sweep "${small[@]}" --out "$odd" "${odd_model[@]}" --data "./$odd_text"
check "odd names: another word is another option" test $status -eq 2
sweep "${small[@]}" --out="$odd" "${odd_model[@]}" --data="./$odd_text"
check "odd names: again" grep -q '^sweep: b2-r0: was finished before' err
ln -s /dev/full again/full
"$root/scripts/sweep_report.py" again >again/full 2>err
check "tables that cannot be printed: exit code 1 and the reason" bash -c "[ $? -eq 1 ] && grep -q 'No space left' err"
says "no sweep" 1 "^sweep_report: again/b2-r0: holds no sweep" "$root/scripts/sweep_report.py" again/b2-r0
says "two folders" 2 "^sweep_report: unrecognized arguments: whole" "$root/scripts/sweep_report.py" again whole
mkdir locked
chmod a-w locked
[ -w locked ] || says "a folder that cannot be made" 1 "^sweep: --out=./locked/new: cannot be written .Permission" \
    "$root/scripts/sweep.py" "${small[@]}" --out=locked/new "${model[@]}"

# ---- failures -------------------------------------------------------------------------------------------

sweep --batch-sizes="2 3" --recompute=0 --total-batch-size=128 --out=misfit --steps=3 "${model[@]}"
check "a failing combination is recorded, the others run" \
    test "$status $(list status misfit/sweep.csv)" = "0 finished failed "
check "with its reason" grep -q '^3,.*,"--total-batch-size=128: must be a multiple of .*"$' misfit/sweep.csv
budget=$(column predicted_bytes whole/sweep.csv | sed -n 4p)
sweep --batch-sizes=4 --recompute="0 2" --out=tight --steps=3 "${model[@]}" --memory-budget="$budget"B
check "what does not fit is recorded" test "$status $(list status tight/sweep.csv)" = "0 out of memory finished "
check "with the reason in the report" grep -q '^- b4-r0: not enough memory' out

# ---- interrupted ------------------------------------------------------------------------------------------

# Its own process group, as of a terminal: Ctrl-C reaches the sweep and the run.
long=(--batch-sizes=2 --recompute="1 0" --out=cut --steps=400 "${model[@]}")
set -m
"$root/scripts/sweep.py" "${long[@]}" >out 2>err &
job=$!
set +m
for _ in $(seq 500); do
    [ "$(grep -c loss cut/b2-r1/metrics.jsonl 2>/dev/null)" -ge 3 ] 2>/dev/null && break
    sleep 0.02
done
kill -INT -- -$job
wait $job
status=$?
if [ -e cut/b2-r0 ]; then
    skip "an interrupted sweep" "the run was over before the signal came"
else
    check "Ctrl-C ends the sweep" test $status -eq 130
    check "it says that it can go on" grep -q '^sweep: interrupted; the same command goes on' err
    check "the run left a checkpoint" test -e cut/b2-r1/checkpoints/latest
    sweep "${long[@]}"
    check "the same command goes on" grep -q '^sweep: b2-r1: goes on from its checkpoint' err
    check "to the end" test "$status $(list status cut/sweep.csv)" = "0 finished finished "
    check "with the curve of a run that was not interrupted" cmp <(curve cut/b2-r1) <(curve cut/b2-r0)
fi

# ---- bad usage ----------------------------------------------------------------------------------------------

bad=("$root/scripts/sweep.py" --batch-sizes=2 --recompute=0 --out=new)
says "an unknown option" 2 "^sweep: --bogus: no such option" "${bad[@]}" --bogus
says "a missing value" 2 "^sweep: --model: wants a value" "${bad[@]}" --model
says "a bad batch size" 2 "^sweep: --batch-sizes=2 x: 'x' is not" "${bad[@]}" --batch-sizes="2 x"
says "folders in a grid" 2 "^sweep: --grid=output-dir=a,b: .*give --out=FOLDER" "${bad[@]}" --grid=output-dir=a,b
says "values without commas" 2 "^sweep: '2': .*--grid=seed=1,2$" "${bad[@]}" --grid seed=1 2 "${model[@]}"
touch afile
says "a file as --out" 2 "^sweep: --out=./afile: is a file; choose another" "${bad[@]:0:3}" --out=afile "${model[@]}"
says "no level" 2 "^sweep: --recompute: name at least one" "${bad[@]}" --recompute=
says "an unknown level" 2 "^sweep: --recompute=zero: no such policy" "${bad[@]}" --recompute=zero "${model[@]}"
says "an option of the sweep's own" 2 "^sweep: --output-dir: " "${bad[@]}" "${model[@]}" --output-dir=x
says "a wrong option of train_gpt" 2 "^sweep: .*--bogus" "${bad[@]}" "${model[@]}" --bogus
says "missing data" 1 "^sweep: --data: 'no such text'" "${bad[@]}" -- --data="no such text"
says "a folder that holds something else" 2 "^sweep: --out=.*is not empty" \
    "${bad[@]}" --out=whole/b2-r0 "${model[@]}"
check "nothing was made" test ! -e new
sweep --help
check "--help prints the usage" test "$status $(grep -c '^  scripts/sweep.py --batch-sizes' out)" = "0 1"

# ---- plots --------------------------------------------------------------------------------------------------

(ulimit -f 8 && "$root/scripts/sweep.py" --batch-sizes=2 --recompute=0 --steps=2 --out=unfinished "${model[@]}") \
    >out 2>err
check "a sweep none of whose runs comes to its end: exit code 1" \
    test "$?:$(grep -c "^sweep: no run came to its end" err)" = 1:1

plot=$root/scripts/plot.py
if [ ! -x /usr/bin/python3 ]; then
    skip "plots" "no /usr/bin/python3"
    exit $((failures > 0))
fi
mkdir without
echo 'raise ImportError' >without/matplotlib.py
says "without Matplotlib" 1 "^plot: .*python3-matplotlib" env PYTHONPATH="$PWD/without" "$plot" whole
PYTHONPATH=$PWD/without sweep --batch-sizes=4 --recompute=2 --out=plain --steps=3 "${model[@]}"
check "a sweep without Matplotlib ends well and says so" test "$status $(grep -c 'python3-matplotlib' err)" = "0 1"
if ! /usr/bin/python3 -c 'import matplotlib' 2>/dev/null; then
    skip "plots" "no python3-matplotlib"
    exit $((failures > 0))
fi
pictures() { # pictures FOLDER NAME...: each is there, in both formats
    local folder=$1 name
    shift
    for name; do
        [ "$(head -c 4 "$folder/$name.png" | tail -c 3)" = PNG ] && grep -q '</svg>' "$folder/$name.svg" || return 1
    done
}
check "a sweep has its pictures" pictures tight memory time speed overhead loss
check "a run" "$plot" whole/b2-r0 --x=tokens
check "has its picture" pictures whole/b2-r0 curves
check "several runs" "$plot" whole/b2-r0 whole/b4-r0 --out=together
check "have theirs" pictures together curves

cp -r whole/b2-r0 $'_b\xff$x$ <y>\n'
cp -r whole/b4-r0 _u
check "runs with odd names" "$plot" $'_b\xff$x$ <y>\n' _u --out=$'pictures\xff'
check "have their picture" pictures $'pictures\xff' curves
legend=$(grep -o '<text[^>]*>training: [^<]*' $'pictures\xff/curves.svg' | sed 's/.*>//' | tr '\n' ';')
check "in which they are named" test "$legend" = 'training: _b\xff$x$ &lt;y&gt;\n;training: _u;'
mkdir full
ln -s /dev/full full/curves.png
check "a picture replaces what was there, whole" bash -c "'$plot' _u --out=full && [ ! -L full/curves.png ]"
check "and nothing else is left" test "$(echo full/* full/.[!.]*)" = "full/curves.png full/curves.svg full/.[!.]*"

says "no such run" 1 "^plot: nowhere/metrics.jsonl: cannot be read .No such file" "$plot" nowhere
mkdir broken empty odd
sed '2s/,.*//' whole/b2-r0/metrics.jsonl >broken/metrics.jsonl
says "a damaged line" 1 "^plot: broken/metrics.jsonl:2: is not a line of metrics" "$plot" broken
echo '{"step":1,"loss":2}' >odd/metrics.jsonl
says "a line without what it should have" 1 "^plot: odd/metrics.jsonl:1: has no lr" "$plot" odd
: >empty/metrics.jsonl
says "no step yet" 1 "^plot: empty/metrics.jsonl: has no step yet" "$plot" empty
printf 'batch_size,run\nx,y\n' >odd/sweep.csv
says "a damaged sweep" 1 "^plot: odd/sweep.csv:2: is not a row" "$plot" odd
says "bad usage" 2 "^plot: .*--x" "$plot" whole --x=miles
says "a sweep and a run" 2 "^plot: whole: is a sweep; draw it alone" "$plot" whole _u

exit $((failures > 0))
