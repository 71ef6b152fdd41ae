#!/bin/bash
# `report`: pages of finished, running, interrupted and several runs; what they say, what they replace, what is refused;
# in headless Chromium, where that is installed, without an error. Files for TensorBoard.
set -u
. tests/e2e/lib.bash
root=$OLDPWD

tiny=(--data=text.txt --layers=2 --channels=32 --heads=2 --batch-size=2 --seq-len=32 --val-every=3 --val-sequences=2)
must "a run" "${tiny[@]}" --steps=6 --sample-every=3 --sample-length=8 --output-dir=runs/one
check "its end names the command" grep -q "report  $TRAIN_GPT report runs/one" err
check "its plan is kept" grep -q '"predicted_step_ms"' runs/one/plan.json
check "and its picture" grep -q '^<svg' runs/one/timeline.svg
check "and its samples" test "$(grep -c '"sample":' runs/one/samples.jsonl)" = 2

must "a report" report runs/one
check "prints its name" test "$(cat out)" = runs/one/report.html
page=runs/one/report.html
for words in '<!DOCTYPE html>' 'status finished' 'validation loss' 'Device memory' 'Plan, layer by layer' \
    'after 6 steps' '0–1' '--learning-rate'; do
    check "it has $words" grep -qE -e "$words" $page
done
check "it needs no network" test "$(grep -cE 'https?://|src=|@import' <(sed '/<svg/,/<\/svg>/d' $page))" = 0
must "again" report runs/one
must "the newest" report
check "is that" test "$(cat out)" = runs/one/report.html

# ---- its numbers are the log's ----

# fact NAME: what the page says of its run. logged: the same of the times, in the log's last line about them.
fact() { sed -n "s|.*<dt>$1</dt><dd>\([^<]*\)</dd>.*|\1|p" $page; }
logged() {
    sed -n 's/.* I time    \([0-9.]*\) ms .* median of \([0-9]*\), .*(\([-+0-9.]* %\);.*/\1 (median of \2) \3/p' \
        runs/one/train.log | tail -n 1
}
same_times() { test "$(fact 'ms per step') $(fact 'predicted ms' | sed 's/.*(\(.*\))/\1/')" = "$(logged)"; }
given() { grep -o '<th>--[a-z-]*</th><td class="r0 set"' $page | sed 's/<th>--//; s/<.*//' | sort | tr '\n' ' '; }
check "the log has times" test -n "$(logged)"
check "times as in the log" same_times
check "every token" test "$(fact tokens)" = 384 # 6 updates of 2 x 32
check "losses per byte" grep -q 'nats per byte; dots' $page
check "bold is what was given" test "$(given)" = \
    "batch-size channels data heads layers sample-every sample-length seq-len steps val-every val-sequences "

must "another run" "${tiny[@]}" --steps=4 --learning-rate=1e-3 --sample-length=0 --output-dir=runs/two
must "two runs" report runs/one runs/two/ --out=both.html
check "no samples are said" grep -q 'No sample was taken: --sample-length=0' both.html
check "have a switch each" test "$(grep -o 'type="checkbox"' both.html | wc -l)" = 2
check "and what differs" grep -q 'What differs' both.html
cp -r runs/one runs/three
sed -i '/"step":[456]/d' runs/three/metrics.jsonl
rm -r runs/three/plan.json runs/three/checkpoints
must "an interrupted run without a plan" report runs/three
check "says so" grep -q 'status interrupted' runs/three/report.html
check "leaves out later samples" test "$(grep -c 'after 6 steps' runs/three/report.html)" = 0
echo '{"step":4,"loss":' >>runs/three/metrics.jsonl
echo '{' >runs/three/plan.json
must "lines that are cut off" report runs/three
check "a damaged plan is said" grep -q 'plan.json is damaged' runs/three/report.html

"$TRAIN_GPT" "${tiny[@]}" --steps=100000 --sample-length=0 --output-dir=runs/long >/dev/null 2>&1 &
long=$!
for _ in $(seq 100); do
    grep -q '"step":2' runs/long/metrics.jsonl 2>/dev/null && break
    sleep 0.1
