#!/bin/bash
# Instruction rows from file to answer: direct and through tokenize, in every form and packing, and bad ones.
set -u
. tests/e2e/lib.bash

rows() { # rows FIRST LAST: questions that a model of bytes can learn by heart.
    local i
    for ((i = $1; i <= $2; i++)); do
        printf '{"messages":[{"role":"user","content":"n%s?"},{"role":"assistant","content":"ok"}]}\n' $((i % 10))
    done
}
rows 1 40 >rows.jsonl
rows 1 10 >val.jsonl
printf '%s' '{% for m in messages %}{% if m.role == "user" %}{{ "Q" + m.content + "A" }}{% else %}{% generation %}' \
    '{{ m.content }}<|endoftext|>{% endgeneration %}{% endif %}{% endfor %}' >chat.jinja
train=("${tiny[@]}" --val-data=val.jsonl --steps=60 --learning-rate=0.01 --warmup=5 --val-every=20 --sample-length=0)
own=--chat-template=chat.jinja

must "direct" "${train[@]}" --data=rows.jsonl "$own" --output-dir=direct
check "rows are counted" grep -q "'rows.jsonl': 40 rows, 0 dropped .* tokens, 120 of them scored" err
check "the banner says what they are" grep -q "data    'rows.jsonl' is instruction rows, chat template 'chat.jinja'" err

sed 's/^/,/; 1s/^,/[/; $s/$/]/' rows.jsonl >rows.json
gzip -k rows.jsonl
sed 's/"messages"/"conversations"/; s/"role":"user","content"/"from":"human","value"/
    s/"role":"assistant","content"/"from":"gpt","value"/' rows.jsonl >sharegpt.jsonl
sed -E 's/.*"(n.\?)".*/{"instruction":"\1","input":"","output":"ok"}/' rows.jsonl >alpaca.jsonl
for file in rows.json rows.jsonl.gz sharegpt.jsonl alpaca.jsonl; do
    must "$file" "${train[@]}" --data="$file" "$own" --output-dir="as-$file"
    check "$file: the same bits" cmp <(curve direct) <(curve "as-$file")
done

must "tokenize" tokenize --tokenizer=bytes --chat-template=chat.jinja --out=t --val-fraction=0 rows.jsonl
check "tokenize names its files" grep -q -x t_train_000000.bin out
check "and puts marks beside them" test -s t_train_000000.marks
must "tokenize val" tokenize --tokenizer=bytes --chat-template=chat.jinja --out=v --val-fraction=0 val.jsonl
marked=("${tiny[@]}" --tokenizer=bytes --data='t_train_*.bin' --val-data='v_train_*.bin' --steps=60 --learning-rate=0.01
    --warmup=5 --val-every=20 --sample-length=0)
must "marked" "${marked[@]}" --output-dir=marked
check "token files with marks: the same bits" cmp <(curve direct) <(curve marked)
must "split" tokenize --tokenizer=bytes --chat-template=chat.jinja --out=s --val-fraction=0.25 rows.jsonl
check "a share for validation, in whole rows" test "$(wc -c <s_val_000000.marks)" -eq $((48 + 10 * 8))
must "all" tokenize --tokenizer=bytes --chat-template=chat.jinja --score=all --out=a --val-fraction=0 rows.jsonl
check "--score=all scores all" grep -q "; 280 are scored" err

must "answer" generate --run=direct --chat --prompt='n3?' --temperature=0 --length=9
check "generate --chat answers and stops at the turn's end" test "$(cat out)" = ok
check "and says where answers end" grep -q "an answer ends at '<|endoftext|>' (256)" err
run generate --run=direct --chat --temperature=0 --length=9 < <(printf 'n1?\n\nn2?\n')
check "a conversation from standard input" test "$status $(tr '\n' ' ' <out)" = "0 ok ok "
run generate --run=direct --chat --temperature=0 </dev/null
check "that ends at once" test "$status$(cat out)" = 0

bad() { # bad NAME ROW WORDS
    printf '%s\n' "$(rows 1 1)" "$2" >bad.jsonl
    refused "$1" 1 "bad.jsonl' line 2.*$3" "${train[@]}" --data=bad.jsonl "$own" --output-dir=bad
}
bad "an unknown role" '{"messages":[{"role":"tool","content":"x"}]}' "'messages\[0\].role' 'tool'"
bad "calls of tools" '{"messages":[{"role":"assistant","content":"","tool_calls":[{}]}]}' \
    "calls of tools are not supported"
bad "content as a list" '{"messages":[{"role":"user","content":[{"type":"text"}]}]}' \
    "'messages\[0\].content', which is a list"
bad "no answer" '{"messages":[{"role":"user","content":"x"}]}' "without a turn of the assistant"
bad "damaged" '{"messages":[{"role":' "is not valid JSON"
must "skipping" "${train[@]}" "$own" --data=bad.jsonl --data-format=rows --skip-bad-lines --dry-run
check "the advice works" grep -q "1 bad row was skipped" err
head -n 3 rows.json >cut.json
refused "an array that is cut" 1 "cut.json' line 4.*the file is cut" \
    "${train[@]}" "$own" --data=cut.json --output-dir=bad
sed 's/"ok"/" "/' rows.jsonl >blank.jsonl
refused "nothing scored" 1 "blank.jsonl' has nothing to learn from" \
    "${train[@]}" "$own" --data=blank.jsonl --output-dir=bad
echo '{% macro x() %}{% endmacro %}' >macro.jinja
refused "an unknown construct" 1 "'macro.jinja' line 1: the tag .% macro %. is not supported" \
    "${train[@]}" --data=rows.jsonl \
    --chat-template=macro.jinja --output-dir=bad
echo '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}' >forever.jinja
refused "a template without an end" 1 "does not come to an end" \
    "${train[@]}" --data=rows.jsonl --chat-template=forever.jinja \
    --output-dir=bad
echo '<|endoftext|><|endoftext|>{{ messages[0].content }}' >double.jinja
refused "two tokens in front" 1 "begins with '<.endoftext.>' twice" \
    "${train[@]}" --data=rows.jsonl --chat-template=double.jinja \
    --output-dir=bad
refused "no such template" 2 "chat-template=alpacca: there is no such file.*chatml, llama2" \
    "${train[@]}" --data=rows.jsonl \
    --chat-template=alpacca --output-dir=bad
refused "no template at all" 1 "has no chat template; name one with --chat-template" "${tiny[@]}" --data=rows.jsonl \
    --output-dir=bad
refused "--chat without one" 2 "has no chat template" generate --run=marked --chat --prompt=x
must "--system alone" generate --run=direct --system=x --length=4
check "is noted" grep -q "W --system: has no effect; only conversations have one; add --chat" err
printf 'x' | dd of=t_train_000000.marks bs=1 seek=60 conv=notrunc 2>dd.err
refused "damaged marks" 1 "t_train_000000.marks' says what is scored.*its checksum differs" \
    "${marked[@]}" --output-dir=bad
check "nothing was begun" test ! -e bad
rows 1 4 >long.jsonl
printf '{"messages":[{"role":"user","content":"%090d"},{"role":"assistant","content":"ok"}]}\n' 7 >>long.jsonl
printf '{"messages":[{"role":"user","content":"n1?"},{"role":"assistant","content":"%090d"}]}\n' 7 >>long.jsonl
must "long rows" "${train[@]/#--steps=60/--steps=6}" "$own" --data=long.jsonl --output-dir=long
check "rows longer than a sequence are cut, and left out where nothing of the rest counts" \
    grep -q -E "2 longer.*|2 rows? .*longer" err
exit $((failures > 0))
