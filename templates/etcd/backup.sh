#!/bin/sh
# Take a snapshot of etcd from the member on this host, and keep the newest snapshots.
#
# Usage: backup.sh [OPTION...]              as root, on a host with etcd; etcd-backup.timer runs it
#
#   --list        list the snapshots of this host, newest first, then exit
#   --dry-run     show what would be done; change nothing
#   --help        show this text
#
# etcd.backup in cluster.yaml sets the directory, how many snapshots are kept, and where copies go
# (BACKUP_* in node.env). A snapshot is named TIME_CLUSTER_NODE_ETCD-VERSION_rREVISION.db, with the time in
# UTC; its SHA-256 is in a file next to it. A snapshot gets this name only if etcd's own tool accepts it.
# It has every Kubernetes object; Secrets are encrypted, and it has no private key. To restore it, the
# encryption key is needed too: it is in the state directory and on control planes. See restore.sh.
# No disk is filled: a copy is made only if a file system is mounted at its target, and no snapshot is taken
# if there is too little free space.
# Exit code: 0 done, 1 no snapshot was taken or copied, 2 wrong usage, 3 it cannot run on this host now.
# DESTDIR, if set, is prepended to the paths of installed files.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 077
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 2

# Only root may be able to change what runs as root: the directories above this script, and all that is next to it.
# find_shared PATH [-prune]: the first of these that others can change; -prune: without what is in PATH. A user who
# stages files with DESTDIR counts like root.
find_shared() {
    shared_path=$1 shared_depth=${2:-} shared_user=$(id -u)
    set -- "$1"
    while [ -n "${1%/*}" ]; do set -- "${1%/*}" "$@"; done
    # shellcheck disable=SC2086 # no word or one
    shared_lines=$(LC_ALL=C ls -ldn / "$@" && LC_ALL=C find "$shared_path" $shared_depth ! -type l \
        \( ! -user 0 ! -user "$shared_user" -o -perm -020 -o -perm -002 \) -exec ls -ldn {} +) ||
        shared_lines="- - unreadable - - - - - $shared_path"
    printf '%s\n' "$shared_lines" | awk -v user="$shared_user" '
        ($3 != 0 && $3 != user) || substr($1, 6, 1) == "w" || substr($1, 9, 1) == "w" {
            for (i = 1; i < 9; i++) sub(/^[^ ]+ +/, "")
            gsub(/[\001-\037\177]/, "?")
            print
            exit
        }'
}

check_place() {
    shared=$(find_shared "$1")
    [ -n "$shared" ] || return 0
    {
        echo "${0##*/}: others than root can change $shared, and so what this script runs"
        echo "    fix: unpack the tarball as root, with umask 022, in a directory that only root can change, as /root"
        echo "Nothing was changed."
    } >&2
    exit 3
}

check_place "$here"

for part in core/environment core/common etcd; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done
RESERVE=65536 # KiB that stay free on the disk

main() {
    parse_options "$@"
    load_node
    [ -n "$BACKUP_DIRECTORY" ] || die 3 "$NODE has no etcd"
    directory=$prefix$BACKUP_DIRECTORY copies=${BACKUP_COPY_TO:+$prefix$BACKUP_COPY_TO} failed=no
    if [ "$listing" = yes ]; then
        list_snapshots
        exit 0
    fi
    is_staged || [ "$(id -u)" -eq 0 ] || die 3 "run it as root"
    make_work_dir
    if [ "$dry_run" = yes ]; then
        print_dry_run
        exit 0
    fi
    open_directory
    take_snapshot
    remove_old_snapshots "$directory"
    [ -z "$copies" ] || copy_snapshot
    rm -rf "$part"
    [ "$failed" = no ] || exit 1
}

parse_options() {
    listing=no dry_run=no
    for option; do
        case $option in
            --list) listing=yes ;;
            --dry-run) dry_run=yes ;;
            --help | -h)
                print_help "$here/backup.sh"
                exit 0
                ;;
            *) usage_error "unknown option $option" ;;
        esac
    done
}

# own_snapshots DIRECTORY: the names of this host's snapshots, newest first (a name begins with the time).
own_snapshots() {
    for snapshot in "$1"/[0-9]*Z_"${CLUSTER}_${NODE}"_*_r[0-9]*.db; do
        [ ! -f "$snapshot" ] || printf '%s\n' "${snapshot##*/}"
    done | sort -r
}