done
must "a running one" report runs/long
check "says so" grep -q 'status running' runs/long/report.html
kill -KILL $long
wait $long 2>/dev/null
must "once it is dead" report runs/long
check "it is interrupted" grep -q 'status interrupted' runs/long/report.html

# ---- going on from an earlier step ----

must "back" --resume=runs/one --steps=8 --sample-every=2
must "a report of that" report runs/one
check "samples go on" grep -q 'after 8 steps' $page
must "on, with larger updates" --resume=runs/one --steps=12 --total-batch-size=128
must "a report of that" report runs/one
check "tokens of both sizes" test "$(fact tokens)" = 1,024 # 8 x 64 + 4 x 128
check "times of the last start alone" same_times
check "predicted over its steps" grep -q 'data-words="predicted ms" data-first="9" data-last="12"' $page
check "what was given at any time" grep -q 'seq-len steps total-batch-size val-every' <(given)

# ---- TensorBoard ----

if command -v python3 >/dev/null; then
    check "to_tensorboard.py" python3 "$root/scripts/to_tensorboard.py" runs/one runs/two --out=board
    check "an event file per run" test "$(find board -name 'events.out.tfevents.*' | wc -l)" = 2
    check "its records are whole" python3 - <<'END'
import glob, struct
for path in glob.glob("board/*/events*"):
    data = open(path, "rb").read()
    at = records = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        at += 12 + length + 4
        records += 1
    assert at == len(data) and records > 4, (path, at, len(data), records)
END
    check "no run" bash -c "! python3 '$root/scripts/to_tensorboard.py' nowhere 2>err && grep -q metrics.jsonl err"
fi

# ---- Weights & Biases, by a package of that name which writes down what it is told ----

if command -v python3 >/dev/null; then
    wandb() { PYTHONPATH=$PWD/stand_in python3 "$root/scripts/to_wandb.py" "$@"; }
    mkdir stand_in
    check "without the package wandb" bash -c \
        "! PYTHONPATH=$PWD/stand_in python3 -S '$root/scripts/to_wandb.py' runs/one 2>err && grep -q 'pip install' err"
    cat >stand_in/wandb.py <<'END'
import json

def tell(what, **values):
    with open("told.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, **values}) + "\n")

class Html:
    def __init__(self, data):
        self.data = data

class Run:
    def log(self, data, step=None):
        tell("log", step=step, data={key: {"html": value.data} if isinstance(value, Html) else value
                                     for key, value in data.items()})
    def finish(self):
        tell("finish")

def init(**values):
    tell("init", **values)
    return Run()
END
    sed -i 's/"sample":"/"sample":"a <b> \& /' runs/one/samples.jsonl
    check "to_wandb.py" wandb runs/one --project=p
    mv told.jsonl first.jsonl
    check "again, offline" wandb runs/one/ --offline
    check "two runs at once" wandb runs/one runs/two
    check "and no run" bash -c "! python3 '$root/scripts/to_wandb.py' nowhere 2>err && grep -q metrics.jsonl err"
    check "what was sent" python3 - <<'END'
import json
try:
    import tomllib
except ImportError:  # Before Python 3.11, whose scripts send no options.
    tomllib = None

def told(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]

def lines(name):
    return [json.loads(line) for line in open(f"runs/one/{name}.jsonl", encoding="utf-8")]

first, second = told("first.jsonl"), told("told.jsonl")[:len(told("first.jsonl"))]
assert [entry["what"] for entry in first] == ["init"] + ["log"] * (len(first) - 2) + ["finish"], first
init, logs = first[0], first[1:-1]
assert (init["project"], init["name"], init["mode"], init["resume"]) == ("p", "one", "online", "allow"), init
assert init["id"] and init["id"] == json.load(open("runs/one/run.json"))["id"], init
if tomllib:
    options = tomllib.load(open("runs/one/config.toml", "rb"))
    assert init["config"] == options and options["model"]["layers"] == 2, init
assert second[0]["id"] == init["id"] and second[0]["mode"] == "offline" and second[1:] == first[1:], second[0]

steps = [entry["step"] for entry in logs]
assert steps == sorted(set(steps)) and {line["step"] for line in lines("metrics")} <= set(steps), steps
assert not [entry for entry in logs if None in entry["data"].values() or "step" in entry["data"]]
sent = {entry["step"]: entry["data"] for entry in logs}
for line in lines("metrics"):
    for key, value in line.items():
        assert key == "step" or value is None or key in sent[line["step"]], (line["step"], key)
losses = {line["step"]: line["loss"] for line in lines("metrics") if line.get("loss") is not None}
assert len(losses) == 12 and all(sent[step]["loss"] == loss for step, loss in losses.items()), losses
samples = {line["step"]: line["sample"] for line in lines("samples")}
pages = {step: data["sample"]["html"] for step, data in sent.items() if "sample" in data}
assert samples and set(pages) == set(samples), (pages, samples)
assert all(page.startswith("<pre>a &lt;b> &amp; ") and page.endswith("</pre>") for page in pages.values()), pages
last = [entry for entry in told("told.jsonl") if entry["what"] == "init"]
assert [entry["name"] for entry in last] == ["one", "one", "two"] and last[2]["id"] != last[0]["id"], last
END
fi

# ---- in a browser ----

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -z "$browser" ]; then
    skip "in a browser" "no Chromium is installed"
