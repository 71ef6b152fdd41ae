#!/bin/sh
# Checks who includes whom, and prints an offence per line as FILE:LINE: what.
#
#   - the table of folders below
#   - own header, project, third party, standard, in this order
#   - project headers by their path from the top, and existing
#   - device, MPI and BLAS headers only where the backends and communicators are
#   - a header has #pragma once
set -eu
cd "$(dirname "$0")/../.."

files=$(find train_gpt.cu llmc tests -type f \
    \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null | LC_ALL=C sort)
[ -n "$files" ] || exit 0

# shellcheck disable=SC2086
LC_ALL=C awk '
    # ---- the table: which of our headers the files of a folder may include. The
    # longest matching prefix of the file rules; a header matches by prefix, too.
    # Own folder is always allowed.
    BEGIN {
        allow["llmc/base/"] = ""
        allow["llmc/model/"] = "llmc/base/"
        allow["llmc/plan/"] = "llmc/base/ llmc/model/"
        allow["llmc/backend/"] = "llmc/base/"
        allow["llmc/backend/make_backend"] = "llmc/base/ llmc/backend/"
        allow["llmc/backend/cpu/"] = "llmc/base/ llmc/backend/backend.h"
        allow["llmc/backend/cuda/"] = "llmc/base/ llmc/backend/backend.h"
        allow["llmc/comm/"] = "llmc/base/ llmc/backend/backend.h"
        allow["llmc/run/"] = "llmc/base/ llmc/model/ llmc/plan/ llmc/backend/backend.h llmc/comm/comm.h"
        allow["llmc/io/"] = "llmc/base/ llmc/model/"
        allow["llmc/io/pipeline/"] = "llmc/base/ llmc/io/"
        allow["llmc/io/gguf/"] = "llmc/base/ llmc/model/ llmc/io/"
        allow["llmc/io/jinja/"] = "llmc/base/ llmc/io/"
        allow["llmc/io/chat/"] = "llmc/base/ llmc/io/"
        allow["llmc/io/peft/"] = "llmc/base/ llmc/model/ llmc/io/"
        allow["llmc/draw/"] = "llmc/base/ llmc/model/ llmc/plan/"
        above = "llmc/base/ llmc/model/ llmc/plan/ llmc/backend/ llmc/comm/ llmc/run/ llmc/io/ llmc/draw/"
        allow["llmc/train/"] = above
        allow["train_gpt.cu"] = above " llmc/train/"
        allow["llmc/backend/cuda/device.cuh"] = "llmc/base/ dev/cuda_on_cpu/language.h"
        allow["llmc/backend/cuda/hopper.cuh"] = "llmc/base/ llmc/backend/cuda/ dev/cuda_on_cpu/language_hopper.h"
        allow["tests/"] = "llmc/ tests/"
        allow["tests/cuda/"] = allow["tests/cuda_on_cpu/"] = "llmc/ tests/ dev/cuda_on_cpu/"

        # Within an allowed folder, still not these.
        except["llmc/backend/"] = "llmc/backend/cpu/ llmc/backend/cuda/"
        except["llmc/train/"] = except["train_gpt.cu"] = except["llmc/backend/"]

        # Headers of others, and the only files that may include them.
        third["cuda"] = "^<(cu[a-z_A-Z0-9]*|nv[a-z_A-Z0-9]*|device_launch_parameters|driver_types)\\.h>|^<(cub|mma|thrust|cuda)[/.>]"
        where["cuda"] = "^llmc/(backend/cuda/|comm/nccl)|^tests/cuda"
        third["NCCL"] = "^<nccl\\.h>"
        where["NCCL"] = "^llmc/comm/nccl|^tests/cuda_on_cpu/"
        third["MPI"] = "^<mpi\\.h>"
        where["MPI"] = "^llmc/comm/(mpi|nccl)"
        third["BLAS"] = "^<(oneapi/|dnnl|cblas|openblas)"
        where["BLAS"] = "^llmc/backend/cpu/"

        # As in .clang-format; every other <header> counts as standard.
        others = "^<(CLI|fmt|gmock|gtest|nlohmann|oneapi|spdlog|unicode)/|^<(cblas|mpi|nccl|pcre2|sentencepiece_[a-z]*|sodium|xxhash|zlib|zstd|cu[a-zA-Z_0-9]*|nv[a-z_]*)\\.h>"
        split("own header,project,third party,standard", group, ",")
    }

    function offence(text) { print FILENAME ":" FNR ": " text; bad = 1 }
    function has_prefix(text, prefix) { return substr(text, 1, length(prefix)) == prefix }
    function listed(name, list,    n, i, items) {
        n = split(list, items, " ")
        for (i = 1; i <= n; i++) if (has_prefix(name, items[i])) return 1
        return 0
    }
    function exists(name,    line, found) {
        if (!(name in known)) { known[name] = ((getline line < name) >= 0); close(name) }
        return known[name]
    }
    function finish() { if (last_file ~ /\.(h|cuh)$/ && !once) { print last_file ":1: no #pragma once"; bad = 1 } }

    FNR == 1 {
        if (last_file != "") finish()
        last_file = FILENAME; once = 0; rank = 0; rule = ""
        for (prefix in allow) if (has_prefix(FILENAME, prefix) && length(prefix) > length(rule)) rule = prefix
        if (rule == "") offence("not in a folder of the table in dev/lint/check_includes.sh")
        folder = stem = FILENAME
        sub(/[^\/]*$/, "", folder)
        sub(/\.[a-z]*$/, "", stem)
    }
    /^#pragma once/ { once = 1 }
    /^[ \t]*#[ \t]*(if|el|endif)/ { rank = 0 } # what a condition includes has an order of its own

    /^[ \t]*#[ \t]*include/ {
        name = $0
        sub(/^[ \t]*#[ \t]*include[ \t]*/, "", name)
        sub(/[ \t]*\/\/.*/, "", name)

        if (name ~ /^"/) {
            path = name
            gsub(/"/, "", path)
            if (!exists(path)) offence("include \"" path "\" by its path from the top of the tree")
            else if (rule != "" && (listed(path, except[rule]) ||
                                    !((folder != "" && has_prefix(path, folder)) || listed(path, allow[rule]))))
                offence(rule " may not include " path)
            this = (path == stem ".h" || path == stem ".cuh") ? 1 : 2
        } else {
            for (kind in third)
                if (name ~ third[kind] && FILENAME !~ where[kind]) offence(name ": no " kind " headers here")
            if (rule == "llmc/base/" && name ~ others && name !~ /^<((spdlog|fmt)\/|xxhash)/)
                offence("llmc/base/ may include only the standard library, spdlog and xxhash, not " name)
            this = (name ~ others) ? 3 : 4
        }
        if (this < rank) offence("include order: " name " (" group[this] ") after " group[rank])
        if (this > rank) rank = this
    }

    END { if (last_file != "") finish(); exit bad }
' $files
