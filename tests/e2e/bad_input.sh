#!/bin/bash
# Everything a user can get wrong, and what can go wrong without him: each ends with one line of error that names the
# option or the file, exit code 2 for a wrong command line and 1 for a failed run, and nothing half-written.
set -u
. tests/e2e/lib.bash

# A valid command but for what a test adds.
good=("${tiny[@]}" "${quiet[@]}" --steps=3 --output-dir=new)
with_text=("${good[@]}" --data=text.txt)

# ---- data -------------------------------------------------------------------------------

: >empty.txt
: >empty2.txt
printf 'too short' >short.txt
head -c 4000 "$TRAIN_GPT" >binary.txt
printf '\xff\xfeh\0e\0' >utf16.txt
mkdir folder
token_file good.bin uint16 $(seq 200)
token_file vocabulary.bin uint16 $(seq 100) 60000 $(seq 100)
head -c 1300 good.bin >truncated.bin
head -c 500 good.bin >header.bin
{ cat good.bin; printf 'xx'; } >long.bin
{ bytes 20240520 4; bytes 9 4; head -c 2000 /dev/zero; } >version.bin
{ bytes 20240520 4; bytes 1 4; bytes -5 4; head -c 1012 /dev/zero; } >negative.bin

refused "missing data" 1 "--data: 'absent.txt' does not exist" "${good[@]}" --data=absent.txt
refused "empty data" 1 "--data: 'empty.txt' is empty" "${good[@]}" --data=empty.txt
refused "only empty files" 1 "--data: all 2 files that match 'empty\*' are empty" "${good[@]}" --data='empty*'
refused "a pattern without files" 1 "--data: no file matches 'zz\*'" "${good[@]}" --data='zz*'
refused "too short data" 1 "--data: 'short.txt' .* --seq-len=32" "${good[@]}" --data=short.txt
refused "binary data" 1 "--data: 'binary.txt' is a binary file" "${good[@]}" --data=binary.txt
refused "UTF-16 data" 1 "--data: 'utf16.txt' is UTF-16" "${good[@]}" --data=utf16.txt
refused "an empty folder as data" 1 "--data: 'folder' is a folder without files" "${good[@]}" --data=folder
refused "a device as data" 1 "--data: '/dev/null' is not a regular file" "${good[@]}" --data=/dev/null
mkfifo pipe # Nobody writes to it.
refused "a pipe as a tokenizer" 1 "--tokenizer: cannot read 'pipe': not a regular file" \
    "${with_text[@]}" --tokenizer=pipe
refused "a pipe as --config" 2 "--config=pipe: cannot read 'pipe': not a regular file" "${with_text[@]}" --config=pipe
mkdir piped
mkfifo piped/config.json
refused "a pipe in a model's folder" 1 "cannot read 'piped/config.json': not a regular file" \
    --data=text.txt --model=piped
mkdir brackets
{
    printf '{"model_type": "gpt2", "n_layer": 2, "n_embd": '
    head -c 300000 /dev/zero | tr '\0' '['
    head -c 300000 /dev/zero | tr '\0' ']'
    echo '}'
} >brackets/config.json
refused "nothing but brackets" 1 "'brackets/config.json' has arrays or objects within more than 200 others" \
    --data=text.txt --model=brackets
touch afile
refused "a file as the run folder" 1 "--output-dir: cannot make the folder 'afile': 'afile' is a file; choose another" \
    "${tiny[@]}" "${quiet[@]}" --data=text.txt --output-dir=afile
check "is said before anything but the device and the environment's threads" \
    test "$(grep ' I ' err | grep -vc -e ' I device ' -e ' I threads .* by OMP_NUM_THREADS')" = 0
refused "a truncated token file" 1 "--data: token file 'truncated.bin' is truncated" "${good[@]}" --data=truncated.bin
refused "a token file without its header" 1 "--data: token file 'header.bin' is truncated" "${good[@]}" \
    --data=header.bin
refused "a too long token file" 1 "--data: token file 'long.bin' is too long" "${good[@]}" --data=long.bin
refused "a token file of another version" 1 "--data: token file 'version.bin' has version 9" "${good[@]}" \
    --data=version.bin
