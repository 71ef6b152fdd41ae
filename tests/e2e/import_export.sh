#!/bin/bash
# Models in and out: Hugging Face folders and llm.c files become runs and come back, runs go on from them, and what is
# damaged, unknown or in the way is refused. The golden folders are from dev/oracle/make_hf_models.py.
set -u
golden=$PWD/tests/golden/hf
. tests/e2e/lib.bash

# tokens FILE COUNT SEED: a token file with ids below 53, which every golden model knows.
tokens() {
    # shellcheck disable=SC2046
    token_file "$1" uint16 $(awk -v n="$2" -v s="$3" 'BEGIN {
        for (i = 0; i < n; i++) { s = (s * 16807) % 2147483647; print int(s / 2147483647 * 53) } }')
}
tokens train.bin 700 3
tokens val.bin 200 5
data=(--data=train.bin --val-data=val.bin --batch-size=2 --seq-len=8 --sample-length=0 --warmup=0)

# ---- Hugging Face folders ----------------------------------------------------------

for model in gpt2 gpt2_fp16 llama llama_tied_bf16; do
    must "import $model" import --from="$golden/$model" --out="imported/$model"
    must "export $model" export --run="imported/$model" --out="exported/$model"
    must "import it again" import --from="exported/$model/" --out="again/$model"
    must "export it again" export --run="again/$model" --format=hf --out="exported2/$model"
    check "$model: import and export come to rest" diff -r "exported/$model" "exported2/$model"
done
check "an imported run has config.toml and a checkpoint at step 0" \
    test "$(ls imported/llama | tr '\n' ' ')$(cat imported/llama/checkpoints/latest)" \
    = "checkpoints config.toml tokenizer step-00000000"
check "ids of special tokens survive" \
    test "$(cat exported/llama/config.json exported/llama/generation_config.json | grep -c '"eos_token_id": 2')" = 2
must "export as bf16" export --run=imported/llama_tied_bf16 --dtype=bf16 --out=bf16
check "bf16 takes half the space" test "$(($(stat -c %s exported/llama_tied_bf16/model.safetensors) / \
    $(stat -c %s bf16/model.safetensors)))" = 1
check "bf16 is said in config.json" grep -q '"torch_dtype": "bfloat16"' bf16/config.json

# ---- llm.c files -------------------------------------------------------------------------

field() { od -A n -t d4 -j $(($2 * 4)) -N 4 "$1" | tr -d ' '; }
for dtype in fp32 bf16; do
    must "export to llm.c" export --run=imported/gpt2 --format=llmc --dtype=$dtype --out=$dtype.bin
    must "import from llm.c" import --from=$dtype.bin --out=llmc-$dtype
    must "export to llm.c again" export --run=llmc-$dtype --format=llmc --dtype=$dtype --out=$dtype-again.bin
    check "llm.c, $dtype: file, import, export is byte for byte" cmp $dtype.bin $dtype-again.bin
done
header() { for i in 0 1 2 3 4 5 6 7; do field "$1" $i; done | tr '\n' ' '; }
check "llm.c: magic, version, maxT, V, L, NH, C, Vp" test "$(header fp32.bin)" = "20240326 3 20 61 2 3 24 128 "
check "llm.c: version 5 is bf16" test "$(field bf16.bin 1)" = 5

# ---- going on from there -----------------------------------------------------------------

must "fine-tune a folder" --model="$golden/gpt2" "${data[@]}" --steps=4 --val-every=2 --output-dir=from-folder
check "the banner says where the weights come from" grep -q "weights of the Hugging Face folder '.*/hf/gpt2'" err
must "fine-tune a run" --model=imported/gpt2 "${data[@]}" --steps=4 --val-every=2 --output-dir=from-run
must "fine-tune a checkpoint" --model=imported/gpt2/checkpoints/step-00000000 "${data[@]}" --steps=4 --val-every=2 \
    --output-dir=from-checkpoint
