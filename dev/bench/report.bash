# shellcheck shell=bash
# For scripts beside it whose program prints the whole report, to be sourced.

# write_report NAME TITLE ABOUT ARGUMENT...: runs the bench program NAME and prints what it says. Without --quick that is
# written to dev/bench/results/NAME.md as well, below TITLE and a line of date, version and ABOUT, evaluated afterwards.
# Exits with the program's status.
write_report() {
    local name=$1 title=$2 about=$3 root program report status=0
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    program=${BENCH_BIN:-$root/build/release/bench}/$name
    [ -x "$program" ] || { echo "$name: no $program; run make bench BENCH=$name" >&2; exit 2; }
    case "${4-}" in
        --quick) exec "$program" --quick ;;
        "") ;;
        *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    report=$("$program") || status=$?
    printf '%s\n' "$report"
    printf '# %s\n\n%s, %s%s.\n\n%s\n' "$title" "$(date +%F)" \
        "$("${TRAIN_GPT:-$root/train_gpt}" --version | head -n 1)" \
        "$($about)" "$report" >"$root/dev/bench/results/$name.md"
    exit "$status"
}
