#!/bin/bash
# The bill of materials of a package: SPDX 2.3 as JSON on standard output, of the program, of every library beside it,
# and of those whose headers are compiled in. Names, versions and checksums; Debian's packages say whose they are.
#
#   dev/dist/sbom.sh VERSION EPOCH_SECONDS LIBRARY...
#
# A LIBRARY is a file as it was found on this system; without a package that owns it, it is listed by its name alone.
# The same content makes the same text.
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

# owner FILE: its Debian package, or nothing. A file may be listed under the path without /usr.
owner() {
    local path
    for path in "$(readlink -f "$1")" "$1" "${1#/usr}"; do
        dpkg-query -S "$path" 2>/dev/null | sed -n '1s/:.*//p' | grep . && return
    done || :
}
version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo NOASSERTION; }

id_of() { printf '%s' "$1" | tr -c 'A-Za-z0-9.-' -; }

# Of these no library is linked.
headers="libcli11-dev nlohmann-json3-dev libtomlplusplus-dev libxxhash-dev"

ids=()
echo '{'
echo '  "spdxVersion": "SPDX-2.3",'
echo '  "dataLicense": "CC0-1.0",'
echo '  "SPDXID": "SPDXRef-DOCUMENT",'
printf '  "name": %s,\n' "$(quoted "train_gpt-$version")"
printf '  "documentNamespace": %s,\n' "$(quoted "urn:train_gpt:sbom:$version")"
printf '  "creationInfo": {"created": "%s", "creators": ["Tool: dev/dist/sbom.sh"]},\n' "$created"
echo '  "packages": ['
entry train-gpt train_gpt "$version" NOASSERTION "" APPLICATION
for file in "$@"; do
    name=$(basename "$file")
    package=$(owner "$file")
    supplier=NOASSERTION of=NOASSERTION
    [ -z "$package" ] || { supplier="Organization: Debian ($package)" of=$(version_of "$package"); }
    printf ',\n'
    entry "$(id_of "$name")" "$name" "$of" "$supplier" "$(sha256sum <"$file" | cut -d' ' -f1)" LIBRARY
    ids+=("$(id_of "$name")")
done
for package in $headers; do
    [ -n "$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || :)" ] || continue
    printf ',\n'
    entry "$package" "$package" "$(version_of "$package")" "Organization: Debian ($package)" "" SOURCE
    ids+=("$package")
done
# relation FROM TYPE TO
relation() {
    printf '    {"spdxElementId": "SPDXRef-%s", "relationshipType": "%s", "relatedSpdxElement": "SPDXRef-%s"}' "$@"
}
printf '\n  ],\n  "relationships": [\n'
relation DOCUMENT DESCRIBES train-gpt
for id in "${ids[@]}"; do
    printf ',\n'
    relation train-gpt DEPENDS_ON "$id"
done
printf '\n  ]\n}\n'
