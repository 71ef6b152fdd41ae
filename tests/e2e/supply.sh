#!/bin/bash
# shellcheck disable=SC2317  # a function is called through check
# What make dist promises of its parts: the same content makes the same archive, whoever packs it and when; no library
# is missing; the bill of materials names every library with its checksum; the version is that of the commit, in every
# clone, and of nothing else; --version says of what the program was made.
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

mapfile -t libraries < <("$root/dev/dist/libraries.sh" "$TRAIN_GPT" | head -n 4)
check "there are libraries to take along" test "${#libraries[@]}" -gt 2
check "the C library is left" bash -c \
    "'$root/dev/dist/libraries.sh' --left '$TRAIN_GPT' | grep -q ^libc.so && ! grep -q /libc.so <<<'${libraries[*]}'"
mkdir stand_ins lacking
printf '#!/bin/sh\necho "libz.so.1 => /lib/libz.so.1 (0x1)"\necho "libno.so.1 => not found"\n' >lacking/ldd
chmod +x lacking/ldd
check "a missing library is an error" bash -c "! PATH=$PWD/lacking:\$PATH '$root/dev/dist/libraries.sh' x >out 2>err &&
    grep -q libno err"
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
"$root/dev/dist/sbom.sh" v1 1700000000 "${libraries[@]:1}" >fewer.json
named() { sed -n 's/.*"documentNamespace": "urn:uuid:\([0-9a-f-]\{36\}\)".*/\1/p' "$1"; }
check "another content, another name" test "$(named bill.json)" != "$(named fewer.json)"

# A system that has the libraries of two architectures.
cat >stand_ins/dpkg-query <<'END'
#!/bin/sh
case "$1 $4" in
    -S*) echo "libx1:amd64: $2" ;;
    "-W libx1:amd64" | "-W "*-dev:amd64 | "-W nlohmann-json3-dev") printf 1.0-1 ;;
    "-W nlohmann-json3-dev:"*) exit 1 ;;
    *) printf 1.0-11.0-1 ;;
esac
END
printf '#!/bin/sh\necho amd64\n' >stand_ins/dpkg
chmod +x stand_ins/*
PATH=$PWD/stand_ins:$PATH "$root/dev/dist/sbom.sh" v1 1700000000 --static="${libraries[1]}" --left=libc.so.6 \
    "${libraries[0]}" >two.json
versions() { grep '"versionInfo"' two.json | cut -d'"' -f4 | sort | uniq -c | awk '{ print $2 "*" $1 }' | xargs; }
check "versions are of one architecture" test "$(versions)" = "1.0-1*6 NOASSERTION*1 v1*1"
check "what is linked statically, and what the machine must have" test \
    "$(grep -o 'STATIC_LINK\|HAS_PREREQUISITE' two.json | xargs)" = "STATIC_LINK HAS_PREREQUISITE"
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
    '^libraries  .*hwloc [0-9.]*, .*libsodium [0-9.]*, .*PCRE2 [0-9.]*, .*xxHash [0-9.]*, ' '^CUDA       '; do
    check "--version says $word" grep -q "$word" out
done

# version CLONE: what make takes for the version of the program there.
version() { env -u MAKEFLAGS -u MAKELEVEL make -s -C "$1" info | sed -n 's/^version  *//p'; }
if [ -e "$root/.git" ] && git clone -q "$root" clone 2>/dev/null; then
    clean=$(version clone)
    check "a version of twelve digits" grep -qE '(^|-g)[0-9a-f]{12}$' <<<"$clean"
    git -C clone tag mine
    check "of which tags of one's own change nothing" test "$(version clone)" = "$clean"
    touch clone/notes.txt
    check "and no file that is not built" test "$(version clone)" = "$clean"
    touch clone/tests/e2e/mine.sh
    check "one that would be packed makes it dirty" test "$(version clone)" = "$clean-dirty"
else
    skip "the version" "there is no repository"
fi

exit $((failures > 0))
