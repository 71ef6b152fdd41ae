#!/bin/bash
# Makes an archive of a folder that depends on names and bytes in it alone: the same content, the same archive, whoever
# makes it, when and where. (Order of names, times, owners, rights and gzip's own time stamp are fixed.)
#
#   dev/dist/pack.sh FOLDER ARCHIVE.tar.gz EPOCH_SECONDS
set -euo pipefail
[ $# -eq 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
LC_ALL=C tar -C "$(dirname "$1")" --sort=name --mtime="@$3" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX --format=gnu -cf - "$(basename "$1")" | gzip -9n >"$2.tmp"
mv "$2.tmp" "$2"
