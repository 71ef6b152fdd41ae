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
END
exit $((failures > 0))