else
    for file in runs/one/report.html both.html; do
        "$browser" --headless --no-sandbox --disable-gpu --enable-logging=stderr --v=0 --virtual-time-budget=2000 \
            --user-data-dir="$PWD/profile" --dump-dom "file://$PWD/$file" >dom 2>console
        check "$file: no console errors" test "$(grep -c 'CONSOLE' console)" = 0
        check "$file: is drawn" grep -q '<figure class="chart">' dom
    done
    # with SCRIPT: what the page of both runs is after a script of ours.
    with() {
        cp both.html with.html
        echo "<script>const boxes = document.querySelectorAll('input[data-run]'); $1</script>" >>with.html
        "$browser" --headless --no-sandbox --disable-gpu --virtual-time-budget=2000 --user-data-dir="$PWD/profile" \
            --dump-dom "file://$PWD/with.html" 2>/dev/null
    }
    steps() { grep -A 1 'aria-label="Learning rate"' | grep -o '>[0-9]*</text></g>'; }
    check "over the steps of both" test "$(steps <both.html)" = '>6</text></g>'
    check "off and on is as before" test "$(with 'boxes[0].click(); boxes[0].click();' | steps)" = '>6</text></g>'
    check "over those of the run left" test "$(with 'boxes[0].click();' | steps)" = '>4</text></g>'
    check "none left is said" test "$(with 'boxes.forEach(box => box.click());' | grep -c 'class="empty"')" = 5
    with "const svg = document.querySelector('.chart svg'), box = svg.getBoundingClientRect();
        const at = {clientX: box.left + box.width * 0.97, clientY: box.top};
        svg.dispatchEvent(new PointerEvent('pointermove', at));" >dom
    check "values under the pointer" grep -q '>one: training loss [0-9.]* at step 6$' dom
    check "of each run" grep -q '^two: training loss [0-9.]* at step 4' dom
fi
# ---- what is refused ----

mv runs kept # a refused command must not make any
echo precious >text.html
echo precious >page.html.tmp
must "a report beside the user's file" report kept/one --out=page.html
check "what is named like a temporary file is untouched" test "$(cat page.html.tmp)" = precious
rm page.html.tmp
refused "a device" 1 "--out=/dev/full: is there already and no file" report kept/one --out=/dev/full
refused "a file as a run" 1 "report text.html: is a file; give a run folder, such as runs/NAME" report text.html
refused "a file that is no report" 2 "--out=text.html.*no report" report kept/one --out=text.html
check "it is untouched" test "$(cat text.html)" = precious
refused "no run" 1 "report nowhere: does not exist" report nowhere
mkdir empty
cd empty || exit 1
refused "no runs at all" 2 "no run in runs/" report
cd ..
refused "a folder that is not there" 1 "--out" report kept/one --out=no/such/folder/x.html
exit $((failures > 0))
