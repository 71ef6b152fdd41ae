#!/bin/bash
# Every preset can be planned by its name alone, in a folder that has no file, with the published number of parameters.
set -u
. tests/e2e/lib.bash
rm text.txt

while read -r name parameters; do
    run plan --model="$name" --batch-size=1 --seq-len=512 --recompute=1 --device=cpu --dtype=fp32 --json
    planned=$(sed -n 's/.*"parameters": *\([0-9]*\).*/\1/p' out | head -n 1)
    check "$name: $parameters parameters" test "$status $planned" = "0 $parameters"
done <<'END'
smollm2-135m 134515008
smollm2-360m 361821120
smollm2-1.7b 1711376384
llama3.2-1b 1235814400
llama3.2-3b 3212749824
mistral-7b 7248023552
llama3.1-8b 8030261248
qwen2.5-0.5b 494032768
qwen2.5-1.5b 1543714304
qwen2.5-3b 3085938688
qwen2.5-7b 7615616512
qwen3-0.6b 596049920
qwen3-1.7b 1720574976
qwen3-4b 4022468096
qwen3-8b 8190735360
phi-3-mini 3821079552
smollm3-3b 3075098624
END
run plan --model=smollm3-3b --layers=40 --seq-len=64 --batch-size=1 --recompute=1 --device=cpu
check "a preset whose layers differ takes another number of them" test "$status" = 0
exit $((failures > 0))
