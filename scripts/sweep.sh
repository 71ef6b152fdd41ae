#!/bin/sh
# Trains one model at every combination of batch size and --recompute level, and compares prediction with measurement:
# memory, time per step, overhead against level 0, and whether the loss curves of a batch size are equal bit for bit.
#
#   scripts/sweep.sh --batch-sizes="4 8" --recompute="0 1 2 act auto" --model=gpt2-mini --out=runs/sweep1 [-- OPTION...]
#
#   --batch-sizes=LIST       sequences in a micro-batch, separated by blanks or commas
#   --recompute=LIST         levels, as --recompute of train_gpt takes them
#   --out=FOLDER             where everything goes: a run folder per combination, sweep.csv, sweep.md, plots
#   --model=NAME             as for train_gpt, its default otherwise
#   --steps=N                updates of each run (20)
#   --total-batch-size=N     tokens per update, the same in all runs (the least common multiple of the batch sizes)
#   --checkpoints            keep the checkpoints of finished runs
#   -- OPTION...             any further options of train_gpt, for all runs
#
# Interrupted or killed, the same command goes on where it was: finished runs are skipped, a run with a checkpoint is
# resumed, others begin again, failed ones too. A run that fails or does not fit is recorded with the reason. Without a
# --memory-budget, auto takes all memory there is. Data is data/demo.txt unless OPTION names some; there is neither
# validation nor sampling unless OPTION asks for it. The first two steps do not count for times. Measured memory is the
# peak resident set of the process less that of the program itself (the same command with a tiny model, less what that
# allocates), so it means something on the CPU only. Prints sweep.md; exits with 1 if curves differ, 2 for bad usage.
# $TRAIN_GPT names another binary than the ./train_gpt above this folder.
#
# Read next: sweep_report.sh (the tables), plot.py (the pictures).
set -eu
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
train_gpt=${TRAIN_GPT:-$root/train_gpt}

say() { printf 'sweep: %s\n' "$*" >&2; }
die() { code=$1; shift; say "$*"; exit "$code"; }
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

# ---- the command line: afterwards "$@" are the options of train_gpt -------------------------

batch_sizes='' levels='' out='' total='' keep_checkpoints=no
words=$#
while [ $words -gt 0 ]; do
    word=$1
    shift
    words=$((words - 1))
    case $word in
        --) break ;;
        -h | --help) usage; exit 0 ;;
        --checkpoints) keep_checkpoints=yes; continue ;;
        --batch-sizes=* | --recompute=* | --out=* | --model=* | --steps=* | --total-batch-size=*) value=${word#*=} ;;
        --batch-sizes | --recompute | --out | --model | --steps | --total-batch-size)
            [ $words -gt 0 ] || die 2 "$word: wants a value; see --help"
            value=$1
            shift
            words=$((words - 1)) ;;
        *) die 2 "$word: no such option; those of train_gpt come after --; see --help" ;;
    esac
    case ${word%%=*} in
        --batch-sizes) batch_sizes=$value ;;
        --recompute) levels=$value ;;
        --out) out=$value ;;
        --total-batch-size) total=$value ;;
        *) set -- "$@" "${word%%=*}=$value" ;;
    esac
done

# list OPTION TEXT PATTERN: the words of the text, each of which must match; else what is wrong, and failure.
list() {
    printf '%s\n' "$2" | tr ',' ' ' | awk -v option="$1" -v pattern="^($3)$" '
        { for (i = 1; i <= NF && !wrong; i++) {
            if ($i !~ pattern) wrong = option "=" $i ": cannot be; see --help"
            if (seen[$i]++) wrong = option ": " $i " is there twice; name it once"
            all = all (all == "" ? "" : " ") $i
        } }
        END { if (all == "") wrong = option ": name at least one; see --help"; print wrong ? wrong : all
              exit wrong != "" }'
}
batch_sizes=$(list --batch-sizes "$batch_sizes" '[1-9][0-9]*') || die 2 "$batch_sizes"
levels=$(list --recompute "$levels" '[a-z0-9]+') || die 2 "$levels"
case $total in *[!0-9]*) die 2 "--total-batch-size=$total: must be a number of tokens" ;; esac
[ -n "$out" ] || die 2 "--out: name the folder for the runs; see --help"
case $out in /*) ;; *) out=./$out ;; esac
out=${out%/}
case $train_gpt in */*) ;; *) train_gpt=./$train_gpt ;; esac
[ -x "$train_gpt" ] || die 1 "there is no program '$train_gpt'; run make, or name another in \$TRAIN_GPT"

