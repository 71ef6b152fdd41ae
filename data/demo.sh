#!/bin/sh
# Makes data/demo.txt, the text the demo trains on: the King James Bible (public
# domain) from Debian's package bible-kjv, one verse per line, references removed.
# About 4 MB of plain ASCII. Does nothing when the file is there; --force makes it anew.
set -eu
cd "$(dirname "$0")"

case ${1-} in
    "") [ ! -s demo.txt ] || exit 0 ;;
    --force) ;;
    *) echo "usage: data/demo.sh [--force]" >&2; exit 2 ;;
esac

PATH=$PATH:/usr/games
if ! command -v bible >/dev/null; then
    echo "data/demo.sh: no 'bible' program here. Install Debian's package bible-kjv (scripts/install_deps.sh)," >&2
    echo "or train on any text of your own: ./train_gpt --data=your.txt" >&2
    exit 1
fi

partial=$(mktemp demo.txt.XXXXXX)
trap 'rm -f "$partial"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# -f prints one verse per line, "Ge1:1 In the beginning ...", and does not page.
bible -f 'Gen1:1-Rev22:21' </dev/null |
    LC_ALL=C sed -e 's/^[0-9A-Za-z]*:[0-9]* //' -e 's/   */ /g' -e 's/ *$//' >"$partial"

# The text has 31102 verses; anything far from it is not what we asked for.
verses=$(wc -l <"$partial")
if [ "$verses" -lt 31000 ]; then
    echo "data/demo.sh: 'bible' printed only $verses verses; is it the one of bible-kjv?" >&2
    echo "You can train on any text of your own: ./train_gpt --data=your.txt" >&2
    exit 1
fi

chmod 644 "$partial"
mv "$partial" demo.txt
echo "data/demo.txt: $verses verses, $(wc -c <demo.txt) bytes (King James Bible)"