must "fine-tune an llm.c file" -e fp32.bin "${data[@]}" --steps=4 --val-every=2 --output-dir=from-llmc
must "resume an import" --resume=llmc-fp32 "${data[@]}" --steps=4 --val-every=2 --output-dir=resumed
for run in from-run from-checkpoint from-llmc resumed; do
    curve from-folder >a.curve
    curve "$run" >b.curve
    check "the same weights give the same steps: $run" cmp a.curve b.curve
done
steady=("${data[@]}" --lr-schedule=constant --val-every=0)
must "stop half way" --model="$golden/gpt2" "${steady[@]}" --steps=2 --output-dir=half
must "go on" --resume=half --steps=4
must "in one go" --model="$golden/gpt2" "${steady[@]}" --steps=4 --output-dir=whole
curve half >a.curve
curve whole >b.curve
check "a fine-tuning run resumes bit for bit" cmp a.curve b.curve
must "export what was trained" export --run=half --out=trained
cmp -s trained/model.safetensors exported/gpt2/model.safetensors
check "training has changed the weights" test $? = 1

must "an llm.c command line" -e fp32.bin -i train.bin -j val.bin -o llmc-run -b 2 -t 8 -d 32 -x 3 -k linear -l 1e-3 \
    -u 1 -q 0.1 -c 0.1 -v 2 -s 1000 -g 4 -n 2 -nk 1 -y 0 -r 1
check "an llm.c command line does what it says" \
    test "$(ls llmc-run/checkpoints | tr '\n' ' ')" = "latest step-00000003 "
must "-y 1 goes on" -e fp32.bin -i train.bin -j val.bin -o llmc-run -b 2 -t 8 -d 32 -x 5 -y 1
check "-y 1 goes on with the run in -o" test "$(cat llmc-run/checkpoints/latest)" = step-00000005

must "generate from a folder" generate --model="$golden/llama" --length=12
check "generate --model=FOLDER prints tokens" grep -q -E '^(<[0-9]+>){12}$' out
cp out folder.out
must "generate from its import" generate --run=imported/llama --length=12
check "the import generates the same" cmp out folder.out
must "plan for a folder" plan --model="$golden/llama" --seq-len=64 --json
check "plan --model=FOLDER plans that model" grep -q '"parameters": 33840' out

# ---- tokenizers travel along -----------------------------------------------------------------

loss() { sed -n 's/^loss  *\([0-9.]*\).*/\1/p' out; }
must "learn a vocabulary" tokenize --train-bpe --vocab-size=290 --out=tok text.txt
train bpe --tokenizer=tok --steps=20
check "a run keeps its tokenizer" cmp tok/tokenizer.json bpe/tokenizer/tokenizer.json
must "export with a tokenizer" export --run=bpe --out=bpe-hf
check "an export has its run's tokenizer" cmp tok/tokenizer.json bpe-hf/tokenizer.json
mv tok tok-away
must "evaluate the run" evaluate --run=bpe --data=text.txt --seq-len=32
run_loss=$(loss)
must "evaluate the export" evaluate --model=bpe-hf --data=text.txt --seq-len=32
check "text is read with the export's tokenizer" test "$(loss)" = "$run_loss"
must "fine-tune on text" --model=bpe-hf --data=text.txt --steps=2 --batch-size=2 --seq-len=32 --sample-length=0 \
    --output-dir=bpe-tuned
check "fine-tuning carries the tokenizer on" cmp tok-away/tokenizer.json bpe-tuned/tokenizer/tokenizer.json
must "generate from the export" generate --model=bpe-hf --prompt=the --length=5
check "a prompt is encoded and the text decoded" grep -q '^the[^<]*$' out
must "import with another place's tokenizer" import --from=bpe-hf --tokenizer=tok-away --out=bpe-import
check "import --tokenizer takes that one" cmp tok-away/vocab.json bpe-import/tokenizer/vocab.json

train bytes --steps=20
must "export a byte model" export --run=bytes --out=bytes-hf
must "evaluate the byte run" evaluate --run=bytes --data=text.txt --seq-len=32
run_loss=$(loss)
must "evaluate its export" evaluate --model=bytes-hf --data=text.txt --seq-len=32
check "a byte model is exported with its bytes as a tokenizer" test "$(loss)" = "$run_loss"

