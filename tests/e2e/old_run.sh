#!/bin/bash
# A run folder written by an earlier version (3e66bb4: two ranks, ZeRO 1, stopped after 4 of 8 steps) is resumed,
# evaluated, sampled and exported by this one. How it was made: the options are in its config.toml, the text is that of
# lib.bash; what that version did in steps 5 to 8 is in expected.txt.
set -u
folder=$PWD/tests/golden/run_3e66bb4
. tests/e2e/lib.bash

cp -r "$folder" old
chmod -R u+w old

numbers() { sed 's/[^0-9.e-]/ /g'; }

# as_expected: the curve of old/ from step 5 on, within rounding; processors differ in the last bits.
as_expected() {
    curve "$1" | sed -n '/"step":5,/,$p' | numbers >ours
    numbers <"$folder/expected.txt" >theirs
    paste -d ' ' ours theirs | awk '
        { for (i = 1; i <= NF / 2; ++i) { d = $i - $(i + NF / 2); if (d * d > 1e-10 * $i * $i) bad = 1 } }
        END { exit bad || NR != 4 }'
}

cp -r old resumed
must "resume" --resume=resumed
check "an old run goes on with the losses it would have had" as_expected resumed
check "its places are unknown, so nothing is said of them" test "$(grep -c 'I resume ' err)" = 0

cp -r old bf16
if bf16_works; then
    must "resume in bf16" --resume=bf16 --dtype=bf16
    check "another format is converted, and said" grep -q 'I resume .*converted to bf16; .*fp32' err
else
    skip "another format is converted, and said" "this processor or build has no bf16"
fi

must "evaluate" evaluate --run=old --data=text.txt
check "evaluate reads it" grep -q '^loss' out
must "generate" generate --run=old --length=5 --seed=3
check "generate reads it" test -s out
must "export" export --run=old --out=exported
check "export reads it" test -s exported/model.safetensors

# ---- where and how a run keeps things, across versions and settings -------------------------------------------

train places --steps=2
must "other places" --resume=places --steps=4 --recompute=offload
said='I resume  1 rank, layer boundaries on the host from here on; before: 1 rank, everything whole'
check "a resume with other places says so in one line" test "$(grep -c "$said" err)" = 1

exit $((failures > 0))