refused "a token file with a negative count" 1 "--data: token file 'negative.bin' holds -5" "${good[@]}" \
    --data=negative.bin
refused "text and tokens mixed" 1 "--data: .* mixes kinds of data" "${good[@]}" --data='[gt]*[nt]'
refused "missing validation data" 1 "--val-data: 'absent.txt' does not exist" "${with_text[@]}" --val-data=absent.txt
refused "too short validation data" 1 "--val-data: .* too few.*--seq-len=32" "${with_text[@]}" --val-data=short.txt
refused "validation data of another kind" 1 "--val-data=good.bin" "${with_text[@]}" --val-data=good.bin
refused "the demo text not made yet" 1 "data/demo.sh" "${good[@]}"

refused "a token beyond the vocabulary" 1 "--data: token 60000 in 'vocabulary.bin' at token 100.*--vocab-size=60001" \
    "${good[@]}" --data=vocabulary.bin

# ---- options -------------------------------------------------------------------------------

refused "an unknown option" 2 "--frobnicate" --frobnicate
refused "an unknown subcommand" 2 "frobnicate" frobnicate
refused "an option of another subcommand" 2 "--steps" plan --steps=3
refused "an option before the subcommand" 2 "--layers: .*write .*train_gpt plan --layers=3$" --layers=3 plan
refused "one that the subcommand lacks" 2 "--steps: plan does not have this option, only training" --steps=3 plan
refused "an option twice" 2 "--seed" "${with_text[@]}" --seed=1 --seed=2
refused "an option without its value" 2 "--batch-size" --batch-size
refused "an unknown model" 2 "--model=gpt5: .*did you mean gpt2\?" --model=gpt5 --data=text.txt
refused "an unknown policy" 2 "--recompute=9: .*none.*sqrt" "${with_text[@]}" --recompute=9
refused "an unknown schedule" 2 "--lr-schedule: .*cosine" "${with_text[@]}" --lr-schedule=step
refused "an unknown type" 2 "--dtype: .*bf16" "${with_text[@]}" --dtype=fp8
refused "an unknown device" 2 "--device=abacus" "${with_text[@]}" --device=abacus
refused "unknown products" 2 "--cpu-products: .*fp32.*library" "${with_text[@]}" --cpu-products=mkl
refused "an unknown log level" 2 "--log-level: .*warn" "${with_text[@]}" --log-level=loud
refused "no size" 2 "--memory-budget=much: .*6GiB" "${with_text[@]}" --memory-budget=much

# Every option with a number: below and above what it takes, and not a number at all. (--dry-run in case one is taken.)
fractions="final-lr-fraction lr-decay-fraction weight-decay beta1 beta2 adam-epsilon grad-clip learning-rate rope-theta
    peak-tflops comm-timeout lora-alpha lora-dropout dropout link-gbs checkpoint-minutes"
counts="layers channels heads kv-heads head-size ffn-size vocab-size max-seq-len batch-size seq-len total-batch-size
    steps warmup max-skipped-steps logits-chunk threads seed val-every val-sequences sample-every sample-length
    checkpoint-every keep-checkpoints log-every zero lora block-tokens"
for option in $fractions $counts; do
    why=
    for value in -1 1e31 nan inf x '1 2' 0x10; do
        run --data=text.txt --output-dir=new --dry-run "--$option=$value"
        [ "$status" -eq 2 ] && [ "$(wc -l <err)" -eq 1 ] && grep -q -e " E --$option: must be .*from .* to " err &&
            continue
        why="--$option=$value: exit code $status, $(head -c 300 err | tr '\n' ' ')"
        break
    done
    if [ -z "$why" ]; then ok "--$option out of range"; else not_ok "--$option out of range" "$why"; fi
done
in_help=$("$TRAIN_GPT" --help-all | sed -n 's/.*--\([a-z0-9-]*\) N.*/\1/p' | sort)
check "no option with a number was forgotten here" test "$(printf '%s\n' $fractions $counts | sort)" = "$in_help"

# ---- what does not fit together ------------------------------------------------------------------

refused "batch not dividing the total" 2 "--total-batch-size=100: must be a multiple.*2 x 32 = 64" "${with_text[@]}" \
    --total-batch-size=100
