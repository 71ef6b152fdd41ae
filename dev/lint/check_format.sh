#!/bin/sh
# Checks that clang-format would change nothing (make lint), listing the places
# where it would; with --fix it makes the changes (make format).
set -eu
cd "$(dirname "$0")/../.."

clang_format=${CLANG_FORMAT:-$(command -v clang-format-14 || command -v clang-format || true)}
if [ -z "$clang_format" ]; then
    echo "check_format: no clang-format: run scripts/install_deps.sh" >&2
    exit 1
fi
version=$("$clang_format" --version | sed 's/.*version \([0-9]*\).*/\1/')
[ "$version" = 14 ] || echo "check_format: the tree is laid out by clang-format 14, this is $version" >&2

# shellcheck disable=SC2046  # the tree has no blanks in its names
set -- "${1-}" $(find train_gpt.cu llmc tests dev -type f \
    \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null | LC_ALL=C sort)
mode=$1
shift
[ $# -gt 0 ] || exit 0

case $mode in
    --fix) exec "$clang_format" -i "$@" ;;
    "") ;;
    *) echo "usage: dev/lint/check_format.sh [--fix]" >&2; exit 2 ;;
esac

if offences=$("$clang_format" --dry-run -Werror "$@" 2>&1); then
    exit 0
fi
# Of each report only its first line, as FILE:LINE; the lines of one file on one line.
printf '%s\n' "$offences" | awk -F: '
    / error: code should be clang-formatted/ {
        if (!($1 in lines)) { order[++files] = $1 }
        if (!(($1, $2) in seen)) { lines[$1] = lines[$1] " " $2; seen[$1, $2] = 1 }
        next
    }
    / error: / { print }
    END { for (i = 1; i <= files; i++) print order[i] ": not formatted (make format), lines" lines[order[i]] }'
exit 1
