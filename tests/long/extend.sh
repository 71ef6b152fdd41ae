#!/bin/bash
# The five diffs of dev/notes/extend.md: each is applied to a copy of the tree, built (without nvcc) into one build
# folder, tested by the tests it adds and those of its neighbourhood, used by a command, and taken back. Where CUDA's
# headers are, the tests of kernels run on the executor. The copy has no other tests. Three of the diffs change headers
# that most files include, so that most of the tree is built anew for each.
#
# EXTEND_TOGETHER=1 applies all five at once and builds once.
set -u
root=$PWD base=$TRAIN_GPT
. tests/e2e/lib.bash

export GIT_CEILING_DIRECTORIES=$WORK_DIR # or git would look for a repository around the copy
copy=$WORK_DIR/copy tests=$WORK_DIR/copy/build/extend/tests
mkdir copy
(cd "$root" && { git ls-files -z 2>/dev/null | grep -z . || find . -path ./build -prune -o -type f -print0; } |
    tar --null --ignore-failed-read -T - -cf - 2>/dev/null) | tar -xf - -C copy
[ ! -d /usr/lib/ccache ] || PATH=/usr/lib/ccache:$PATH

# Tests that stay: what a diff touches, and what covers it without knowing it.
kept='/model/test_|/plan/test_(policy|verify|layout|simulate|decisions|frontier|communicate|places|update)[.]'
kept+='|/run/test_(gradients|executor_null|fusion)|/backend/test_(activation|optimizer|lion)|/train/test_model_kinds'
kept+='|/io/test_hf_config|/io/pipeline/test_(pre_tokenizers|pipeline_tokenizer)|/cuda/test_(activation|optimizer|lion)'
find copy/tests -name 'test_*.c*' | grep -vE "$kept" | xargs rm -f

# The executor's tests need CUDA's headers: nvcc's, or those that the Makefile finds in their usual place.
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
with_executor=
for headers in "$(dirname "$(dirname "$nvcc")")/include" /usr/local/cuda/include /usr/include; do
    [ ! -f "$headers/cuda_runtime.h" ] || with_executor=yes
done

# build WHAT...: in the copy.
build() { make -C "$copy" CUDA=0 MPI=0 BUILD=build/extend "${@/#/build/extend/}" >build.log 2>&1; }

# passes NAME PROGRAM FILTER: its tests run, at least one, and none fails.
passes() {
    local count
    (cd "$copy" && TEST_TMPDIR=$WORK_DIR OMP_WAIT_POLICY=passive "$2" --gtest_brief=1 "--gtest_filter=$3") \
        >tests.log 2>&1
    status=$?
    count=$(sed -n 's/^\[  PASSED  \] \([1-9][0-9]*\) tests*\.$/\1/p' tests.log)
    check "$1: ${count:-no} tests of $3" test "$status" -eq 0 -a -n "$count"
    grep -E 'FAILED|Failure' tests.log | head -n 5
}

# change NAME [-R]: applies a diff, or takes it back.
change() { git -C copy apply --whitespace=nowarn ${2:+"$2"} "$root/dev/notes/extend/$1.patch" >change.log 2>&1; }

# applied NAME UNIT_TESTS [EXECUTOR_TESTS]: applies a diff, builds, tests; true if it can be used.
applied() {
    echo "-- $1"
    if [ -z "${EXTEND_TOGETHER-}" ] && ! change "$1"; then
        not_ok "$1 applies" "$(head -n 3 change.log | tr '\n' ' ')"
        return 1
    fi
    if ! build train_gpt tests ${3:+${with_executor:+cuda_tests}}; then
        not_ok "$1 builds" "$(grep -E 'error|Error' build.log | head -n 3 | tr '\n' ' ')"
        return 1
    fi
    ok "$1 builds"
    passes "$1" "$tests" "$2"
    if [ -n "${3-}" ] && [ -n "$with_executor" ]; then
        passes "$1 on the executor" "$copy/build/extend/cuda_tests" "$3"
    elif [ -n "${3-}" ]; then
        skip "$1 on the executor" "no CUDA headers"
    fi
    TRAIN_GPT=$copy/build/extend/train_gpt
}
taken_back() {
    TRAIN_GPT=$base
    [ -n "${EXTEND_TOGETHER-}" ] || change "$1" -R || exit 1
}

for patch in ${EXTEND_TOGETHER:+policy model optimizer kernel tokenizer}; do
    change "$patch" || not_ok "$patch applies to the others" "$(head -n 3 change.log | tr '\n' ' ')"
done

