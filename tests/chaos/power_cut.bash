# What a power cut leaves. Sourced; faults.cpp, preloaded with CHAOS_DISK, has kept the image (disk_image.h).
# shellcheck shell=bash

# disk_after_cut FOLDER WHAT TO [SEED]: makes the folder TO, which is FOLDER after a power cut that left of what was not
# synced
#   none   nothing
#   names  what folders say, not what files hold: a journal was ahead of the data
#   some   of each file and each folder all or nothing, by its name and the seed; folders that something was moved
#          between have one lot
disk_after_cut() {
    local image=$1.image what=$2 seed=${4-0} inode line
    [ -e "$image/lock" ] || { echo "no image of $1: was the library preloaded?" >&2; return 1; }
    declare -A place=() moved=()
    while IFS= read -r line; do place[${line%% *}]=${line#* }; done < <(find "$image/kept" "$1" -printf '%i %p\n')
    if [ -e "$image/moved" ]; then
        while read -r inode; do moved[$inode]=1; done <"$image/moved"
    fi
    restore_folder "$(stat -c %i "$1")" "$3"
}

# is_left KIND INODE PATH: of the unsynced part of this file or folder, is it there?
is_left() {
    case $what in
        none) false ;;
        names) [ "$1" = folder ] ;;
        *) if [ "${moved[$2]-}" ]; then lot moved; else lot "$3"; fi ;;
    esac
}

# The same for the same seed and name. ($RANDOM is another one in every subshell.)
lot() {
    local at code hash=$((seed * 2654435761 + 1))
    for ((at = 0; at < ${#1}; at++)); do
        printf -v code %d "'${1:at:1}"
        hash=$(((hash * 16777619 ^ code) & 0xffffffff))
    done
    hash=$(((hash ^ hash >> 15) * 2246822519 & 0xffffffff))
    [ $(((hash ^ hash >> 13) >> 7 & 1)) = 1 ]
}

restore_folder() { # INODE TO
    local names=$image/folders/$1 inode kind name target
    mkdir "$2"
    while IFS= read -r name; do
        target=${name##*$'\t'} name=${name%$'\t'*}
        inode=${name%% *} kind=${name#* } name=${name#* ? }
        case $kind in
            d*) restore_folder "$inode" "$2/$name" ;;
            f*) restore_file "$inode" "$2/$name" ;;
            l*) ln -s "$target" "$2/$name" ;;
        esac
    done < <(if [ -e "$names" ] && { [ ! -d "${place[$1]-}" ] || ! is_left folder "$1" "$2"; }; then
        cat "$names"
    else
        find "${place[$1]}" -mindepth 1 -maxdepth 1 -printf '%i %y %f\t%l\n'
    fi)
}

restore_file() { # INODE TO
    local content=$image/files/$1
    if [ -e "$content" ] && { [ ! -f "${place[$1]-}" ] || ! is_left file "$1" "$2"; }; then
        cp "$content" "$2"
    else
        cp "${place[$1]}" "$2"
    fi
}

# as_said LOG: the step of the last checkpoint that it tells of; 0 where none.
as_said() { sed -n 's/.* I step \([0-9]*\): checkpoint in .*/\1/p' "$1" | tail -n 1 | grep . || echo 0; }

# goes_on_from LOG STEPS: where a run went on, of so many steps in all; 0: it began anew.
goes_on_from() {
    sed -n -e 's/.* I resumed from .*, \([0-9]*\) steps done$/\1/p' -e "s/.*nothing left to do.*/$2/p" "$1" |
        tail -n 1 | grep . || echo 0
}
