#!/bin/bash
# Checks the order of operands in the inline PTX of language.cuh, which no host compiler reads: compiles asm_check.cu
# to PTX and traces every operand back to the element of the array it was loaded from, or on to where it is stored.
# Prints "ok NAME" or "not ok NAME: why" per instruction; needs nvcc, but no GPU.
set -u
cd "$(dirname "$0")/../.." || exit 2

nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null)
if [ -z "$nvcc" ]; then
    echo "skip asm_check: there is no nvcc"
    exit 0
fi
work=${WORK_DIR:-$(mktemp -d)}
if ! "$nvcc" -std=c++20 -arch=sm_80 -ptx -I. -o "$work/asm_check.ptx" dev/cuda_on_cpu/asm_check.cu; then
    echo "not ok asm_check: asm_check.cu does not compile"
    exit 1
fi

awk '
    # "[%rd8+12]" -> base "%rd8", element 3
    function split_address(text,    parts) {
        gsub(/[][;]/, "", text)
        element = split(text, parts, "+") > 1 ? parts[2] / 4 : 0
        base = parts[1]
    }
    function finish(    instruction) {
        instruction = kernel
        if (kernel == "") return
        if (!seen) why = "no instruction found"
        if (stored != outputs) why = "only " stored " of " outputs " results are stored in order"
        print (why == "" ? "ok " : "not ok ") "asm " instruction (why == "" ? "" : ": " why)
        bad = bad || why != ""
    }

    /\.entry/ {
        finish()
        kernel = $3
        sub(/\(.*/, "", kernel)
        seen = stored = outputs = 0
        why = ""
        split("", parameter); split("", origin); split("", result)
    }
    /ld\.param/ { text = $3; gsub(/.*_param_|\];/, "", text); name = $2; sub(/,/, "", name); parameter[name] = text }
    /cvta\.to\.global/ { to = $2; from = $3; sub(/,/, "", to); sub(/;/, "", from); parameter[to] = parameter[from] }
    /ld\.global/ { split_address($3); to = $2; sub(/,/, "", to); origin[to] = parameter[base] "." element }

    /^[ \t]*(mma|ldmatrix)\./ {
        seen = 1
        wanted = kernel
        sub(/^check_/, "", wanted)
        if (wanted ~ /^ldmatrix/) {
            if ($1 !~ /\.x4/) why = "wrong count in " $1
            if ((wanted ~ /trans/) != ($1 ~ /\.trans/)) why = "transposed or not: " $1
        } else if ($1 !~ /m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32$/) why = "wrong shape or types: " $1
        text = $0
        groups = 0
        while (match(text, /\{[^}]*\}/)) { # {d}, {a}, {b}, {c}: parameters 0 to 3
            count = split(substr(text, RSTART + 1, RLENGTH - 2), registers, /, */)
            for (i = 1; i <= count; ++i) {
                if (groups == 0) { result[registers[i]] = i - 1; outputs = count }
                else if (origin[registers[i]] != groups "." (i - 1))
                    why = "operand " groups ", register " (i - 1) " comes from " origin[registers[i]]
            }
            ++groups
            text = substr(text, RSTART + RLENGTH)
        }
    }
    /st\.global/ { split_address($2); sub(/,$/, "", base); sub(/;/, "", $3)
        if ($3 in result && result[$3] == element + 0) ++stored }
    END { finish(); exit bad }
' "$work/asm_check.ptx"
status=$?
[ -n "${WORK_DIR:-}" ] || rm -rf "$work"
exit $status
