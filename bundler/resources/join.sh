#!/bin/sh
# Join the volumes that `bundler build --split` wrote, after checking each.
#
# Usage: join.sh [OPTION...] [NAME...]      NAME is the joined file, as lab-master1.tar.gz; without
#                                           NAME, every file with volumes next to this script
#
#   --check    only check the volumes
#   --help     print this text
#
# Volumes are NAME.001, NAME.002 …; NAME.sha256 holds their digests and, last, the digest of NAME.
# Copy the volumes of all media into one directory, with NAME.sha256 and this script. To join them
# by hand: cat NAME.0* >NAME. The volumes are kept, so the disk needs space for NAME too.
# Exit code: 0 done, 1 a volume is damaged or missing (each is named) or NAME cannot be written,
# 2 wrong usage.
set -u
umask 077 # the joined file holds private keys
LC_ALL=C
export LC_ALL

main() {
    check_only=no
    for argument in "$@"; do
        shift
        case $argument in
            --check) check_only=yes ;;
            --help | -h)
                sed -n '2,/^# 2 wrong/s/^# \{0,1\}//p' "$0"
                exit 0
                ;;
            -*) usage_error "unknown option $argument" ;;
            *)
                argument=${argument%.sha256}
                set -- "$@" "${argument%.[0-9][0-9][0-9]}"
                ;;
        esac
    done
    # Without an argument, join the volumes next to the script.
    [ $# -gt 0 ] || for digests in "$(dirname "$0")"/*.sha256; do
        [ ! -f "$digests" ] || set -- "$@" "${digests%.sha256}"
    done
    [ $# -gt 0 ] || usage_error "no volumes (NAME.sha256) next to join.sh: copy them here, or give NAME"
    failed=0
    for path in "$@"; do
        # in the directory of the volumes: the digest file has names without directories
        (cd "$(dirname "$path")" && join "${path##*/}") || failed=1
    done
    exit "$failed"
}

usage_error() {
    echo "join.sh: $1 (see --help)" >&2
    exit 2
}

fault() { echo "join.sh: $*" >&2; }

# join NAME: runs in the directory of its volumes.
join() {
    [ "$check_only" = yes ] || check_place "$(pwd -P)" || return 1
    [ -f "$1.sha256" ] || {
        fault "$1.sha256: missing: copy it from the media; if they do not have it, the build was interrupted"
        return 1
    }
    volumes=$(awk -v name="$1." 'index($2, name) == 1 { print $2 }' "$1.sha256")
    if is_whole "$1"; then
        check_whole "$1"
        return $?
    fi
    case $volumes:$(digest_in "$1") in
        :* | *:)
            fault "$1.sha256: damaged: copy it again"
            return 1
            ;;
    esac
    check_volumes "$1" || return 1
    # shellcheck disable=SC2086 # a list of names without spaces
    set -- "$1" $volumes
    if [ "$check_only" = yes ]; then
        echo "$1: all $(($# - 1)) volumes are intact"
        return 0
    fi
    part=$1.part
    trap 'rm -f "$part"' EXIT
    trap 'exit 1' HUP INT TERM
    # shellcheck disable=SC2086
    cat $volumes >"$part" || {
        fault "$1: cannot be written: check the free space of this file system"
        exit 1
    }
    [ "$(print_digest "$part")" = "$(digest_in "$1")" ] || {
        fault "$1: the digest of the joined file differs from $1.sha256: copy the volumes again"
        exit 1
    }
    mv -f "$part" "$1" || exit 1
    echo "$1: joined from $(($# - 1)) volumes"
}

# is_whole NAME: NAME.sha256 has one line, and no volume is here: the file was not split.
is_whole() {
    for volume in "$1".[0-9][0-9][0-9]; do [ ! -f "$volume" ] || return 1; done
    awk -v name="$1" '{ last = $2 } END { exit !(NR == 1 && last == name) }' "$1.sha256"
}

check_whole() {
    if [ ! -f "$1" ]; then
        fault "$1: missing: copy it from the media"
    elif [ "$(print_digest "$1")" != "$(digest_in "$1")" ]; then
        fault "$1: damaged: copy it again"
    else
        echo "$1: complete, not in volumes"
        return 0
    fi
    return 1
}

# check_place DIRECTORY: nobody but root and the user who runs this can change what is written there.
check_place() {
    user=$(id -u)
    set -- "$1"
    while [ -n "${1%/*}" ]; do set -- "${1%/*}" "$@"; done
    shared=$(ls -ldn / "$@" || echo "- - unreadable - - - - - .")
    shared=$(printf '%s\n' "$shared" | awk -v user="$user" '
        ($3 != 0 && $3 != user) || substr($1, 6, 1) == "w" || substr($1, 9, 1) == "w" {
            for (i = 1; i < 9; i++) sub(/^[^ ]+ +/, "")
            print
            exit
        }')
    [ -n "$shared" ] || return 0
    fault "others can change $shared: copy the volumes to a directory that only you can change, such as /root"
    return 1
}

# check_volumes NAME: report every bad volume, and each of another split, which `cat` would join too.
check_volumes() {
    bad=0
    for volume in $volumes; do
        if [ ! -f "$volume" ]; then
            fault "$volume: missing"
            bad=1
        elif [ "$(print_digest "$volume")" != "$(digest_in "$1" "$volume")" ]; then
            fault "$volume: damaged: copy it again"
            bad=1
        fi
    done
    for volume in "$1".[0-9][0-9][0-9]; do
        [ ! -f "$volume" ] || [ -n "$(digest_in "$1" "$volume")" ] ||
            fault "warning: $volume is of another split and is not used"
    done
    return "$bad"
}

# digest_in NAME [FILE]: the digest of FILE, or of NAME, in NAME.sha256.
digest_in() { awk -v name="${2:-$1}" '$2 == name { print $1 }' "$1.sha256"; }
print_digest() { sha256sum <"$1" | cut -d' ' -f1; }

main "$@"
