#!/bin/sh
# Take a snapshot of etcd's data from this host's member, and keep the newest ones.
#
# Usage: backup.sh [OPTION...]              as root, on a host with etcd; etcd-backup.timer runs it
#
#   --list        list the snapshots here, the newest first, then end
#   --dry-run     say what would be done, and do nothing
#   --help
#
# Where to, how many are kept and where copies go is etcd.backup in cluster.yaml (below: BACKUP_* in
# node.env). A snapshot is TIME_CLUSTER_NODE_ETCD-VERSION_rREVISION.db, its SHA-256 beside it; the time
# is UTC. Only one that etcd's own tool finds whole gets that name. It holds every object of Kubernetes,
# Secrets encrypted, and no key of any kind: to read them again the encryption key is needed, which is
# in the state directory and on control planes. restore.sh takes it back in.
# Copies go only to where something is mounted, and snapshots only to where there is room: neither
# fills the disk of the system.
# Exit code: 0 done, 1 no snapshot could be taken or copied, 2 wrong usage, 3 it cannot begin.
# DESTDIR, when set, is put before the paths of installed files.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 077
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2
for part in core/common etcd; do
    # shellcheck disable=SC1090 # the files beside this one
    . "$here/lib/$part.sh" || exit 2
done
RESERVE=65536 # KiB that stay free, whatever is kept

main() {
    parse_options "$@"
    load_node
    [ -n "$BACKUP_DIRECTORY" ] || die 3 "$NODE has no etcd"
    directory=$prefix$BACKUP_DIRECTORY copies=${BACKUP_COPY_TO:+$prefix$BACKUP_COPY_TO} failed=no
    if [ "$listing" = yes ]; then list_snapshots; exit 0; fi
    is_staged || [ "$(id -u)" -eq 0 ] || die 3 "run it as root"
    make_work_dir
    if [ "$dry_run" = yes ]; then print_plan; exit 0; fi
    open_directory
    take_snapshot
    keep_newest "$directory"
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
            --help | -h) print_help "$here/backup.sh"; exit 0 ;;
            *) usage_error "unknown option $option" ;;
        esac
    done
}

# Of this cluster and this host, the newest first; names begin with the time.
own_snapshots() { for each in "$1"/[0-9]*Z_"${CLUSTER}_${NODE}"_*_r[0-9]*.db; do [ ! -f "$each" ] || printf '%s\n' "${each##*/}"; done | sort -r; }

