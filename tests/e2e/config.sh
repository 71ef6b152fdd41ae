#!/bin/bash
# Options from TOML: every form that TOML has, sections by group, and for each mistake the line, the option and what is
# right. What a run writes is TOML that comes back to the byte; what is damaged is named; what a run that goes on cannot
# change is said in words about what was asked for.
set -u
. tests/e2e/lib.bash

says() { grep -q -E -e "$1" err; }

# ---- what is read ------------------------------------------------------------------------------------------------

printf '\xef\xbb\xbf# options\r\n"steps" = 1_000\r\nwarmup = 0x10\r\n'"'seed' = 0b101\r\n" >every.toml
cat >>every.toml <<'END'
data = """\
    text.txt"""
batch-size = 2
"seq-len"=32
sample-prompt = '''
a prompt'''
recompute = 1
[model]
layers = 0o3   # a comment
"channels" = 3_2
heads = 2

[optimisation]
learning-rate = 1_0.5e-4
grad-clip = 1
beta1 = 0.5
[run]
keep-best = true
END
must "every form" --config=every.toml --dry-run
check "numbers of any form, quoted names, a mark, CRLF, strings of several lines, sections" \
    says 'model .*: GPT-2, 3 layers, 2 heads of 16, 32 channels'
check "and their values" test \
    "$(grep -c -e 'batch   2 x 32 tokens.* 1,\{0,1\}000 updates' -e 'rate    peak 0.00105, .*after 16 updates' err)" = 2
check "and what stands without quotes where a text is meant" says 'plan .*--recompute=layer'
printf 'model = {layers = 3, channels = 32, heads = 2}\ndata.data = "text.txt"\nrun.seed = 1\n' >dotted.toml
must "inline tables and dotted names" --config=dotted.toml --dry-run
check "sections as inline tables and dotted names" says 'model .*: GPT-2, 3 layers, 2 heads of 16, 32 channels'
printf 'recompute = [0, "attn", 2]\n' >list.toml
must "a list" plan "${tiny[@]}" --config=list.toml
check "a list, where plan takes several" test "$(grep -c -E '^(0 none|2 sqrt|  attn) ' out)" = 3
printf 'steps = 3\nranks = 2\n' >both.toml
must "one of plan in training" "${tiny[@]}" --data=text.txt --config=both.toml --dry-run
check "an option of plan alone is said to have no effect in training" says 'W --config=both.toml: line 2: .ranks. '

# ---- what is refused, and where ------------------------------------------------------------------------------------

# wrong NAME LINE PATTERN TEXT
wrong() {
    printf '%b' "$4" >bad.toml
    refused "$1" 2 "--config=bad.toml: .*line$2.*$3" --config=bad.toml --output-dir=new
}
wrong "another spelling" " 2" "'learning_rate'.*did you mean learning-rate\?" 'seed = 1\nlearning_rate = 1e-3\n'
wrong "a slip" " 1" "did you mean recompute\?" 'recompue = 1\n'
wrong "nanoGPT's name" " 2" "did you mean seq-len\?" '[data]\nblock_size = 128\n'
wrong "Hugging Face's name" " 1" "did you mean steps\?" 'max_steps = 128\n'
wrong "short names" " 1" "did you mean learning-rate\?" 'lr = 1e-3\n'
wrong "nothing near" " 1" "'frobnicate' is no option" 'frobnicate = 1\n'
wrong "another section" " 2" "'steps'.*\[model\].*belongs to \[data\]" '[model]\nsteps = 2\n'
wrong "no section" " 2" "no section \[modle\]; did you mean \[model\]" '[modle]\nlayers = 2\n'
wrong "a string for a number" " 1" "--steps: must be a whole number.*leave the quotes out" 'steps = "5"\n'
wrong "a float for a whole number" " 2" "--steps: must be a whole number" '\nsteps = 1e3\n'
wrong "a number for a flag" " 1" "--keep-best: must be true or false" 'keep-best = 1\n'
wrong "a number for a path" " 1" "--data: must be a text" 'data = 5\n'
wrong "a list for one value" " 1" "--data: must be a text.*list" 'data = ["a", "b"]\n'
wrong "a date" " 1" "--seed: must be a whole number.*date" 'seed = 1979-05-27\n'
wrong "no number" " 1" "--learning-rate: must be a number from" 'learning-rate = nan\n'
wrong "infinity" " 1" "--grad-clip: must be a number from" 'grad-clip = +inf\n'
wrong "out of range" " 2" "--heads: must be" '[model]\nheads = 0\n'
wrong "a table in a table" " 1" "table" '[model.inner]\nlayers = 2\n'
wrong "an array of tables" " 1" "table" '[[model]]\nlayers = 2\n'
wrong "twice" "s 1 and 3" "leave one" 'steps = 1\nseed = 2\nsteps = 3\n'
wrong "twice, above and in a section" "s 1 and 3" "leave one" 'layers = 1\n[model]\nlayers = 2\n'
wrong "a section twice" "s 1 and 3" "section" '[model]\nlayers = 1\n[model]\nheads = 2\n'
wrong "an option and a section" "s 2 and 3" "move the option into" 'seed = 1\nmodel = "gpt2"\n[model]\nlayers = 2\n'
wrong "no TOML" " 1" "steps: 5" 'steps: 5\n'
wrong "no quotes" " 2" "write strings in quotes" 'seed = 1\nmodel = gpt2\n'
wrong "an option of the command line" " 1" "--resume on the command line" 'resume = "x"\n'
printf '\xff\xfes\0t\0' >bad.toml
refused "UTF-16" 2 "--config=bad.toml: is UTF-16" --config=bad.toml
refused "a missing file" 2 "--config=absent.toml" --config=absent.toml

