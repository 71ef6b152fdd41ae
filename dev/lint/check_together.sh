#!/bin/sh
# Checks that files which make UNITY=n compiles as one mean the same as each by itself, and prints an offence per line as
# FILE:LINE: what. What would not compile is the compiler's to say; this is about a call that would quietly find a
# function of another file:
#
#   - in a folder, what one of them defines in its unnamed namespace has no name that another one defines
#   - all of them in a folder that have a using-directive name the same namespace
#
# An offender is renamed, or gets a line in dev/compiled_alone.txt.
set -eu
cd "$(dirname "$0")/../.."

alone=$(sed -n 's/^\([^#].*\)$/^\1$/p' dev/compiled_alone.txt | sed 's/[.]/[.]/g; s/%/.*/' | paste -s -d '|' -)
files=$(find llmc tests -type f -name '*.cpp' | LC_ALL=C sort | grep -v -E "$alone")

# shellcheck disable=SC2086
LC_ALL=C awk '
    FNR == 1 { folder = FILENAME; sub("/[^/]*$", "", folder); own = 0 }
    /^namespace \{/ { own = 1 }
    /^\}  \/\/ namespace$/ { own = 0 }
    # A definition, or the first line of one; a member of a class has its name before the own one.
    /^[A-Za-z_][A-Za-z0-9_:<>,&*\[\] ]*[ &*][A-Za-z_0-9]+\(/ && !/;$/ && !/^(return|else|class|struct|using|TEST)/ {
        name = $0
        sub(/\(.*/, "", name)
        if (name ~ /=/) next
        sub(/.*[ &*]/, "", name)
        if (name ~ /:/ || name == "") next
        key = folder " " name
        if (!(key in first)) { first[key] = FILENAME; is_own[key] = own }
        else if (first[key] != FILENAME && (own || is_own[key])) {
            print FILENAME ":" FNR ": defines " name "(), as " first[key] " does, and they are compiled together"
            failed = 1
        }
    }
    /^ *using namespace / {
        if (!(folder in used)) { used[folder] = $3; by[folder] = FILENAME }
        else if (used[folder] != $3) {
            print FILENAME ":" FNR ": uses the names of another namespace than " by[folder] \
                ", and they are compiled together"
            failed = 1
        }
    }
    END { exit failed }' $files
