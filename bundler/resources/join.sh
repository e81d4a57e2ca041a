#!/bin/sh
# Join the volumes that `bundler build --split` wrote, after checking each.
#
# Usage: join.sh [OPTION...] [NAME...]      NAME is the whole file's, as lab-master1.tar.gz; without
#                                           one, every file that has volumes beside this script
#
#   --check    check the volumes only, and join nothing
#   --help
#
# Volumes are NAME.001, NAME.002 …; NAME.sha256 holds their digests and, last, that of the whole.
# Put the volumes of all media into one directory, with NAME.sha256 and this script. Without it:
# cat NAME.0* >NAME. The volumes stay; so there must be room for NAME beside them.
# Exit code: 0 done, 1 a volume is bad or missing (each is named) or NAME cannot be written,
# 2 wrong usage.
set -u
umask 077 # what is joined holds private keys
LC_ALL=C
export LC_ALL

main() {
    check_only=no
    for argument in "$@"; do
        shift
        case $argument in
            --check) check_only=yes ;;
            --help | -h) sed -n '2,/^# 2 wrong/s/^# \{0,1\}//p' "$0"; exit 0 ;;
            -*) usage_error "unknown option $argument" ;;
            *) argument=${argument%.sha256}; set -- "$@" "${argument%.[0-9][0-9][0-9]}" ;;
        esac
    done
    # Without an argument the volumes are beside the script.
    [ $# -gt 0 ] || for digests in "$(dirname "$0")"/*.sha256; do
        [ ! -f "$digests" ] || set -- "$@" "${digests%.sha256}"
    done
    [ $# -gt 0 ] || usage_error "there are no volumes here (NAME.sha256)"
    failed=0
    for path in "$@"; do
        # in its own directory, so that digests and volumes have plain names
        (cd "$(dirname "$path")" && join "${path##*/}") || failed=1
    done
    exit "$failed"
}

usage_error() {
    echo "join.sh: $1 (see --help)" >&2
    exit 2
}

fault() { echo "join.sh: $*" >&2; }

# join NAME, in the directory where its volumes are.
join() {
    [ -f "$1.sha256" ] || { fault "$1.sha256: missing: it comes with the volumes; a build that was cut short has none"; return 1; }
    volumes=$(awk -v name="$1." 'index($2, name) == 1 { print $2 }' "$1.sha256")
    case $volumes:$(digest_in "$1") in
        :* | *:) fault "$1.sha256: damaged: copy it again"; return 1 ;;
    esac
    check_volumes "$1" || return 1
    # shellcheck disable=SC2086 # a list of names without spaces
    set -- "$1" $volumes
    if [ "$check_only" = yes ]; then echo "$1: $(($# - 1)) volumes, all well"; return 0; fi
    part=$1.part
    trap 'rm -f "$part"' EXIT
    trap 'exit 1' HUP INT TERM
    # shellcheck disable=SC2086
    cat $volumes >"$part" || { fault "$1: cannot be written: is there room for it beside the volumes?"; exit 1; }
    [ "$(print_digest "$part")" = "$(digest_in "$1")" ] || { fault "$1: joined, its digest is not the one in $1.sha256"; exit 1; }
    mv -f "$part" "$1" || exit 1
    echo "$1: joined from $(($# - 1)) volumes"
}

# check_volumes NAME: every bad volume is told; and one of another split, which `cat` would join too.
check_volumes() {
    bad=0
    for volume in $volumes; do
        if [ ! -f "$volume" ]; then
            fault "$volume: missing"
            bad=1
        elif [ "$(print_digest "$volume")" != "$(digest_in "$1" "$volume")" ]; then
            fault "$volume: altered or damaged: copy it again"
            bad=1
        fi
    done
    for volume in "$1".[0-9][0-9][0-9]; do
        [ ! -f "$volume" ] || [ -n "$(digest_in "$1" "$volume")" ] || fault "warning: $volume is of another split, and left out"
    done
    return "$bad"
}

# digest_in NAME [FILE]: what NAME.sha256 says of a file; of NAME itself without one.
digest_in() { awk -v name="${2:-$1}" '$2 == name { print $1 }' "$1.sha256"; }
print_digest() { sha256sum <"$1" | cut -d' ' -f1; }

main "$@"
