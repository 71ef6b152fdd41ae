#!/bin/bash
# Dropout end to end: the same bits at every level and after a resume, said where a run goes on with another, read from
# and written to an adapter's folder, absent from validation and what is used afterwards.
set -u
. tests/e2e/lib.bash

setting=(--data=text.txt --batch-size=2 --seq-len=32 --sample-length=0 --val-every=2 --val-sequences=4
    --total-batch-size=128 --warmup=1 --steps=4 --checkpoint-every=2)
dropped=("${setting[@]}" --dropout=0.2)
loss() { sed -n 's/^loss  *\([0-9.]*\).*/\1/p' out; }

must "train" "${dropped[@]}" --output-dir=whole
check "the banner says it" grep -q 'dropout 0.2, of the embedding' err
must "train another way" "${dropped[@]}" --recompute=2 --offload=moments --output-dir=level
check "the same curve at another level and place" cmp <(curve whole) <(curve level)
must "train without" "${setting[@]}" --output-dir=without
check "it changes the training" test "$(curve whole)" != "$(curve without)"
check "but not the validation before it" test \
    "$(grep -h -m 1 val_loss whole/metrics.jsonl)" = "$(grep -h -m 1 val_loss without/metrics.jsonl)"
must "resume" --resume=whole/checkpoints/step-00000002 --output-dir=resumed
check "resumed it drops the same" cmp <(curve whole | tail -n "$(curve resumed | wc -l)") \
    <(curve resumed)
must "resume with another" --resume=whole/checkpoints/step-00000002 --dropout=0.1 --output-dir=other
check "another one is said" grep -q -- 'resume  --dropout=0.1 from here on; 0.2 before' err
must "evaluate" evaluate --run=whole --data=text.txt --seq-len=32
with=$(loss)
must "export" export --run=whole --out=hf
must "evaluate the export" evaluate --model=hf --data=text.txt --seq-len=32
check "what is exported evaluates the same" test -n "$with" -a "$(loss)" = "$with"

# ---- adapters ------------------------------------------------------------------------------
must "train adapters" --model=hf "${setting[@]}" --lora=2 --lora-dropout=0.1 --output-dir=lora
check "the banner says it of adapters" grep -q 'kept in fp32; dropout 0.1' err
must "export the adapter" export --run=lora --format=peft --out=peft
check "PEFT's file has it" grep -q '"lora_dropout": 0.1' peft/adapter_config.json
must "go on with it" --model=hf "${setting[@]}" --adapter=peft --output-dir=on
check "which goes on with it" grep -q 'dropout 0.1' err
must "go on with another" --model=hf "${setting[@]}" --adapter=peft --lora-dropout=0.3 --output-dir=on2
check "or with another" grep -q 'dropout 0.3' err
must "resume adapters with another" --resume=lora/checkpoints/step-00000002 --lora-dropout=0 --output-dir=on3
check "which a resume says" grep -q -- 'resume  --lora-dropout=0 from here on; 0.1 before' err

# ---- what cannot be meant ------------------------------------------------------------------
for value in 1 -0.1 nan; do
    refused "--dropout=$value" 2 '--dropout: must be a number from 0 to 0.99' "${setting[@]}" --dropout=$value
done
refused "dropout of no adapters" 2 '--lora-dropout: is about adapters, of which there are none' "${setting[@]}" \
    --lora-dropout=0.1
sed -i 's/"lora_dropout": 0.1/"lora_dropout": 1.5/' peft/adapter_config.json
refused "a folder with too much" 1 "lora_dropout.* a probability, 0 to 0.99" --model=hf "${setting[@]}" --adapter=peft

exit $((failures > 0))
