# shellcheck shell=bash
# For the scripts beside it, to be sourced: programs, a temporary folder with data, one measured training run.
# It is no script of its own, so `make bench`, which runs dev/bench/*.sh, leaves it alone.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
script=$(basename "$0" .sh)
train_gpt=$(realpath "${TRAIN_GPT:-$root/train_gpt}")
peak_rss=$(realpath "${BENCH_BIN:-$root/build/release/bench}/peak_rss")

die() {
    printf '%s: %s\n' "$script" "$*" >&2
    exit 2
}

# Quiet until the table, but for a line per run.
say() { printf '    %s\n' "$*" >&2; }

for program in "$train_gpt" "$peak_rss"; do
    [ -x "$program" ] || die "no $program; run make bench BENCH=$script"
done

tmp=$(mktemp -d "${TMPDIR:-/tmp}/$script.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A mebibyte of text that no model can learn. Its tokens are bytes; --vocab-size makes room for more.
data=$tmp/text.txt
head -c 786432 /dev/urandom | base64 > "$data"

# predicted_bytes OPTION...: what train_gpt says it will allocate with these options, one --recompute level among them.
predicted_bytes() {
    "$train_gpt" plan --json --data="$data" "$@" | sed -n 's/.*"total_bytes": *\([0-9]*\).*/\1/p'
}

# train STEPS OPTION...: trains and sets $peak (resident bytes at most) and $steps_ms (milliseconds of each step).
# shellcheck disable=SC2034
train() {
    local steps=$1
    shift
    rm -rf "$tmp/run"
    "$peak_rss" "$tmp/peak" "$train_gpt" --data="$data" --steps="$steps" --val-every=0 --sample-length=0 \
        --output-dir="$tmp/run" --log-level=warn "$@" || die "train_gpt $* failed"
    peak=$(cat "$tmp/peak")
    steps_ms=$(sed -n 's/.*"step_ms":\([0-9.]*\).*/\1/p' "$tmp/run/metrics.jsonl")
    rm -rf "$tmp/run"
}

# median: of the numbers on stdin, one a line.
median() {
    sort -g | awk '{ x[NR] = $1 } END { if (NR) print (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'
}

# calculate EXPRESSION: in awk, with one decimal.
calculate() { awk "BEGIN { printf \"%.1f\", $1 }"; }

# holds CONDITION: whether it is true, in awk.
holds() { awk "BEGIN { exit !($1) }"; }

mib() { calculate "$1 / 1048576"; }

# about: what was measured on what, in one line.
about() {
    printf '%s, %s, %s, %s threads' "$(date +%F)" "$("$train_gpt" --version | head -n 1)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)"
}

# publish NAME REPORT ROWS: into the results folder, as NAME.md and as NAME.json with the rows' JSON objects.
publish() {
    local results=$root/dev/bench/results
    mkdir -p "$results"
    printf '%s\n' "$2" > "$results/$1.md"
    printf '{"about": "%s", "rows": [%s\n]}\n' "$(about)" "$3" > "$results/$1.json"
}
