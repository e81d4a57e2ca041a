#!/bin/sh
# Give a unit that runs as a user of its own what it needs: copies of its files, and its directories.
#
# Usage: unit-files.sh UNIT...      run by the units before they start, and by install.sh after files have changed
#
# What is on disk belongs to root (docs/adr/0014-units-without-root.md). lib/unit-files.tsv names the files that a unit
# may read. Their copies are in /run/bundler/UNIT, which is in memory: the user can read them and cannot change them.
# systemd puts them in the place of the originals. A directory of the table belongs to the user; after a run as root
# some files in it do not, and get their owner here.
#
# It may be run at any time: a program that reads a file finds the old or the new one, complete. A run that is killed is
# completed by the next one.
# Exit code: 0 done, 1 it failed, 2 wrong usage.
# DESTDIR    prepended to all paths
set -u
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
prefix=${DESTDIR:-}
table=$prefix/opt/k8s/bundle/lib/unit-files.tsv
# With some versions of systemd commands with full privileges see the unit's own files too: process 1 sees the host's.
host=$prefix
[ -n "$host" ] || host=/proc/1/root

main() {
    [ $# -gt 0 ] || {
        echo "usage: unit-files.sh UNIT..." >&2
        exit 2
    }
    for unit; do give_files; done
}

fail() {
    echo "unit-files.sh: $unit: $*" >&2
    exit 1
}

give_files() {
    rows=$(awk -F '\t' -v unit="$unit" '$1 == unit { print $3, $4 }' "$table") || fail "cannot read $table"
    id=$(awk -F '\t' -v unit="$unit" '$1 == unit { print $2; exit }' "$table")
    [ -n "$id" ] || fail "$table has no rows for it"
    copies=$prefix/run/bundler/$unit
    make_copies || fail "cannot write $copies"
    printf '%s\n' "$rows" | while read -r kind directory; do
        [ "$kind" != own ] || own_directory || fail "cannot give $directory to user $id"
    done || exit 1
}

# The directories are root's too: their user can enter them. A stopped run may have left part of a file in new/.
make_copies() {
    (umask 022 && mkdir -p "$prefix/run/bundler") || return 1
    umask 027
    mkdir -p "$copies" && rm -rf "$copies/new" && mkdir -p "$copies/new" || return 1
    list_sources >"$copies/new/list" || return 1
    sed -n 's|/[^/]*$||p' "$copies/new/list" | sort -u >"$copies/new/directories"
    (cd "$copies" && sed 's/^/./' new/directories | xargs -r mkdir -p) || return 1
    find "$copies" -type d -exec chown "0:$id" {} + || return 1
    while read -r directory; do copy_directory || return 1; done <"$copies/new/directories"
    find "$copies" -path "$copies/new" -prune -o -type f -print | awk -v copies="$copies" '
        FILENAME == ARGV[1] { wanted[copies $0]; next }
        !($0 in wanted)' "$copies/new/list" - >"$copies/new/stale" || return 1
    while read -r stale; do rm -f "$stale" || return 1; done <"$copies/new/stale"
    rm -rf "$copies/new"
}

# The files of the patterns, and each directory once with a slash.
list_sources() {
    printf '%s\n' "$rows" | while read -r kind pattern; do
        [ "$kind" = copy ] || continue
        case ${pattern%/*} in *[*]*) ;; *) printf '%s/\n' "${pattern%/*}" ;; esac
        for source in "$host"$pattern; do
            [ ! -f "$source" ] || printf '%s\n' "${source#"$host"}"
        done
    done | awk '!seen[$0]++'
}

# One cp and one mv for all files of a directory.
copy_directory() {
    set --
    while read -r path; do
        case $path in */) continue ;; esac
        [ "${path%/*}" != "$directory" ] || set -- "$@" "$host$path"
    done <"$copies/new/list"
    [ $# -gt 0 ] || return 0
    mkdir "$copies/new/files" && cp "$@" "$copies/new/files/" || return 1
    chown "0:$id" "$copies/new/files"/* && chmod 0440 "$copies/new/files"/* || return 1
    mv -f "$copies/new/files"/* "$copies$directory/" && rmdir "$copies/new/files"
}

# own_directory: only what has another owner is touched. No link is followed, and no file with a second name is given:
# the user could have made it. install.sh's record of whose data they are stays root's.
own_directory() {
    at=$prefix$directory
    if [ ! -d "$at" ]; then
        (umask 022 && mkdir -p "${at%/*}") && (umask 077 && mkdir "$at") || return 1
    fi
    find "$at/." \( -type d -o -type f -links 1 \) ! -path "$at/./.bundler-state" \
        \( ! -user "$id" -o ! -group "$id" \) -exec chown -h "$id:$id" {} +
}

main "$@"
