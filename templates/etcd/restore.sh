#!/bin/sh
# Restore etcd from a snapshot after quorum loss: first on one member, then on the others.
#
# Usage: restore.sh [OPTION...] SNAPSHOT        as root, on one host with etcd: start a new etcd cluster
#                                               of this member only, with the data of the snapshot
#        restore.sh [OPTION...] --from-member   the same with this member's own data, if its disk is
#                                               intact and only the others are lost: newer than a snapshot
#        restore.sh [OPTION...] --join          then on each other host with etcd, one after another:
#                                               back up its old data and join as a new member
#
#   --yes               do it; without it, only show what would be done
#   --dry-run           show what would be done, even with --yes
#   --replace-healthy   restore although the cluster has a quorum: everything written since the snapshot
#                       is lost. Stop the other members first; else they continue as the old cluster
#   --any-key           restore a snapshot whose Secrets need a key that the control planes do not have
#   --within SECONDS    how long to wait until etcd and the API server are healthy (default 180)
#   --help              show this text
#
# No data is deleted: the old data is in DATA/member.before-restore-TIME; remove it when you no longer need
# it. The new cluster has new IDs, so that members of the old one cannot connect to it.
# To resume an interrupted run, run the same command again; a different command abandons it. Until then
# etcd does not start.
# kube-apiserver, kube-controller-manager and kube-scheduler are restarted, because their caches have the old
# data. docs/guides/backup.md has the complete procedure.
# Exit code: 0 done, 1 failed after changes (run it again), 2 wrong usage, 3 nothing was changed.
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

for part in core/environment core/common core/https core/etcd-alarms etcd snapshot-keys coordination/keys \
    transaction/ready; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

# In the order in which they start; a host may have none of them.
CLIENTS='kube-apiserver.service kube-controller-manager.service kube-scheduler.service'

main() {
    parse_options "$@"
    check_host
    make_work_dir
    read_progress
    "check_$mode"
    print_actions
    end_dry_run
    take_lock
    start_restore
    stop_units
    "prepare_$mode"
    move_into_place
    start_etcd
    start_clients
    rm -f "$progress"
    note "restore.sh: $mode done; old data in $old_data"
    "print_next_$mode"
}

parse_options() {
    mode='' snapshot='' sure=no dry_run=no replace=no any_key=no limit=180
    while [ $# -gt 0 ]; do
        case $1 in
            --yes) sure=yes ;;
            --dry-run) dry_run=yes ;;
            --replace-healthy) replace=yes ;;
            --any-key) any_key=yes ;;
            --join) set_mode join ;;
            --from-member) set_mode member ;;
            --within)
                case ${2:-} in '' | *[!0-9]*) usage_error "--within needs a number of seconds" ;; esac
                limit=$2
                shift
                ;;
            --help | -h)
                print_help "$here/restore.sh"
                exit 0
                ;;
            -*) usage_error "unknown option $1" ;;
            *)
                set_mode snapshot
                snapshot=$1
                ;;
        esac
        shift
    done
    [ -n "$mode" ] || usage_error "give a snapshot, --from-member or --join"
}

set_mode() {
    [ -z "$mode" ] || usage_error "give only one of: a snapshot, --from-member, --join"
    mode=$1
}

check_host() {
    is_staged || [ "$(id -u)" -eq 0 ] || die 3 "run it as root"
    load_node
    [ -n "$ETCD_DATA" ] || die 3 "$NODE has no etcd: run it on a host of one of: $ETCD_ENDPOINTS"
    data=$prefix$ETCD_DATA wal=${ETCD_WAL:+$prefix$ETCD_WAL} peer=https://$ADDRESS:2380
    [ -x "$prefix/opt/k8s/libexec/etcd-start.sh" ] ||
        die 3 "etcd is not installed on this host: install this node's bundle first (install.sh)"
    units=''
    for unit in etcd.service $CLIENTS; do
        case " $UNITS " in *" $unit "*) units="$units${units:+ }$unit" ;; esac
    done
}

# /var/lib/bundler/restore has "MODE TIME SOURCE STEP" from before the first change to the end. The steps:
#   begun     units are stopped, no data is moved
#   made      the new data is complete in DATA/restoring
#   placed    the new data is in its place
# etcd-start.sh does not start etcd before `placed`.
read_progress() {
    progress=$store/restore step=none stop_list=$units
    stamp=$(date -u +%Y%m%dT%H%M%SZ)
    source=$mode
    if [ "$mode" = snapshot ] && [ -f "$snapshot" ]; then source=$(print_digest <"$snapshot"); fi
    if read -r old_mode old_stamp old_source old_step 2>/dev/null <"$progress" &&
        [ "$old_mode $old_source" = "$mode $source" ]; then
        stamp=$old_stamp step=$old_step
        say "resuming the restore that was started at $stamp"
        [ "$step" != placed ] || skip_etcd_data
    fi
    old_data=$data/member.before-restore-$stamp new=$data/restoring old_wal=${wal:+$wal.before-restore-$stamp}
}