refused "heads not dividing channels" 2 "--heads=5: does not divide the 32 channels" --layers=2 --channels=32 \
    --heads=5 --data=text.txt
refused "key/value heads not dividing heads" 2 "--kv-heads=3: must divide" --model=llama-nano --kv-heads=3 \
    --data=text.txt
refused "key/value heads of GPT-2" 2 "--kv-heads=1: GPT-2" "${with_text[@]}" --kv-heads=1
refused "an odd head size with RoPE" 2 "--head-size=15: .*even" --model=llama-nano --head-size=15 --data=text.txt
refused "RoPE in GPT-2" 2 "--rope-theta: GPT-2" "${with_text[@]}" --rope-theta=500
refused "a sequence beyond the model's" 2 "--seq-len=32: .*--max-seq-len" "${with_text[@]}" --max-seq-len=16
refused "a vocabulary smaller than the data's" 2 "--vocab-size=99: .*257" "${with_text[@]}" --vocab-size=99
refused "a warm-up longer than the run" 2 "--warmup=9: .*--steps=3" "${with_text[@]}" --warmup=9
run "${with_text[@]}" --lr-decay-fraction=0.5 --dry-run
check "an option without effect is noted" test "$status $(grep -c 'W --lr-decay-fraction: has no effect' err)" = "0 1"
run "${with_text[@]}" --cpu-products=fp32 --device=cuda --dry-run
check "one of another device, too" grep -q 'W --cpu-products: has no effect; --device=cuda' err

# ---- configuration files ---------------------------------------------------------------------------

printf 'model = "gpt2-nano"\nspeed = "high"\n' >unknown.toml
printf '# small\nbatch-size = 0\n' >range.toml
printf 'batch-size 4\n' >syntax.toml
printf 'steps = 4\nsteps = 5\n' >twice.toml
refused "a missing configuration" 2 "--config=absent.toml: cannot open" --config=absent.toml
refused "an unknown option in a configuration" 2 "--config=unknown.toml: line 2: 'speed'" --config=unknown.toml
refused "a value out of range in a configuration" 2 "--config=range.toml: line 2: --batch-size" --config=range.toml
refused "a configuration that is no TOML" 2 "--config=syntax.toml: line 1" --config=syntax.toml
refused "an option twice in a configuration" 2 "--config=twice.toml: 'steps' .* lines 1 and 2" --config=twice.toml

# ---- memory ------------------------------------------------------------------------------------------

refused "not enough memory" 1 "--memory-budget is 1.*none needs.*layer needs.*sqrt needs.*--batch-size=" \
    "${with_text[@]}" --threads=1 --memory-budget=1300KiB
refused "not enough memory for one sequence" 1 \
    "At any level parameters, gradients and optimiser alone take" "${with_text[@]}" \
    --memory-budget=1KiB
refused "a model of more bytes than there are" 1 "not enough memory.*available" --model=llama3-70b --data=text.txt \
    --vocab-size=257
refused "sizes beyond 64 bits" 1 "not enough memory" plan --channels=1000000 --heads=10000 --batch-size=1000000 \
    --seq-len=100000000 --max-seq-len=100000000

# ---- where to write --------------------------------------------------------------------------------------

refused "an output folder below a file" 1 "--output-dir: .*: 'text.txt' is a file" "${tiny[@]}" "${quiet[@]}" \
    --steps=3 --data=text.txt --output-dir=text.txt/new
refused "an output folder that is a file" 1 "--output-dir: .*: 'text.txt' is a file" "${tiny[@]}" "${quiet[@]}" \
    --steps=3 --data=text.txt --output-dir=text.txt
if [ "$(id -u)" -ne 0 ]; then
    mkdir -m 555 locked
    refused "an output folder without permission" 1 "--output-dir: .*locked" "${tiny[@]}" "${quiet[@]}" --steps=3 \
        --data=text.txt --output-dir=locked
else
    skip "an output folder without permission" "root may write everywhere"
fi

"$TRAIN_GPT" plan --model=gpt2-nano >/dev/full 2>err
check "what cannot be printed is an error" test "$? $(grep -c 'cannot write to standard output: No space' err)" = "1 1"

exit $((failures > 0))
