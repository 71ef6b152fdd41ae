#!/bin/sh
# Checks the rules that a look at single lines can check, and prints an offence per
# line as FILE:LINE: what. Lines that start with "warning:" do not fail.
#
#   - the plan decides what is run again; no other part may know the word for it, but what draws plans
#   - features of the build are asked for only where backends and communicators are made
#   - one namespace, llmc, and inside it only cpu and cuda; in a file of kernels an inline one, of its name
#   - at most 120 columns, no tabs (but in the Makefile), no trailing blanks, no reminders
set -eu
cd "$(dirname "$0")/../.."

files=$({
    find train_gpt.cu llmc tests dev scripts data .ci -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' \
        -o -name '*.cuh' -o -name '*.sh' -o -name '*.py' -o -path .ci/run \) 2>/dev/null
    find Makefile README.md -type f 2>/dev/null
} | grep -v '^dev/lint/' | LC_ALL=C sort)

# shellcheck disable=SC2086
LC_ALL=C awk '
    function offence(text) { print FILENAME ":" FNR ": " text; bad = 1 }
    function warning(text) { print "warning: " FILENAME ":" FNR ": " text }

    FNR == 1 {
        code = FILENAME ~ /\.(h|cpp|cu|cuh)$/
        ours = FILENAME ~ /^llmc\/|^train_gpt\.cu$/
        header = FILENAME ~ /\.(h|cuh)$/
        may_say = FILENAME !~ /^llmc\// || FILENAME ~ /^llmc\/(plan\/|draw\/|train\/options)/
        may_ask = FILENAME ~ /\/(make_backend|make_comm|gemm|sentencepiece_tokenizer)[^\/]*$/
    }

    # The options carry the word to the plan: whoever hands them over is only warned.
    ours && tolower($0) ~ /recompute/ && (!may_say || FILENAME == "train_gpt.cu") {
        if (FILENAME ~ /^llmc\/train\/|^train_gpt\.cu$/) warning("the word \"recompute\" belongs to llmc/plan and the options")
        else offence("the word \"recompute\" belongs to llmc/plan and the options")
    }

    ours && !may_ask && /^[ \t]*#[ \t]*(if|ifdef|ifndef|elif).*(LLMC_WITH_|__CUDACC__|__NVCC__)/ {
        offence("a feature of the build may be asked for only in make_backend, make_comm, the gemm files and sentencepiece_tokenizer.cpp")
    }

    ours && /^[ \t]*(inline[ \t]+)?namespace([ \t{]|$)/ {
        space = $0
        sub(/^[ \t]*(inline[ \t]+)?namespace[ \t]*/, "", space)
        sub(/[ \t]*(\{.*|\/\/.*)?$/, "", space)
        kernels = FILENAME
        sub(/.*\//, "", kernels)
        if (sub(/\.cu$/, "_kernels", kernels) && /^inline/ && space == kernels) next
        if (space !~ /=/ && space !~ /^(|llmc|llmc::cpu|llmc::cuda|cpu|cuda|std|fmt)$/)
            offence("namespace " space ": one namespace llmc, inside it only cpu and cuda")
    }
    ours && /^[ \t]*using[ \t]+namespace/ && (header || /std[ \t]*;/) { offence("using namespace") }

    /(TODO|FIXME)/ { offence("a reminder: do it or leave it") }
    /[ \t]$/ { offence("trailing blanks") }
    /\t/ && FILENAME != "Makefile" { offence("a tab") }
    {
        line = $0
        gsub(/[\200-\277]/, "", line) # count characters of UTF-8, not bytes
        if (length(line) > 120 && FILENAME != "README.md") offence(length(line) " columns, 120 allowed")
    }
    FNR == 401 && code && FILENAME ~ /^(llmc|tests)\/|^train_gpt/ { warning("more than 400 lines") }

    END { exit bad }
' $files