list_snapshots() {
    [ -n "$(own_snapshots "$directory")" ] || { say "no snapshot is in $directory"; return; }
    printf '%-17s %-8s %-12s %-8s %s\n' TIME ETCD REVISION MIB FILE
    own_snapshots "$directory" | while IFS=_ read -r time cluster node version revision; do
        name=${time}_${cluster}_${node}_${version}_$revision
        revision=${revision#r}
        printf '%-17s %-8s %-12s %-8s %s\n' "$time" "$version" "${revision%.db}" "$(($(wc -c <"$directory/$name") / 1048576))" "$directory/$name"
    done
}

print_plan() {
    say "take     a snapshot from $(own_endpoint) into $directory (free there: $(($(free_space "$directory") / 1024)) MiB; the database has $(($(database_size) / 1024)) MiB)"
    own_snapshots "$directory" | awk -v keep="$BACKUP_KEEP" 'NR >= keep' | sed "s|^|remove   $directory/|"
    [ -z "$copies" ] || if is_mounted "$copies"; then say "copy     it to $copies"; else say "FAIL     nothing is mounted on $copies: it would not be copied"; fi
    say "Dry run: nothing was changed."
}

# KiB of the database; 0 where the member does not answer.
database_size() {
    size=$(etcd_at "$(own_endpoint)" endpoint status -w json 2>/dev/null | sed -n 's/.*"dbSize":\([0-9]*\).*/\1/p')
    echo $((${size:-0} / 1024))
}

# What is half done lies in .part, which names its owner: one that a kill left behind is known.
open_directory() {
    { mkdir -p "$directory" && chmod 0700 "$directory"; } || die 1 "cannot make $directory"
    part=$directory/.part
    if ! mkdir "$part" 2>/dev/null; then
        read -r owner begun 2>/dev/null <"$part/owner" && [ "$begun" = "$(process_start "$owner")" ] &&
            die 3 "another backup.sh is running (process $owner)"
        rm -rf "$part"
        mkdir "$part" || die 1 "cannot make $part"
    fi
    printf '%s %s\n' $$ "$(process_start $$)" >"$part/owner"
    has_room "$directory" || give_up "$reason"
}

# has_room PATH: for one more snapshot; else reason says why not.
has_room() {
    room=$(free_space "$1") needed=$(($(database_size) * 11 / 10 + RESERVE))
    [ "$room" -lt "$needed" ] || return 0
    reason="$1 has $((room / 1024)) MiB free, and the next snapshot needs $((needed / 1024)): keep fewer (etcd.backup.keep), or choose another directory"
    return 1
}

take_snapshot() {
    begun=$(now)
    ETCD_TIMEOUT=1800 etcd_at "$(own_endpoint)" snapshot save "$part/snapshot.db" >"$work/save.log" 2>&1 ||
        give_up "no snapshot: $(tail -n 1 "$work/save.log")"
    facts=$(read_snapshot "$part/snapshot.db")
    [ -n "$facts" ] || give_up "the snapshot is not whole: $(tail -n 1 "$work/status.log")"
    # shellcheck disable=SC2086 # four words
    set -- $facts
    name=$(date -u +%Y%m%dT%H%M%SZ)_${CLUSTER}_${NODE}_${ETCD_VERSION}_r$2.db
    digest=$(print_digest <"$part/snapshot.db")
    place_snapshot "$part/snapshot.db" "$directory" || give_up "cannot write $directory/$name"
    say "$directory/$name: revision $2, $3 keys, $(($(wc -c <"$directory/$name") / 1024)) KiB, in $(($(now) - begun)) s"
}

give_up() {
    rm -rf "$part"
    die 1 "$1"
}

# place_snapshot FILE DIRECTORY: its digest first, so that no snapshot is without one.
place_snapshot() {
    printf '%s  %s\n' "$digest" "$name" >"$2/$name.sha256.part" && sync && mv -f "$2/$name.sha256.part" "$2/$name.sha256" &&
        chmod 0600 "$1" && mv -f "$1" "$2/$name"
}

keep_newest() {
    own_snapshots "$1" | awk -v keep="$BACKUP_KEEP" 'NR > keep' | while read -r old; do
        rm -f "$1/$old" "$1/$old.sha256"
        say "removed $1/$old: $BACKUP_KEEP are kept"
    done
    # what a kill left
    for orphan in "$1"/*_"${CLUSTER}_${NODE}"_*.sha256; do [ -f "${orphan%.sha256}" ] || rm -f "$orphan"; done
    rm -f "$1"/*_"${CLUSTER}_${NODE}"_*.part
}

# The local snapshot stays, whatever becomes of the copy.
copy_snapshot() {
    [ -d "$copies/." ] # what is mounted on demand
    if ! is_mounted "$copies"; then
        fail "nothing is mounted on $copies: $name was not copied there, so as not to fill the system's disk"
    elif ! has_room "$copies"; then
        fail "$reason"
    elif ! { cp "$directory/$name" "$copies/$name.part" && sync && [ "$(print_digest <"$copies/$name.part")" = "$digest" ]; }; then
        rm -f "$copies/$name.part"
        fail "$name could not be copied to $copies whole"
    elif ! place_snapshot "$copies/$name.part" "$copies"; then
        fail "cannot write $copies/$name"
    else
        say "copied to $copies/$name"
        keep_newest "$copies"
    fi
}

fail() {
    failed=yes
    printf 'backup.sh: %s\n' "$*" >&2
}

main "$@"
