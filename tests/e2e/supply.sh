#!/bin/bash
# shellcheck disable=SC2317  # a function is called through check
# What make dist promises of its parts: the same content makes the same archive, whoever packs it and when; the bill of
# materials names every library with its checksum; --version says of what the program was made.
set -u
root=$PWD
. tests/e2e/lib.bash

# folder NAME: a package of some files, made in an order and with rights and times of its own.
folder() {
    mkdir -p "$1/package/lib/deep"
    local file
    for file in $2; do echo "content of $file" >"$1/package/lib/$file"; done
    ln -s a "$1/package/lib/link"
    chmod +x "$1/package/lib/b"
}
(umask 022 && folder one "a b c")
(umask 077 && folder two "c b a")
find two -exec touch -h -d 2001-01-01 {} +
for name in one two; do "$root/dev/dist/pack.sh" $name/package $name.tar.gz 1700000000; done
check "the same content, the same archive" cmp one.tar.gz two.tar.gz
"$root/dev/dist/pack.sh" one/package later.tar.gz 1700000001
check "another commit, another archive" bash -c '! cmp -s one.tar.gz later.tar.gz'
mkdir unpacked && tar -C unpacked -xzf one.tar.gz
check "what is in it comes out" bash -c "[ -x unpacked/package/lib/b ] && diff -r one unpacked"

mapfile -t libraries < <(ldd "$TRAIN_GPT" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort | head -n 4)
"$root/dev/dist/sbom.sh" v1 1700000000 "${libraries[@]}" >bill.json
"$root/dev/dist/sbom.sh" v1 1700000000 "${libraries[@]}" >again.json
check "the same libraries, the same bill" cmp bill.json again.json
listed() {
    local library
    for library in "${libraries[@]}"; do
        grep -q -F "\"$(basename "$library")\"" bill.json || { echo "$library"; return 1; }
        grep -q "$(sha256sum <"$library" | cut -d' ' -f1)" bill.json || { echo "$library"; return 1; }
    done
}
check "the bill has every library and its checksum" listed
if command -v python3 >/dev/null; then
    cat >read.py <<'END'
import json, sys
bill = json.load(open("bill.json"))
ids = [package["SPDXID"] for package in bill["packages"]]
assert bill["spdxVersion"] == "SPDX-2.3" and len(set(ids)) == len(ids) and len(ids) > int(sys.argv[1])
ends = {relation["relatedSpdxElement"] for relation in bill["relationships"]}
assert ends == set(ids)
END
    check "it is SPDX, whole" python3 read.py "${#libraries[@]}"
else
    skip "it is SPDX, whole" "there is no python3"
fi

run --version
for word in '^train_gpt ' '^commit     [0-9a-f]\{40\}\|^commit     unknown' '^compiler   .* [0-9]' \
    '^libraries  .*libsodium [0-9]' '^CUDA       '; do
    check "--version says $word" grep -q "$word" out
done

exit $((failures > 0))