# ---- what a run writes ----------------------------------------------------------------------------------------------

train run --steps=4 --checkpoint-every=2 --total-batch-size=128
check "a run's options are in sections" test \
    "$(grep -c -x -e '\[model\]' -e '\[data\]' -e '\[optimisation\]' -e '\[run\]' run/config.toml)" = 4
if python3 -c 'import tomllib' 2>/dev/null; then
    check "another reader has the same" python3 -c '
import tomllib
config = tomllib.load(open("run/config.toml", "rb"))
assert config["model"]["layers"] == 3 and config["data"]["steps"] == 4, config
assert config["optimisation"]["learning-rate"] == 3e-3, config'
else
    skip "another reader has the same" "no Python with tomllib"
fi
must "again" --config=run/config.toml --output-dir=again
check "and give the same run" cmp <(curve run) <(curve again)

odd=$'caf\xe9 \xee\xbe\x80 "x" \t.txt'
cp text.txt "$odd"
must "a name that is no UTF-8" "${tiny[@]}" "${quiet[@]}" --data="$odd" --steps=2 --output-dir=odd
check "bytes that are no UTF-8 are written as UTF-8" iconv -f UTF-8 -t UTF-8 odd/config.toml
check "escaped, and the rest as it is" grep -q -F 'caf\uEFE9 \uEFEE\uEFBE\uEF80 \"x\" \t.txt"' odd/config.toml
must "and resumed" --resume=odd --steps=3
ok "and come back"

# ---- what is damaged ------------------------------------------------------------------------------------------------

# broken NAME PATTERN: run/ with the config.toml in the file broken.
broken() {
    rm -rf copy
    cp -r run copy
    cp broken copy/config.toml
    refused "$1, resumed" 1 "--resume=copy: 'copy/config.toml'.*$2.*--model=copy" --resume=copy --steps=6
    refused "$1, evaluated" 1 "--run=copy: 'copy/config.toml'.*$2.*--data=FILE" evaluate --run=copy
}
: >broken
broken "an empty config.toml" "holds no options"
head -n 12 run/config.toml >broken
broken "half a config.toml" "is missing"
{ cat run/config.toml; echo 'rubbish'; } >broken
broken "rubbish in config.toml" "is no TOML"
{ echo 'layrs = 5'; cat run/config.toml; } >broken
broken "an unknown name in config.toml" "line 1.*did you mean layers"
must "the advice works" --model=copy --data=text.txt --steps=1 --sample-length=0 --output-dir=tuned
must "the advice works" evaluate --run=copy --data=text.txt
ok "and the advice works"

# ---- what a run that goes on keeps -----------------------------------------------------------------------------------

go=(--resume=run --steps=6)
refused "another sequence length" 2 "--seq-len=16: the run began with sequences of 32" "${go[@]}" --seq-len=16
refused "a longer one than the model" 2 "--seq-len=64: the run began with sequences of 32" "${go[@]}" --seq-len=64
refused "no multiple" 2 "--seq-len=48: the run began with sequences of 32" "${go[@]}" --seq-len=48
refused "another context" 2 "--max-seq-len=16: the run's model .* has .*leave --max-seq-len out" \
    "${go[@]}" --max-seq-len=16
refused "another depth" 2 "--layers=2: the run's model .*has 3.*leave --layers out" "${go[@]}" --layers=2
refused "heads that do not divide" 2 "--heads=3: the run's model .*has 2" "${go[@]}" --heads=3
refused "another model" 2 "--model=llama-nano: the run's model is gpt2-nano.*leave --model out" \
    "${go[@]}" --model=llama-nano
refused "a batch that does not divide" 2 "--batch-size=3: the 128 tokens per update of the run.*--batch-size=2" \
    "${go[@]}" --batch-size=3
must "the advice works" "${go[@]}" --batch-size=2 --dry-run
must "what is the same" "${go[@]}" --layers=3 --seq-len=32 --max-seq-len=32 --model=gpt2-nano --dry-run
ok "what it has may be said again"
refused "a batch that does not divide that of a file" 2 "--batch-size=3: the 128 tokens per update of the config file" \
    --config=run/config.toml --batch-size=3
refused "sequences that do not" 2 "--seq-len=48: the 128 tokens per update of the config file" \
    --config=run/config.toml --seq-len=48 --max-seq-len=64

exit $((failures > 0))
