#!/bin/bash
# The bill of materials of a package: SPDX 2.3 as JSON on standard output, of the program, of every library beside it,
# of those that are linked statically or whose headers are compiled in, and of what the machine must have. Names,
# versions and checksums; Debian's packages say whose they are.
#
#   dev/dist/sbom.sh VERSION EPOCH_SECONDS [--static=FILE[,VERSION]]... [--left=NAME]... LIBRARY...
#
# A FILE or LIBRARY is one as it was found on this system; without a package that owns it, it is listed by its name, and
# the version that is given. The same content makes the same text.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
version=$1 created=$(date -u -d "@$2" +%Y-%m-%dT%H:%M:%SZ)
shift 2

quoted() { printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/.*/"&"/'; }

# entry ID NAME VERSION SUPPLIER CHECKSUM PURPOSE
entry() {
    printf '    {\n      "SPDXID": "SPDXRef-%s",\n      "name": %s,\n      "versionInfo": %s,\n' \
        "$1" "$(quoted "$2")" "$(quoted "$3")"
    printf '      "supplier": %s,\n' "$(quoted "$4")"
    [ -z "$5" ] || printf '      "checksums": [{"algorithm": "SHA256", "checksumValue": "%s"}],\n' "$5"
    printf '      "downloadLocation": "NOASSERTION",\n      "filesAnalyzed": false,\n'
    printf '      "primaryPackagePurpose": "%s"\n    }' "$6"
}

# owner FILE: its Debian package, with the architecture where there may be several ("zlib1g:amd64"), or nothing. A file
# may be listed under the path without /usr.
owner() {
    local path
    for path in "$(readlink -f "$1")" "$1" "${1#/usr}"; do
        dpkg-query -S "$path" 2>/dev/null | sed -n '1s/[,:] .*//p' | grep . && return
    done || :
}
version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || :; }
# own_version_of PACKAGE: of this machine's architecture, or of all.
own_version_of() {
    local found
    found=$(version_of "$1:$(dpkg --print-architecture 2>/dev/null)")
    echo "${found:-$(version_of "$1")}"
}
debian() { echo "Organization: Debian (${1%:*})"; }

id_of() { printf '%s' "$1" | tr -c 'A-Za-z0-9.-' -; }

# Of these no library is linked.
headers="libcli11-dev nlohmann-json3-dev libtomlplusplus-dev libxxhash-dev"

relations=()
# part ID RELATION: the next entry is one of the program's.
part() {
    relations+=("$2 $1")
    printf ',\n'
}
# library FILE VERSION RELATION
library() {
    local name package supplier=NOASSERTION of=${2:-NOASSERTION}
    name=$(basename "$1") package=$(owner "$1")
    [ -z "$package" ] || supplier=$(debian "$package") of=$(version_of "$package")
    part "$(id_of "$name")" "$3"
    entry "$(id_of "$name")" "$name" "$of" "$supplier" "$(sha256sum <"$1" | cut -d' ' -f1)" LIBRARY
}
# relation FROM TYPE TO
relation() {
    printf '    {"spdxElementId": "SPDXRef-%s", "relationshipType": "%s", "relatedSpdxElement": "SPDXRef-%s"}' "$@"
}

content() {
    local argument file package of relation
    printf '  "packages": [\n'
    entry train-gpt train_gpt "$version" NOASSERTION "" APPLICATION
    for argument in "$@"; do
        case $argument in
            --static=*)
                file=${argument#*=}
                [[ $file == *,* ]] || file+=,
                library "${file%,*}" "${file##*,}" STATIC_LINK
                ;;
            --left=*)
                part "$(id_of "${argument#*=}")" HAS_PREREQUISITE
                entry "$(id_of "${argument#*=}")" "${argument#*=}" NOASSERTION NOASSERTION "" LIBRARY
                ;;
            *) library "$argument" "" DEPENDS_ON ;;
        esac
    done
    for package in $headers; do
        of=$(own_version_of "$package")
        [ -n "$of" ] || continue
        part "$package" DEPENDS_ON
        entry "$package" "$package" "$of" "$(debian "$package")" "" SOURCE
    done
    printf '\n  ],\n  "relationships": [\n'
    relation DOCUMENT DESCRIBES train-gpt
    for relation in "${relations[@]}"; do
        printf ',\n'
        # shellcheck disable=SC2086  # two words
        relation train-gpt $relation
    done
    printf '\n  ]\n'
}
content=$(content "$@")

# Another content has another name: a UUID (RFC 9562, version 8) made of its hash.
hash=$(printf '%s\n' "$version" "$created" "$content" | sha256sum)
uuid=${hash:0:8}-${hash:8:4}-8${hash:13:3}-8${hash:17:3}-${hash:20:12}

echo '{'
echo '  "spdxVersion": "SPDX-2.3",'
echo '  "dataLicense": "CC0-1.0",'
echo '  "SPDXID": "SPDXRef-DOCUMENT",'
printf '  "name": %s,\n' "$(quoted "train_gpt-$version")"
printf '  "documentNamespace": "urn:uuid:%s",\n' "$uuid"
printf '  "creationInfo": {"created": "%s", "creators": ["Tool: dev/dist/sbom.sh"]},\n' "$created"
printf '%s\n}\n' "$content"