cp -r "$golden/gpt2" small-vocabulary
cp tok-away/tokenizer.json small-vocabulary
refused "a tokenizer larger than the model's vocabulary" 1 "has 290 tokens.*vocabulary is 61" \
    --model=small-vocabulary --data=text.txt --seq-len=8 --output-dir=new

# ---- what the banner says of a name --------------------------------------------------------

must "a name" --model=gpt2 --data=text.txt --dry-run
check "a published architecture by name: random weights, and where the real ones are" \
    grep -q 'random initial weights.*huggingface.co/openai-community/gpt2 .*--model=FOLDER' err
must "a name of ours" --model=gpt2-nano --data=text.txt --dry-run
check "an architecture of ours: random weights" grep -q 'parameters, random initial weights$' err

# ---- refusals ------------------------------------------------------------------------------

# folder NAME SED: a copy of a golden folder with its config.json changed.
folder() {
    rm -rf changed
    cp -r "$golden/$1" changed
    sed -i "$2" changed/config.json
}
refused "a path that is nothing" 2 "--model=nothing: neither a preset nor a file or folder" \
    --model=nothing --data=train.bin --output-dir=new
mkdir empty
refused "a folder of no kind" 2 "--from=empty: of no known kind" import --from=empty --out=new
refused "a file of no kind" 2 "--run=text.txt: of no known kind" generate --run=text.txt
refused "a name has no weights to generate with" 2 "--model=gpt2: .*architecture without weights" generate --model=gpt2
refused "a name has no weights to import" 2 "--from=gpt2: .*architecture without weights" import --from=gpt2 --out=new
folder gpt2 's/"gpt2"/"gpt_neox"/'
refused "an architecture we do not have" 1 "config.json': model_type is .*gpt_neox" import --from=changed --out=new
folder gpt2 's/gelu_new/relu/'
refused "an activation we do not have" 1 "activation_function is .*relu" --model=changed "${data[@]}" --output-dir=new
folder llama 's/"llama3"/"mrope"/'
refused "a RoPE type we do not have" 1 "rope_type is .*mrope" generate --model=changed
folder llama 's/"attention_bias": false/"attention_bias": true/'
refused "biases that are not in the file" 1 "lacks model.layers.0.self_attn.q_proj.bias" \
    evaluate --model=changed --data=val.bin
folder gpt2 's/"n_layer": 2/"n_layer": 3/'
refused "tensors that are missing" 1 "lacks transformer.h.2" import --from=changed --out=new
folder gpt2 's/"n_layer": 2/"n_layer": 1/'
refused "tensors that nothing uses" 1 "nothing uses .*h.1." import --from=changed --out=new
folder gpt2 's/"n_positions": 20/"n_positions": 30/'
refused "a tensor of another shape" 1 "wpe.weight.*\(20, 24\).*\(30, 24\)" import --from=changed --out=new
folder llama ''
sed -i 's#model-00001-of-00003#../llama/model-00001-of-00003#' changed/model.safetensors.index.json
refused "a shard outside the folder" 1 "not a file of this folder; refused" import --from=changed --out=new
folder gpt2 ''
bytes 200000000 8 | dd of=changed/model.safetensors conv=notrunc status=none
refused "a header that is too long" 1 "model.safetensors' is not a safetensors file: a header of 200000000 bytes" \
    import --from=changed --out=new
folder gpt2 ''
truncate -s -1 changed/model.safetensors
refused "a range outside the file" 1 "model.safetensors': tensor .* ends at byte" import --from=changed --out=new
folder gpt2 ''
sed -i 's/"dtype":"F32","shape":\[61,24\]/"dtype":"F33","shape":[61,24]/' changed/model.safetensors
refused "an unknown element type" 1 "wte.weight' has the unknown element type \"F33\"" import --from=changed --out=new
folder gpt2 ''
sed -i 's/"shape":\[61,24\]/"shape":[61,23]/' changed/model.safetensors
refused "a size that is wrong" 1 "wte.weight' has 5856 bytes" import --from=changed --out=new
rm -r changed

