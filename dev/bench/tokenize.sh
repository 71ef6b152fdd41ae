#!/usr/bin/env bash
# How fast is GPT-2's tokenizer on one thread? Times `train_gpt tokenize --threads=1` and Hugging Face tokenizers in
# turn, in the same run, on the same texts, and compares their tokens.
#
#   dev/bench/tokenize.sh [--quick]      or: make bench BENCH=tokenize
#
# Prints a table and writes dev/bench/results/tokenize.md. --quick is one round and writes nothing. Needs GPT-2's
# vocab.json and merges.txt (or encoder.json and vocab.bpe) in the folder or file $GPT2, and a $PYTHON that has
# `tokenizers`; without one, a virtual environment is made in $TMPDIR and tokenizers installed there from PyPI.
# Megabytes per second are those of encoding alone, the best of the rounds. Exits with 1 if train_gpt is less than 1.5
# times as fast, or, where tokenizers cannot be had, below 8 MB/s.
set -euo pipefail

rounds=5
case "${1-}" in
    --quick) rounds=1 ;;
    "") ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
train_gpt=$(realpath "${TRAIN_GPT:-$root/train_gpt}")
die() {
    printf 'tokenize: %s\n' "$*" >&2
    exit 2
}
[ -x "$train_gpt" ] || die "no $train_gpt; run make bench BENCH=tokenize"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tokenize.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# GPT-2's files, under one pair of names.
shared=$root/../shared/data
gpt2=${GPT2:-$shared/gpt2_encoder.json}
[ -e "$gpt2" ] || die "no GPT-2 vocabulary: set GPT2 to the folder with vocab.json and merges.txt"
head -c 10 /dev/zero | tr '\0' 'a' > "$tmp/tiny.txt"
"$train_gpt" tokenize --tokenizer="$gpt2" --val-fraction=0 --out="$tmp/tiny" "$tmp/tiny.txt" > /dev/null 2>&1 ||
    die "cannot read the vocabulary $gpt2"
vocab=$tmp/tiny_tokenizer/vocab.json
merges=$tmp/tiny_tokenizer/merges.txt

texts=()
for text in "$shared/tinyshakespeare.txt" "$root/data/demo.txt"; do
    [ -s "$text" ] && texts+=("$text")
done
[ ${#texts[@]} -gt 0 ] || die "no text: run data/demo.sh"

python=${PYTHON:-python3}
if ! "$python" -c 'import tokenizers' 2> /dev/null; then
    if { python3 -m venv "$tmp/venv" && "$tmp/venv/bin/pip" install -q tokenizers; } > /dev/null 2>&1; then
        python=$tmp/venv/bin/python
    else
        python=
    fi
fi

rate_of_ours() {
    rm -f "$tmp/ours_"*.bin
    rm -rf "$tmp/ours_tokenizer"
    "$train_gpt" tokenize --tokenizer="$vocab" --threads=1 --val-fraction=0 --out="$tmp/ours" "$1" 2>&1 > /dev/null |
        sed -n 's/.* \([0-9.]*\) MB\/s$/\1/p'
}
faster() { awk "BEGIN { print ($1 > $2) ? $1 : $2 }"; }

status=0
table='| text | MB | train_gpt, MB/s | Hugging Face tokenizers, MB/s | ratio | target |
|---|---|---|---|---|---|'
for text in "${texts[@]}"; do
    ours=0
    theirs=0
    for ((round = 1; round <= rounds; ++round)); do
        ours=$(faster "$ours" "$(rate_of_ours "$text")")
        [ -z "$python" ] ||
            theirs=$(faster "$theirs" "$("$python" "$root/dev/bench/hf_tokenizers.py" "$vocab" "$merges" "$text" \
                "$tmp/ours_train_000000.bin")")
    done
    if [ -n "$python" ]; then
        ratio=$(awk "BEGIN { printf \"%.1f\", $ours / $theirs }")
        target="ratio at least 1.5"
        verdict=$(awk "BEGIN { print ($ours >= 1.5 * $theirs) ? \"pass\" : \"**MISS**\" }")
    else
        ratio=n/a theirs=n/a
        target="at least 8 MB/s"
        verdict=$(awk "BEGIN { print ($ours >= 8) ? \"pass\" : \"**MISS**\" }")
    fi
    [ "$verdict" = pass ] || status=1
    table+=$(printf '\n| %s | %.1f | %s | %s | %s | %s: %s |' "$(basename "$text")" \
        "$(awk "BEGIN { print $(stat -c %s "$text") / 1e6 }")" "$ours" "$theirs" "$ratio" "$target" "$verdict")
done

other='no tokenizers package'
[ -z "$python" ] || other=$("$python" -c 'import tokenizers; print("tokenizers", tokenizers.__version__)')
version=$(git -C "$root" describe --always --dirty --tags 2> /dev/null || echo unknown)
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
about="$(date +%F), train_gpt $version, $processor, one thread, best of $rounds; $other"
printf '%s\n\n%s\n' "$table" "$about"
if [ "$rounds" -gt 1 ]; then
    mkdir -p "$root/dev/bench/results"
    printf '# GPT-2 tokenizer, one thread\n\n`dev/bench/tokenize.sh`: %s.\n\n%s\n' "$about" "$table" \
        > "$root/dev/bench/results/tokenize.md"
fi
exit $status
