#!/usr/bin/env bash
# How fast are tokenizers on one thread? Times `train_gpt tokenize --threads=1` and Hugging Face tokenizers in turn, in
# the same run, on the same texts, with tokenizer.json files in the forms of four families, and compares their tokens.
#
#   dev/bench/tokenize.sh [--quick]      or: make bench BENCH=tokenize
#
# Prints a table and writes dev/bench/results/tokenize.md. --quick is one round and writes nothing. Needs GPT-2's
# vocab.json and merges.txt (or encoder.json and vocab.bpe) in the folder or file $GPT2, and a $PYTHON that has
# `tokenizers` (and `sentencepiece`, for Llama 2's model in $LLAMA2); without one, a virtual environment is made in
# $TMPDIR and both are installed there from PyPI. Megabytes per second are those of encoding alone, the best of the
# rounds. Exits with 1 if train_gpt is less than 5 times as fast anywhere.
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

texts=()
for text in "$shared/tinyshakespeare.txt" "$root/data/demo.txt"; do
    [ -s "$text" ] && texts+=("$text")
done
[ ${#texts[@]} -gt 0 ] || die "no text: run data/demo.sh"

python=${PYTHON:-python3}
if ! "$python" -c 'import tokenizers' 2> /dev/null; then
    python3 -m venv "$tmp/venv" && "$tmp/venv/bin/pip" install -q tokenizers sentencepiece > /dev/null 2>&1 ||
        die "no Python with tokenizers, and it cannot be installed: set PYTHON"
    python=$tmp/venv/bin/python
fi
library=$root/dev/bench/hf_tokenizers.py
llama2=${LLAMA2:-$shared/llama2_tokenizer.model}
[ -e "$llama2" ] && "$python" -c 'import sentencepiece' 2> /dev/null || llama2=
read -r -a kinds < <("$python" "$library" make "$tmp" "$tmp/tiny_tokenizer/vocab.json" \
    "$tmp/tiny_tokenizer/merges.txt" ${llama2:+"$llama2"})

rate_of_ours() { # KIND TEXT
    rm -rf "$tmp/ours_"*
    "$train_gpt" tokenize --tokenizer="$tmp/$1" --threads=1 --val-fraction=0 --out="$tmp/ours" "$2" 2>&1 > /dev/null |
        sed -n 's/.* \([0-9.]*\) MB\/s$/\1/p'
}
faster() { awk "BEGIN { print ($1 > $2) ? $1 : $2 }"; }

status=0
table='| form | text | MB | train_gpt, MB/s | Hugging Face tokenizers, MB/s | ratio | at least 5 |
|---|---|---|---|---|---|---|'
for kind in "${kinds[@]}"; do
    for text in "${texts[@]}"; do
        ours=0
        theirs=0
        for ((round = 1; round <= rounds; ++round)); do
            ours=$(faster "$ours" "$(rate_of_ours "$kind" "$text")")
            theirs=$(faster "$theirs" "$("$python" "$library" time "$tmp/$kind/tokenizer.json" "$text" \
                "$tmp/ours_train_000000.bin")")
        done
        ratio=$(awk "BEGIN { printf \"%.1f\", $ours / $theirs }")
        verdict=$(awk "BEGIN { print ($ours >= 5 * $theirs) ? \"pass\" : \"**MISS**\" }")
        [ "$verdict" = pass ] || status=1
        table+=$(printf '\n| %s | %s | %.1f | %s | %s | %s | %s |' "$kind" "$(basename "$text")" \
            "$(awk "BEGIN { print $(stat -c %s "$text") / 1e6 }")" "$ours" "$theirs" "$ratio" "$verdict")
    done
done

other=$("$python" -c 'import tokenizers; print("tokenizers", tokenizers.__version__)')
version=$(git -C "$root" describe --always --dirty --tags 2> /dev/null || echo unknown)
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
about="$(date +%F), train_gpt $version, $processor, one thread, best of $rounds; $other"
printf '%s\n\n%s\n' "$table" "$about"
if [ "$rounds" -gt 1 ]; then
    mkdir -p "$root/dev/bench/results"
    printf '# Tokenizers, one thread\n\n`dev/bench/tokenize.sh`: %s.\n\n%s\n' "$about" "$table" \
        > "$root/dev/bench/results/tokenize.md"
fi
exit $status