# name_of WORD: sets $name to its option's name, empty if it is none, and $inline to whether the value is in it, too.
name_of() {
    inline=no
    case $1 in
        --*=*) name=${1%%=*} inline=yes ;;
        --* | -?) name=$1 ;;
        -?*) name=${1%"${1#??}"} inline=yes ;;
        *) name='' ;;
    esac
}

# given NAMES WORD...: whether one of the words is one of these options; $name is the one.
given() {
    names=$1
    shift
    for word; do
        name_of "$word"
        case " $names " in *" ${name:-none} "*) return 0 ;; esac
    done
    return 1
}

# select_options NAMES WORD...: those of the words that are these options, with their values, quoted for eval.
select_options() {
    names=$1
    shift
    while [ $# -gt 0 ]; do
        name_of "$1"
        number=2
        case $inline$flags in yes* | *" ${name:-none} "*) number=1 ;; esac
        [ -n "$name" ] && [ $# -gt 1 ] || number=1
        while [ $number -gt 0 ]; do
            case " $names " in
                *" ${name:-none} "*) printf "'%s' " "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")" ;;
            esac
            shift
            number=$((number - 1))
        done
    done
}

# names_in PATTERN [COMMAND]: the names of the options of train_gpt whose line in --help matches.
names_in() {
    "$train_gpt" ${2+"$2"} --help | awk -v pattern="$1" '$0 ~ pattern { gsub(",", " ", $1); printf " %s ", $1 }'
}
flags=$(names_in '^  -[^ ]*(  |$)') # they take no value

own="-b --batch-size -d --total-batch-size -r --recompute -o --output-dir -y --resume --dry-run --log-level"
if given "$own" "$@"; then
    die 2 "$name: is for the sweep to say, not after --; see --help for --batch-sizes, --recompute, --out"
fi
if ! given "-i --data --config" "$@"; then
    data=data/demo.txt
    [ -e $data ] || data=$root/data/demo.txt
    set -- "$@" --data="$data"
fi
given "-x --steps --config" "$@" || set -- "$@" --steps=20
given "-v --val-every -j --val-data --val-sequences --config" "$@" || set -- "$@" --val-every=0
given "-g --sample-length -s --sample-every --sample-prompt --config" "$@" || set -- "$@" --sample-length=0

# ---- everything is checked before anything is written ------------------------------------------

# error_of FILE CODE: why train_gpt ended, in one line, from its stderr.
error_of() {
    text=$(sed -n 's/^[0-9:]* E //p' "$1" | tail -n 1 | tr '\t' ' ')
    if [ -n "$text" ]; then
        printf '%s\n' "$text"
    elif [ "$2" -eq 137 ]; then
        echo "killed by signal 9: the system was out of memory, or somebody ended it"
    elif [ "$2" -gt 128 ]; then
        echo "ended by signal $(($2 - 128))"
    else
        echo "exit code $2: $(tail -n 1 "$1" | tr '\t' ' ')"
    fi
}

temp=$(mktemp -d)
job='' stopped='' lock=''
# shellcheck disable=SC2317  # the traps call it
stop() {
    stopped=$1
    [ -z "$job" ] || kill -TERM "$job" 2>/dev/null || :
}
trap 'stop 1; rm -rf "$temp" ${lock:+"$lock"}' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM HUP
stop_here() { [ -z "$stopped" ] || die "$stopped" "interrupted; the same command goes on"; }