list_snapshots() {
    names=$(own_snapshots "$directory")
    if [ -z "$names" ]; then
        say "there is no snapshot in $directory"
        return 0
    fi
    printf '%-17s %-8s %-12s %-8s %s\n' TIME ETCD REVISION MIB FILE
    printf '%s\n' "$names" | while IFS=_ read -r time cluster node version revision; do
        path=$directory/${time}_${cluster}_${node}_${version}_$revision
        revision=${revision#r}
        printf '%-17s %-8s %-12s %-8s %s\n' \
            "$time" "$version" "${revision%.db}" "$(($(wc -c <"$path") / 1048576))" "$path"
    done
}

print_dry_run() {
    say "take     a snapshot from $(own_endpoint) into $directory" \
        "(free: $(($(free_space "$directory") / 1024)) MiB; size of the database: $(($(database_size) / 1024)) MiB)"
    own_snapshots "$directory" | awk -v keep="$BACKUP_KEEP" 'NR >= keep' | sed "s|^|remove   $directory/|"
    if [ -n "$copies" ]; then
        if is_mounted "$copies"; then
            say "copy     it to $copies"
        else
            say "FAIL     nothing is mounted on $copies: no copy would be made"
        fi
    fi
    say "Dry run: nothing was changed."
}

# KiB of the database; 0 if the member does not answer.
database_size() {
    size=$(etcd_at "$(own_endpoint)" endpoint status -w json 2>/dev/null | sed -n 's/.*"dbSize":\([0-9]*\).*/\1/p')
    echo $((${size:-0} / 1024))
}

# Unfinished files are in .part, which names the process that works on them: after a kill the next run
# finds that the process is gone and removes them.
open_directory() {
    { mkdir -p "$directory" && chmod 0700 "$directory"; } || die 1 "cannot create $directory"
    part=$directory/.part
    if ! mkdir "$part" 2>/dev/null; then
        read -r owner owner_start 2>/dev/null <"$part/owner" && [ "$owner_start" = "$(process_start "$owner")" ] &&
            die 3 "another backup.sh is running (process $owner)"
        rm -rf "$part"
        mkdir "$part" || die 1 "cannot create $part"
    fi
    printf '%s %s\n' $$ "$(process_start $$)" >"$part/owner"
    has_space "$directory" || give_up "$reason"
}

# has_space DIRECTORY: is there space for one more snapshot? If not, reason says how much is missing.
has_space() {
    free=$(free_space "$1") needed=$(($(database_size) * 11 / 10 + RESERVE))
    [ "$free" -lt "$needed" ] || return 0
    reason="$1 has $((free / 1024)) MiB free, the next snapshot needs $((needed / 1024)) MiB:"
    reason="$reason keep fewer snapshots (etcd.backup.keep), or choose another directory"
    return 1
}

take_snapshot() {
    snapshot_start=$(now)
    ETCD_TIMEOUT=1800 etcd_at "$(own_endpoint)" snapshot save "$part/snapshot.db" >"$work/save.log" 2>&1 ||
        give_up "etcdctl snapshot save failed: $(tail -n 1 "$work/save.log")"
    status=$(read_snapshot "$part/snapshot.db")
    [ -n "$status" ] || give_up "the snapshot is damaged: $(tail -n 1 "$work/status.log")"
    # shellcheck disable=SC2086 # hash, revision, keys, bytes
    set -- $status
    name=$(date -u +%Y%m%dT%H%M%SZ)_${CLUSTER}_${NODE}_${ETCD_VERSION}_r$2.db
    digest=$(print_digest <"$part/snapshot.db")
    store_snapshot "$part/snapshot.db" "$directory" || give_up "cannot write $directory/$name"
    say "$directory/$name: revision $2, $3 keys, $(($(wc -c <"$directory/$name") / 1024)) KiB," \
        "in $(($(now) - snapshot_start)) s"
}

give_up() {
    rm -rf "$part"
    die 1 "$1"
}

# store_snapshot FILE DIRECTORY: move it to its name. The digest is written first: no snapshot is without one.
store_snapshot() {
    printf '%s  %s\n' "$digest" "$name" >"$2/$name.sha256.part" && sync &&
        mv -f "$2/$name.sha256.part" "$2/$name.sha256" && chmod 0600 "$1" && mv -f "$1" "$2/$name"
}

# remove_old_snapshots DIRECTORY: and the files that a killed run left.
remove_old_snapshots() {
    own_snapshots "$1" | awk -v keep="$BACKUP_KEEP" 'NR > keep' | while read -r old; do
        rm -f "$1/$old" "$1/$old.sha256"
        say "removed $1/$old: the newest $BACKUP_KEEP are kept"
    done
    for orphan in "$1"/*_"${CLUSTER}_${NODE}"_*.sha256; do [ -f "${orphan%.sha256}" ] || rm -f "$orphan"; done
    rm -f "$1"/*_"${CLUSTER}_${NODE}"_*.part
}

# If the copy fails, the local snapshot is kept and the exit code is 1.
copy_snapshot() {
    [ -d "$copies/." ] # makes an automount mount it
    if ! is_mounted "$copies"; then
        report_failure "nothing is mounted on $copies: $name was not copied, so that the system's disk is not filled"
    elif ! has_space "$copies"; then
        report_failure "$reason"
    elif ! { cp "$directory/$name" "$copies/$name.part" && sync &&
        [ "$(print_digest <"$copies/$name.part")" = "$digest" ]; }; then
        rm -f "$copies/$name.part"
        report_failure "cannot copy $name to $copies: the copy is incomplete or damaged"
    elif ! store_snapshot "$copies/$name.part" "$copies"; then
        report_failure "cannot write $copies/$name"
    else
        say "copied to $copies/$name"
        remove_old_snapshots "$copies"
    fi
}

report_failure() {
    failed=yes
    printf 'backup.sh: %s\n' "$*" >&2
}

main "$@"