# The data is already as it must be: do not stop etcd, only restart its clients.
skip_etcd_data() {
    step=placed
    stop_list=$(printf '%s' "$units" | sed 's/etcd\.service *//')
}

set_step() {
    step=$1
    { printf '%s %s %s %s\n' "$mode" "$stamp" "$source" "$step" >"$progress.new" && sync &&
        mv -f "$progress.new" "$progress"; } || die 1 "cannot write $progress"
}

check_snapshot() {
    [ -f "$snapshot" ] || die 3 "$snapshot does not exist"
    snapshot=$(cd "$(dirname "$snapshot")" && pwd -P)/${snapshot##*/}
    case $snapshot in
        "$data"/*)
            die 3 "$snapshot is in the data directory of etcd, which is about to be moved: copy it elsewhere first" \
                "(to use the data of this member: --from-member)"
            ;;
    esac
    if [ -f "$snapshot.sha256" ]; then
        [ "$(cut -d' ' -f1 "$snapshot.sha256")" = "$(print_digest <"$snapshot")" ] ||
            die 3 "$snapshot does not match $snapshot.sha256: it is damaged or altered; use another snapshot"
    else
        warn "$snapshot.sha256 does not exist: only the digest inside the snapshot can be checked"
    fi
    facts=$(read_snapshot "$snapshot")
    [ -n "$facts" ] || die 3 "$snapshot is not a complete snapshot: $(tail -n 1 "$work/status.log")"
    check_space "$(wc -c <"$snapshot")"
    check_quorum
    [ "$any_key$step" != nonone ] || check_snapshot_keys
}

check_member() {
    [ "$step" != none ] || [ -f "$data/member/snap/db" ] ||
        die 3 "$data has no data of a member: restore a snapshot instead"
    facts='- as-it-is as-it-is'
    [ "$step" != none ] || check_space "$(wc -c <"$data/member/snap/db")"
    check_quorum
}

# check_space BYTES: the old data is kept, so there must be space for the new data and more.
check_space() {
    needed=$(($1 * 2 / 1024 + 262144))
    [ "$(free_space "$data")" -ge "$needed" ] ||
        die 3 "$data has $(($(free_space "$data") / 1024)) MiB free, $((needed / 1024)) MiB are needed" \
            "(the old data is kept)"
}

# A cluster with a quorum has newer data than any snapshot; and if the other members have a quorum without
# this one, they would continue as a second cluster.
check_quorum() {
    [ "$step" = none ] || return 0
    healthy='' others=0
    for endpoint in $ETCD_ENDPOINTS; do
        has_quorum "$endpoint"
        case $? in
            0) healthy="$healthy${healthy:+ }$endpoint" ;;
            2) refuse_unread "$endpoint" ;;
            *) continue ;;
        esac
        [ "$endpoint" = "$(own_endpoint)" ] || others=$((others + 1))
    done
    [ -n "$healthy" ] || return 0
    [ "$replace" = yes ] ||
        die 3 "etcd has a quorum ($healthy) and newer data than the snapshot: to repair a single member use --join;" \
            "--replace-healthy gives up what was written since the snapshot"
    # shellcheck disable=SC2086 # a list of endpoints
    set -- $ETCD_ENDPOINTS
    [ "$others" -lt $(($# / 2 + 1)) ] ||
        die 3 "the other members have a quorum without this member and would continue as the old cluster:" \
            "stop etcd and kube-apiserver there first (systemctl stop kube-apiserver etcd)"
}

refuse_unread() {
    die 3 "$1 answers and cannot be read ($unread), so it is unknown whether etcd has a quorum." \
        "Fix: correct that and run it again; or, if that member is to go, stop it: systemctl stop kube-apiserver etcd"
}

# There must be a cluster that can take this member. If this member is in it already, or etcd-start.sh is
# about to join it (which it does if there is no data), the data stays.
check_join() {
    [ "$step" != placed ] || return 0
    check_start=$(now)
    until find_member_to_join; do
        [ $(($(now) - check_start)) -lt "${PATIENCE:-20}" ] || [ -z "$unread_at" ] || refuse_unread "$unread_at"
        [ $(($(now) - check_start)) -lt "${PATIENCE:-20}" ] ||
            die 3 "no other member has a quorum to join ($(other_endpoints | tr '\n' ' ')):" \
                "run restore.sh SNAPSHOT on one of them first"
        sleep 1
    done
    [ "$step" = none ] || return 0
    # The own quorum is checked before the members: a member that starts in between is then seen as a member.
    has_quorum "$(own_endpoint)"
    case $? in 0) own_quorum=yes ;; 2) refuse_unread "$(own_endpoint)" ;; *) own_quorum=no ;; esac
    view "$(own_endpoint)" | awk '{ print $1 }' >"$work/own-ids"
    view "$via" | awk '{ print $1 }' >"$work/ids"
    if grep -qxFf "$work/own-ids" "$work/ids" || { is_unstarted_member_of "$via" && ! has_log; }; then
        say "etcd on this host is already a member of the cluster of $via, or is joining it"
        skip_etcd_data
    elif [ "$own_quorum" = yes ]; then
        { [ -s "$work/own-ids" ] && [ -s "$work/ids" ]; } ||
            die 3 "cannot read the members of etcd on this host or at $via: run it again"
        die 3 "etcd on this host has a quorum of its own, and $via is in another cluster: two clusters are running"
    fi
}

# Sets via: a member with a quorum, or one whose cluster has added this host and waits only for its start. If there is
# none, unread_at is one that answers and cannot be read.
find_member_to_join() {
    unread_at=''
    for via in $(other_endpoints); do
        if is_unstarted_member_of "$via" && ! has_log; then return 0; fi
        has_quorum "$via"
        case $? in 0) return 0 ;; 2) unread_at=$via ;; esac
    done
    via=''
    return 1
}

has_log() {
    for log in "${wal:-$data/member/wal}"/*.wal ${wal:+"$wal"/wal/*.wal}; do [ ! -f "$log" ] || return 0; done
    return 1
}

# is_unstarted_member_of CLIENT-URL: is this host in that member's list, as one that never started?
is_unstarted_member_of() { view "$1" | grep -q " $peer -\$"; }

print_actions() {
    # shellcheck disable=SC2086 # hash, revision, keys
    set -- ${facts:-}
    cluster="a new cluster of $NODE only${RESTORE_FLAGS:+, with $RESTORE_FLAGS}"
    say "stop     $stop_list"
    if [ "$step" != placed ]; then
        [ ! -d "$data/member" ] || is_moved || say "keep     $data/member as $old_data${old_wal:+, $wal as $old_wal}"
        case $mode in
            snapshot) say "restore  $snapshot (revision $2, $3 keys) as $cluster" ;;
            member) say "restore  the data of this member as $cluster" ;;
            join) say "join     the cluster of ${via:-the interrupted run} as a new member, with its data" ;;
        esac
    fi
    say "start    $units"
}

# Exit here, unless --yes is given and --dry-run is not.
end_dry_run() {
    if [ "$dry_run" = yes ]; then
        say "Nothing was changed."
        exit 0
    elif [ "$sure" = no ]; then
        say "Nothing was changed: give --yes to do it."
        exit 3
    fi
}

start_restore() {
    [ "$step" != none ] || set_step begun
    note "restore.sh: $mode started, $source"
}

# In reverse order.
stop_units() {
    reversed=''
    for unit in $stop_list; do reversed="$unit${reversed:+ }$reversed"; done
    [ -n "$reversed" ] || return 0
    say "  stopping $reversed"
    # shellcheck disable=SC2086 # a list of units
    systemctl stop $reversed || die 1 "systemctl stop failed"
}

prepare_snapshot() { [ "$step" != begun ] || make_data "$snapshot"; }

prepare_member() {
    [ "$step" = begun ] || return 0
    [ -n "$(read_snapshot "$data/member/snap/db")" ] ||
        die 1 "$data/member/snap/db is damaged: $(tail -n 1 "$work/status.log"); restore a snapshot instead"
    make_data "$data/member/snap/db" --skip-hash-check # only snapshots have a digest
}

# etcd-start.sh may have joined the cluster just before it was stopped, so that the cluster has no quorum
# without this member: then its data stays. Otherwise the old member is removed from the cluster, because a
# member that comes back without data that it has acknowledged breaks consistency.
prepare_join() {
    [ "$step" = begun ] || return 0
    prepare_start=$(now)
    until has_quorum "$via"; do
        if view "$via" | grep -q " $peer "; then
            say "  the cluster of $via has no quorum without this member: it has already joined"
            set_step placed
            return 0
        fi
        [ $(($(now) - prepare_start)) -lt "$limit" ] ||
            die 1 "the cluster of $via has lost its quorum: run the same command again to resume"
        sleep 1
    done
    listed=$(etcd_at "$via" member list -w simple | awk -F', ' -v url="$peer" '$4 == url { print $1 }')
    [ -z "$listed" ] || [ ! -d "$data/member" ] || etcd_at "$via" member remove "$listed" >/dev/null ||
        die 1 "cannot remove the old member $listed from the cluster of $via: run it again"
    set_step made
}

# make_data SNAPSHOT [OPTION...]: the new data next to its place; complete before anything is moved.
make_data() {
    from=$1
    shift
    { rm -rf "$new" ${wal:+"$wal.restoring"} && mkdir -p "$data"; } || die 1 "cannot write $data"
    # shellcheck disable=SC2086 # flags
    ETCDCTL_API=3 "$SNAPSHOT_TOOL" snapshot restore "$from" --name="$NODE" --initial-cluster="$NODE=$peer" \
        --initial-advertise-peer-urls="$peer" --initial-cluster-token="$CLUSTER-restored-$stamp" --data-dir="$new" \
        ${wal:+--wal-dir="$wal.restoring"} $RESTORE_FLAGS "$@" >"$work/restore.log" 2>&1 ||
        die 1 "cannot restore $from: $(tail -n 1 "$work/restore.log")"
    sync
    set_step made
}

# Each move is atomic and is not repeated. The member directory is last: with it etcd has data.
move_into_place() {
    [ "$step" = made ] || return 0
    [ "$mode" != join ] || rm -rf "$new" ${wal:+"$wal.restoring"} # of an abandoned restore
    if [ -n "$wal" ] && is_not_moved "$wal.restoring"; then
        [ ! -d "$wal" ] || rmdir "$wal" 2>/dev/null || [ -e "$old_wal" ] || move "$wal" "$old_wal"
        [ ! -d "$wal.restoring" ] || move "$wal.restoring" "$wal"
    fi
    if [ -d "$data/member" ] && [ ! -e "$old_data" ] && is_not_moved "$new/member"; then
        move "$data/member" "$old_data"
    fi
    if [ -d "$new/member" ]; then move "$new/member" "$data/member"; fi
    rm -rf "$new"
    sync
    set_step placed
}

# is_not_moved NEW: is the old data still in its place? NEW does not exist any more once it is moved there.
is_not_moved() { [ "$mode" = join ] || [ -d "$1" ]; }
is_moved() { [ "$step" = made ] && ! is_not_moved "$new/member"; }

move() { mv "$1" "$2" || die 1 "cannot move $1 to $2"; }

start_etcd() {
    say "  starting etcd"
    systemctl --no-block start etcd.service || die 1 "systemctl start etcd.service failed"
    await etcd has_quorum "$(own_endpoint)"
}

# The snapshot may have objects, rights and add-ons of an earlier bundle, an earlier plan of labels and taints, and
# bootstrap tokens that were used since: they wait for the API server, and correct that.
restart_appliers() {
    # this host announces its plans again, and looks for objects of former bundles
    rm -f "$prefix/var/lib/kube-node-labeler/plan" "$prefix/var/lib/kube-addons/plan" \
        "$prefix/var/lib/kube-apply/cleaned"
    for unit in kube-apply.service kube-csr-approver.service kube-addons.service; do
        if systemctl -q is-active "$unit" 2>/dev/null; then systemctl --no-block restart "$unit"; fi
    done
}

start_clients() {
    restart_appliers
    for unit in $units; do
        [ "$unit" != etcd.service ] || continue
        say "  starting $unit"
        systemctl --no-block start "$unit" || die 1 "systemctl start $unit failed"
    done
    case "$units" in *kube-apiserver*) is_staged || await "the API server" ready_kube_apiserver ;; esac
}

# await WHAT COMMAND...
await() {
    what=$1 await_start=$(now)
    shift
    until "$@" >/dev/null 2>&1; do
        [ $(($(now) - await_start)) -lt "$limit" ] ||
            die 1 "$what is not healthy after $limit s: see journalctl -u etcd -u kube-apiserver -n 50;" \
                "run the same command again to keep waiting"
        sleep 1
    done
    say "  $what is healthy ($(($(now) - await_start)) s)"
}

print_next_snapshot() {
    say "$NODE: etcd has the restored data and is a cluster of this member only. Next, in this order:"
    for endpoint in $(other_endpoints); do
        say "  on the host of $endpoint: /opt/k8s/bundle/restore.sh --join --yes"
    done
    say "  on control planes without etcd: systemctl restart kube-apiserver kube-controller-manager kube-scheduler" \
        "kube-apply kube-csr-approver"
    if [ -n "$RESTORE_FLAGS" ]; then
        say "  (workers need no restart: the revision is higher than any that they have seen)"
    else
        say "  on every worker: systemctl restart kubelet kube-proxy (this etcd version continues with the snapshot's" \
            "revision, so watches would miss changes)"
        say "  once: kubectl -n kube-system rollout restart deployment, and all other pods that watch the API"
    fi
    say "  last: /opt/k8s/bundle/verify.sh. If all checks pass, the old data can be removed:" \
        "rm -r $old_data${old_wal:+ $old_wal}"
}

print_next_member() { print_next_snapshot; }

print_next_join() {
    say "$NODE: etcd is a member again. If all is well, the old data can be removed:" \
        "rm -rf $old_data${old_wal:+ $old_wal}"
}

main "$@"
