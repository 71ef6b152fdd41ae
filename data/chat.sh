#!/bin/sh
# Makes data/chat.jsonl, a few hundred questions with answers for `make chat`: what the demo's text tells, opposites,
# and counting, each asked in several ways. The same file every time; --force makes it anew.
set -eu
cd "$(dirname "$0")"

case ${1-} in
    "") [ ! -s chat.jsonl ] || exit 0 ;;
    --force) ;;
    *) echo "usage: data/chat.sh [--force]" >&2; exit 2 ;;
esac

partial=$(mktemp chat.jsonl.XXXXXX)
trap 'rm -f "$partial"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

awk '
    function row(question, answer) {
        printf "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"},", question
        printf "{\"role\":\"assistant\",\"content\":\"%s\"}]}\n", answer
    }
    function ask(question, answer) {
        row(question, answer)
        row("Tell me: " tolower(substr(question, 1, 1)) substr(question, 2), answer)
        row("Please, " tolower(substr(question, 1, 1)) substr(question, 2), answer)
    }
    BEGIN {
        facts = "Who built the ark?|Noah built it.|Who was the first man?|Adam.|Who was the first woman?|Eve.|" \
            "Who led Israel out of Egypt?|Moses did.|Who slew Goliath?|David slew him.|" \
            "Who was the wise king?|Solomon.|" \
            "Who was the father of Isaac?|Abraham.|Who was the mother of Isaac?|Sarah.|Who was sold by his brothers?|" \
            "Joseph was.|Who was in the belly of the fish?|Jonah was.|Who was the strongest man?|Samson.|" \
            "Who was cast to the lions?|Daniel was.|Where was the first garden?|In Eden.|Where was Jesus born?|" \
            "In Bethlehem.|What was on the third day made?|The dry land.|What shone in the night?|The moon.|" \
            "What falls from heaven?|Rain falls.|How many days has a week?|Seven.|" \
            "How many tribes were there?|Twelve.|" \
            "How many commandments are there?|Ten."
        count = split(facts, fact, "|")
        for (i = 1; i < count; i += 2) ask(fact[i], fact[i + 1])
        pairs = "day night|heaven earth|good evil|light darkness|man woman|father mother|son daughter|king servant|" \
            "life death|first last|great small|rich poor|war peace|love hate|old young|hot cold|right left|up down"
        count = split(pairs, pair, "|")
        for (i = 1; i <= count; i++) {
            split(pair[i], word, " ")
            ask("What is the opposite of " word[1] "?", "It is " word[2] ".")
            ask("What is the opposite of " word[2] "?", "It is " word[1] ".")
        }
        for (i = 0; i < 60; i++) {
            row("What comes after " i "?", (i + 1) ".")
            row("Which number follows " i "?", (i + 1) ".")
        }
    }' >"$partial"

chmod 644 "$partial"
mv "$partial" chat.jsonl
echo "data/chat.jsonl: $(wc -l <chat.jsonl) questions with answers"