refused "policy: not there before" 2 '--recompute=alternate: no such policy' "${tiny[@]}" --data=text.txt \
    --recompute=alternate
bits_and_bytes='Policies.*:ExecutorCalls.*:PlannedBytes.*:*Verify*:*Layout*:*Simulate*:*Gradients*'
if applied policy "$bits_and_bytes:LayerDecisions.*:*Frontier*"; then
    train every --recompute=none --steps=4
    train second --recompute=alternate --steps=4
    check "policy: the same curve" cmp <(curve every) <(curve second)
    must "policy: plan" plan "${tiny[@]}" --json --recompute=0,alternate,1
    check "policy: memory between the levels" test "$(sed -n 's/^ *"total_bytes": \([0-9]*\).*/\1/p' out |
        sort -rn -c 2>&1 && echo descending)" = descending
    taken_back policy
fi

if applied model 'HfConfig.*:ParameterCount.*:ParameterTable.*:ModelKind*'; then
    small=(--layers=2 --channels=64 --heads=2 --ffn-size=96 --vocab-size=257 --max-seq-len=64)
    for level in 0 2; do
        must "model: level $level" --model=stablelm-2-1.6b "${small[@]}" "${quiet[@]}" --tokenizer=bytes \
            --data=text.txt --batch-size=2 --seq-len=32 --steps=4 --recompute=$level --output-dir=stable-$level
    done
    check "model: the same curve at level 2" cmp <(curve stable-0) <(curve stable-2)
    must "model: export" export --run=stable-0 --format=hf --out=folder
    check "model: transformers' name" grep -q '"model_type": "stablelm"' folder/config.json
    for source in --run=stable-0 --model=folder; do
        must "model: evaluate $source" evaluate $source --data=text.txt --tokenizer=bytes --seq-len=32
        grep -oE '^loss +[0-9.]+' out >>losses
    done
    check "model: the export has the same loss" test "$(wc -l <losses) $(sort -u losses | wc -l)" = "2 1"
    taken_back model
fi

if applied optimizer 'Sgd.*:Lion.*:*Optimizer*:*Update*:*Places*' 'CudaOptimizer*:CudaLion.*'; then
    mkdir steps
    (cd "$copy" && WORK_DIR=$WORK_DIR/steps tests/e2e/optimizers.sh) >steps.log 2>&1
    status=$?
    check "optimizer: its end-to-end script" test $status -eq 0 -a "$(grep -c '^ok sgd' steps.log)" -ge 5
    taken_back optimizer
fi

if applied kernel 'Activation*:OpFacts.*:*Fusion*:HfConfig.*:*Communicat*' 'CudaActivation*'; then
    cp -r "$root/tests/golden/kinds/gpt2_exact_gelu" squared
    sed -i 's/"activation_function": "gelu"/"activation_function": "relu2"/' squared/config.json
    # shellcheck disable=SC2046
    token_file ids.bin uint16 $(seq 400 | awk '{ print $1 * 7 % 29 }')
    for level in 0 1 act auto; do
        must "kernel: level $level" --model=squared --data=ids.bin --tokenizer=none --seq-len=16 --batch-size=2 \
            --steps=4 "${quiet[@]}" --recompute=$level --output-dir="relu-$level"
        curve "relu-$level" >>curves
    done
    check "kernel: the same curve at every level" test "$(wc -l <curves) $(sort -u curves | wc -l)" = "16 4"
    taken_back kernel
fi

must "tokenizer: learn one" tokenize --train-bpe --vocab-size=300 --out=words text.txt
both='{"type":"Sequence","pretokenizers":[{"type":"BertPreTokenizer"},\1]}'
sed -i 's/"pre_tokenizer":\({[^}]*}\)/"pre_tokenizer":'"$both/" words/tokenizer.json
rm words/vocab.json words/merges.txt
refused "tokenizer: refused before" 1 'the pre-tokeniser BertPreTokenizer' tokenize --tokenizer=words --out=new text.txt
if applied tokenizer 'BertPreTokenizer.*:Split.*:Classes.*:Tokenizer*:JsonFields.*'; then
    printf 't he king.' >one.txt
    printf ' t\t he  king .\n' >same.txt
    printf 'the king.' >other.txt # whose first word is one token
    for text in one same other; do
        must "tokenizer: $text" tokenize --tokenizer=words --val-fraction=0 --out=$text $text.txt
    done
    check "tokenizer: white space only separates" cmp one_train_000000.bin same_train_000000.bin
    check "tokenizer: but it does" test "$(cmp one_train_000000.bin other_train_000000.bin >/dev/null; echo $?)" = 1
    taken_back tokenizer
fi
exit $((failures > 0))
