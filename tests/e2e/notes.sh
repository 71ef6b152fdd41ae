#!/bin/bash
# What the notes name is there: files that they link to, tests that prove a row, options, presets; and the diffs of
# extend.md apply.
set -u
. tests/e2e/lib.bash
root=$OLDPWD

missing_links() { # of a note: files it links to that are not there
    local note=$1 link
    grep -oE '\]\([^)# ]+' "$root/$note" | sed 's/^](//' | grep -v '^https*:' | while read -r link; do
        [ -e "$root/$(dirname "$note")/$link" ] || echo "$link"
    done
}
for note in README.md $(cd "$root" && ls dev/notes/*.md); do
    check "$note: its links" test -z "$(missing_links "$note")"
done

cat "$root"/tests/*/*.cpp "$root"/tests/*/*.cu "$root"/tests/*/*/*.cpp 2>/dev/null | tr '\n' ' ' |
    grep -oE 'TEST(_F|_P)?\( *[A-Za-z0-9]+, *[A-Za-z0-9]+' |
    sed -E 's/TEST(_F|_P)?\( *//; s/, */./' | sort -u >tests.txt
check "tests are found" test "$(wc -l <tests.txt)" -gt 500
words() { # PATTERN NOTE...: what the notes have between backquotes
    local pattern=$1
    shift
    (cd "$root/dev/notes" && grep -ohE "\`$pattern" "$@") | tr -d '\`' | sort -u
}
for name in $(words '[A-Z][A-Za-z0-9]+\.[A-Z][A-Za-z0-9]+' determinism.md); do
    check "determinism.md: $name" grep -qx "$name" tests.txt
done
for patch in "$root"/dev/notes/extend/*.patch; do
    name=$(basename "$patch")
    check "extend.md has $name" grep -q "(extend/$name)" "$root/dev/notes/extend.md"
    check "$name applies" bash -c "cd '$root' && GIT_CEILING_DIRECTORIES=$(dirname "$root") git apply --check '$patch'"
done
for name in $(words '[a-z_]+\.sh' determinism.md promises.md); do
    check "a script of the notes: $name" test -x "$root/tests/e2e/$name"
done
"$TRAIN_GPT" --help-all >all.txt && "$TRAIN_GPT" plan --help-all >>all.txt
for name in $(words '--[a-z][a-z-]+' determinism.md tour.md recompute.md scaling.md); do
    check "an option of the notes: $name" grep -qE -e "(^| |,)$name( |$)" all.txt
done

# Every command of the README that is ours: its options, files and targets are there. (Those of blocks marked `run` are
# run in tests/long/readme.sh.)
if command -v python3 >/dev/null; then
    "$root/dev/readme.py" check >commands.txt 2>&1
    cat commands.txt
    failures=$((failures + $(grep -c -v '^ok ' commands.txt)))
    check "commands are found" test "$(grep -c '^ok ' commands.txt)" -gt 40
else
    skip "commands of the README" "no python3"
fi
exit $((failures > 0))