bytes 20240327 4 | dd of=bf16.bin conv=notrunc status=none
refused "an llm.c file of another kind" 1 "bf16.bin' is not an llm.c model file" import --from=bf16.bin --out=new
bytes 20240326 4 | dd of=bf16.bin conv=notrunc status=none
bytes 4 4 | dd of=bf16.bin bs=1 seek=4 conv=notrunc status=none
refused "an llm.c file of another version" 1 "bf16.bin' has version 4" import --from=bf16.bin --out=new
truncate -s -2 fp32.bin
refused "an llm.c file that is cut" 1 "fp32.bin' is truncated" --model=fp32.bin "${data[@]}" --output-dir=new
refused "LLaMA has no llm.c file" 2 "--format=llmc: .*LLaMA" export --run=imported/llama --format=llmc --out=new

refused "an export never writes over something" 2 "--out=trained: is there already" export --run=half --out=trained
refused "an import neither" 2 "--out=half: is there already" import --from="$golden/gpt2" --out=half
refused "import needs --from" 2 "import needs --from" import --out=new
refused "export needs --out" 2 "export needs --out" export --run=half
refused "the dimensions of a folder stand" 2 "--layers: .*comes with its weights" --model="$golden/gpt2" --layers=3 \
    "${data[@]}" --output-dir=new
refused "a sequence longer than the model takes" 2 "--seq-len=21: .*at most 20" --model="$golden/gpt2" \
    --data=train.bin --seq-len=21 --output-dir=new
refused "text for a model whose tokenizer is not known" 1 \
    "text.txt' is text, and without a tokenizer .*a model whose own is not known" \
    --model="$golden/gpt2" --data=text.txt --seq-len=8 --output-dir=new
refused "--model with --resume" 2 "--model=.*no effect with --resume" --model="$golden/gpt2" --resume=half --steps=9
bytes 53 2 | dd of=train.bin bs=1 seek=1034 conv=notrunc status=none
refused "a token outside the vocabulary" 1 "token 53 .*'train.bin' at token 5" \
    evaluate --model="$golden/llama_tied_bf16" --data=train.bin

# ---- a disk that fails -------------------------------------------------------------------

# each_fails KIND ERRNO ARGUMENTS...: the command, as often as it has such calls, each time with another one that fails.
# What has the name that was asked for is whole, nothing else is left, and a failure has its exit code and a line.
each_fails() {
    local fault=$1 reason=$2 nth calls
    shift 2
    CHAOS_COUNT=$PWD/calls CHAOS_FAULT=$fault:0 LD_PRELOAD=$faults "$TRAIN_GPT" "$@" --out=unharmed >out 2>err ||
        { echo "does not run"; return; }
    calls=$(cat calls)
    [ "$calls" -gt 1 ] || echo "only $calls calls"
    for ((nth = 1; nth <= calls; nth++)); do
        CHAOS_FAULT=$fault:$nth:$reason LD_PRELOAD=$faults "$TRAIN_GPT" "$@" --out=harmed >out 2>err
        status=$?
        case $status in
            0) [ -e harmed ] || echo "$nth of $calls: nothing was written" ;;
            1) [ "$(grep -c '^[0-9:]* E ' err)" -eq 1 ] || echo "$nth of $calls: $(head -c 300 err)" ;;
            *) echo "$nth of $calls: exit code $status" ;;
        esac
        [ ! -e harmed ] || diff -r unharmed harmed || echo "$nth of $calls: exit code $status, and it is not whole"
        leftovers
        rm -rf harmed
    done
    rm -rf unharmed
}
faults=$BUILD_DIR/faults.so
if [ -e "$faults" ] && ! is_sanitized; then
    for format in hf llmc; do
        for fault in "sync 5" "write 28"; do
            # shellcheck disable=SC2086  # two words
            why=$(each_fails $fault export --run=imported/gpt2 --format=$format 2>&1)
            if [ -z "$why" ]; then ok "export, $format: each $fault"; else not_ok "export, $format: $fault" "$why"; fi
        done
    done
else
    skip "a disk that fails" "there is no library that makes it fail"
fi

exit $((failures > 0))