# The sequence length may come from an option or a file. Too little memory is for the runs to find.
code=0
"$train_gpt" "$@" --batch-size="${batch_sizes%% *}" --recompute=none --dry-run >/dev/null 2>"$temp/err" || code=$?
stop_here
seq_len=$(sed -n 's/.* I batch *[0-9]* x \([0-9]*\) tokens.*/\1/p' "$temp/err")
[ -n "$seq_len" ] || die $code "$(error_of "$temp/err" $code)"
if [ -z "$total" ]; then
    total=1
    for a in $batch_sizes; do # the least common multiple
        step=$a b=$total
        while [ "$b" -gt 0 ]; do rest=$((a % b)) a=$b b=$rest; done
        total=$((total * step / a))
    done
    total=$((total * seq_len))
fi
set -- "$@" --total-batch-size="$total"

plan_options=$(select_options "$(names_in '^  -' plan)" "$@")
resume_options=$(select_options "--threads --device --memory-budget --peak-tflops" "$@")
base_options=$(select_options "-i --data --tokenizer -t --seq-len --dtype --threads --device --config" "$@")

# plan BATCH_SIZE LEVEL: the prediction, as JSON.
plan() {
    eval "set -- --batch-size=$1 --recompute=$2 $plan_options"
    "$train_gpt" plan --json "$@"
}
for level in $levels; do
    code=0
    plan "${batch_sizes%% *}" "$level" >/dev/null 2>"$temp/err" || code=$?
    [ $code -ne 2 ] || case $(error_of "$temp/err" 2) in
        --recompute=*) die 2 "$(error_of "$temp/err" 2)" ;;
    esac
    stop_here
done
{
    printf 'batch sizes: %s\nlevels: %s\ncheckpoints: %s\n' "$batch_sizes" "$levels" $keep_checkpoints
    printf 'option: %s\n' "$@"
} >"$temp/options"
if [ -e "$out/sweep.options" ]; then
    if ! cmp -s "$temp/options" "$out/sweep.options"; then
        difference=$(diff "$out/sweep.options" "$temp/options" | sed -n 's/^[<>] //p' | head -n 1)
        die 2 "--out=$out: holds a sweep with other options ($difference); repeat its own, or choose another folder"
    fi
elif [ -n "$(ls -A "$out" 2>/dev/null)" ]; then
    die 2 "--out=$out: is not empty and holds no sweep; choose another folder"
fi
mkdir -p "$out" || die 1 "--out=$out: cannot be made"
if ! (set -C; echo $$ >"$out/sweep.lock") 2>/dev/null; then
    other=$(cat "$out/sweep.lock")
    if kill -0 "$other" 2>/dev/null; then die 1 "--out=$out: process $other is at work on it; wait for it"; fi
    echo $$ >"$out/sweep.lock" # of a sweep that was killed
fi
lock=$out/sweep.lock
cp "$temp/options" "$out/sweep.options"

# ---- the runs ------------------------------------------------------------------------------------

# watch FOLDER [STEPS]: waits for $job, or until so many steps are done. $peak is then the most it had resident, in
# bytes, as seen after its first step, when all memory has been touched; empty where it was too short, or without /proc.
watch() {
    peak=''
    while :; do
        lines=0
        [ ! -s "$1/metrics.jsonl" ] || lines=$(wc -l <"$1/metrics.jsonl") || :
        seen=''
        while read -r key value rest; do
            [ "$key" != VmHWM: ] || seen=$((value * 1024))
        done <"/proc/$job/status" || :
        [ -n "$seen" ] || break
        [ "${lines:-0}" -eq 0 ] || peak=$seen
        [ "${lines:-0}" -lt "${2:-999999999}" ] || break
        sleep 0.2 || : # as a signal may end it
    done 2>/dev/null
}

# number KEY FILE: the value of that key in the last line of the file that has it; nothing without such a line.
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" "$2" 2>/dev/null | tail -n 1; }

# record FOLDER STATUS REASON: what is kept of a run beside what train_gpt wrote.
record() {
    printf '%s\n' "status=$2" "reason=$3" "peak_rss_bytes=$peak" "version=$("$train_gpt" --version)" >"$1/sweep.txt.tmp"
    mv "$1/sweep.txt.tmp" "$1/sweep.txt"
    say "${1#"$out"/}: $2${3:+: $3}"
}

