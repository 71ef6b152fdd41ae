# What scripts/chat.sh and scripts/finetune.sh share, to be sourced with their arguments: the program, a trained run of
# the demo to begin with ($base), and the questions that are asked before and after.
set -eu
case ${1-} in
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*)
        echo "${0##*/}: $1: there is no such option; see ${0##*/} --help" >&2
        exit 2
        ;;
esac
cd "$(dirname "$0")/.."
train_gpt=${1:-./train_gpt}
questions="Who built the ark?|What is the opposite of light?|What comes after 41?|Say, who was the wise king?"

data/chat.sh

base=
for run in runs/gpt2-nano-* runs/chat-base; do
    if [ -e "$run/checkpoints/latest" ] || ls "$run"/checkpoints/step-* >/dev/null 2>&1; then base=$run; fi
done
if [ -z "$base" ]; then
    data/demo.sh
    "$train_gpt" --steps=800 --val-every=0 --sample-length=0 --output-dir=runs/chat-base
    base=runs/chat-base
fi

# answers OPTION...: what a model says to the questions.
answers() {
    echo "$questions" | tr '|' '\n' | while read -r question; do
        answer=$("$train_gpt" generate "$@" --chat --chat-template=data/chat.jinja --prompt="$question" \
            --temperature=0 --length=40 --log-level=warn </dev/null | tr '\n' ' ')
        printf '  %-32s %s\n' "$question" "$answer"
    done
}