# record_failure FOLDER FILE CODE: with the reason that stderr, in the file, and the exit code give.
record_failure() {
    reason=$(error_of "$2" "$3")
    case $reason in
        *"not enough memory"* | *"out of memory"* | *"is not enough for"*) record "$1" "out of memory" "$reason" ;;
        *) record "$1" failed "$reason" ;;
    esac
}

# run BATCH_SIZE LEVEL OPTION...: makes sure of that run, one way or the other.
run() {
    folder=$out/b$1-r$2 batch_size=$1 level=$2 peak='' code=0
    shift 2
    if grep -q '^status=finished$' "$folder/sweep.txt" 2>/dev/null; then
        say "${folder#"$out"/}: was finished before"
        return
    fi
    if [ ! -e "$folder/sweep.txt" ] && [ -e "$folder/checkpoints/latest" ]; then
        eval "set -- $resume_options"
        set -- --resume="$folder" "$@"
        say "${folder#"$out"/}: goes on from its checkpoint"
    else
        rm -rf "$folder"
        mkdir "$folder"
        plan "$batch_size" "$level" >"$folder/plan.json" 2>"$temp/err" || code=$?
        stop_here
        [ $code -eq 0 ] || { record_failure "$folder" "$temp/err" $code; return; }
        set -- --batch-size="$batch_size" --recompute="$level" --output-dir="$folder" "$@"
    fi
    "$train_gpt" "$@" >"$folder/stdout.txt" 2>"$folder/stderr.txt" </dev/null &
    job=$!
    watch "$folder"
    while :; do # a signal ends wait, but not the run
        code=0
        wait "$job" || code=$?
        kill -0 "$job" 2>/dev/null || break
    done
    job=''
    steps=$(number step "$folder/metrics.jsonl")
    if [ $code -eq 0 ] && [ "${steps:-0}" = "$(sed -n 's/^steps = //p' "$folder/config.toml")" ]; then
        [ $keep_checkpoints = yes ] || rm -rf "$folder/checkpoints"
        record "$folder" finished ''
    elif [ $code -eq 0 ]; then # it took a signal itself and has written a checkpoint
        stopped=${stopped:-130}
    elif [ -z "$stopped" ]; then
        record_failure "$folder" "$folder/stderr.txt" $code
    fi
}
for batch_size in $batch_sizes; do
    for level in $levels; do
        stop_here
        run "$batch_size" "$level" "$@"
    done
done
stop_here

# measure_base: what the program takes besides its model, once, if there is anything to take it from.
# shellcheck disable=SC2120  # its arguments are set inside
measure_base() {
    [ ! -e "$out/base_bytes" ] && grep -q '^peak_rss_bytes=.' "$out"/b*-r*/sweep.txt || return 0
    eval "set -- $base_options"
    "$train_gpt" --model=gpt2-nano --layers=1 --channels=32 --heads=1 --batch-size=1 --recompute=none --steps=1000000 \
        --val-every=0 --sample-length=0 --output-dir="$temp/base" "$@" >/dev/null 2>&1 </dev/null &
    job=$!
    watch "$temp/base" 20
    kill -KILL "$job" 2>/dev/null || :
    wait "$job" 2>/dev/null || :
    job=''
    stop_here
    allocated=$(number memory_bytes "$temp/base/metrics.jsonl")
    [ -z "$peak" ] || [ -z "$allocated" ] || echo $((peak - allocated)) >"$out/base_bytes"
}
measure_base

code=0
"$root/scripts/sweep_report.sh" "$out" || code=$?
stop_here
if /usr/bin/python3 -c 'import matplotlib' 2>/dev/null; then
    "$root/scripts/plot.py" "$out" >&2 || say "the plots could not be made"
else
    say "for plots, install the Debian package python3-matplotlib and run scripts/plot.py $out"
fi
exit $code
