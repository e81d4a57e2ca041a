#!/bin/sh
# Bring etcd back out of a snapshot, when its quorum is lost: on one member, then on the others.
#
# Usage: restore.sh [OPTION...] SNAPSHOT    as root, on one host with etcd: a new cluster of this
#                                           member alone, with the snapshot's data
#        restore.sh [OPTION...] --from-member   the same from this member's own data, when its disk
#                                           is well and only the others are lost: newer than any snapshot
#        restore.sh [OPTION...] --join      then, on each other host with etcd, one after another: its
#                                           old data aside, and in as a new member
#
#   --yes               do it; without, it is only said what would be done
#   --dry-run           say it, though --yes is given
#   --replace-healthy   restore although the cluster has a quorum: all that was written since the
#                       snapshot is given up. The other members must be stopped first, or they would
#                       go on as the old cluster beside the new one
#   --within SECONDS    how long to wait until etcd and the API server are well (default 180)
#   --help
#
# Nothing is deleted: the data as they were are in DATA/member.before-restore-TIME, and are yours to
# remove. The new cluster has IDs of its own, so that members of the old one can never talk to it. A
# run that was cut short is finished by the same command, and given up for another one; until then
# etcd does not start.
# kube-apiserver, kube-controller-manager and kube-scheduler are stopped meanwhile and started again,
# since what they remember is no more. docs/guides/backup.md has the whole procedure.
# Exit code: 0 done, 1 failed after changes began (run it again), 2 wrong usage, 3 nothing was changed.
# DESTDIR, when set, is put before the paths of installed files.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 077
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2
for part in core/common core/https etcd transaction/ready; do
    # shellcheck disable=SC1090 # the files beside this one
    . "$here/lib/$part.sh" || exit 2
done

# What this host has of them, in the order in which they start.
CLIENTS='kube-apiserver.service kube-controller-manager.service kube-scheduler.service'

main() {
    parse_options "$@"
    check_place
    make_work_dir
    read_progress
    "check_$mode"
    print_plan
    [ "$sure$dry_run" = yesno ] || { say "Nothing was changed$([ "$dry_run" = yes ] || echo ': --yes does it')."; exit "$([ "$dry_run" = yes ] && echo 0 || echo 3)"; }
    take_lock
    begin
    stop_units
    "prepare_$mode"
    put_in_place
    start_etcd
    start_clients
    rm -f "$progress"
    note "restore.sh: $mode done; old data in $aside"
    "print_next_$mode"
}

parse_options() {
    mode='' snapshot='' sure=no dry_run=no replace=no limit=180
    while [ $# -gt 0 ]; do
        case $1 in
            --yes) sure=yes ;;
            --dry-run) dry_run=yes ;;
            --replace-healthy) replace=yes ;;
            --join) set_mode join ;;
            --from-member) set_mode member ;;
            --within)
                case ${2:-} in '' | *[!0-9]*) usage_error "--within needs a number of seconds" ;; esac
                limit=$2; shift ;;
            --help | -h) print_help "$here/restore.sh"; exit 0 ;;
            -*) usage_error "unknown option $1" ;;
            *) set_mode snapshot; snapshot=$1 ;;
        esac
        shift
    done
    [ -n "$mode" ] || usage_error "give the snapshot, --from-member or --join"
}

set_mode() {
    [ -z "$mode" ] || usage_error "give one snapshot, or --from-member, or --join"
    mode=$1
}

check_place() {
    is_staged || [ "$(id -u)" -eq 0 ] || die 3 "run it as root"
    load_node
    [ -n "$ETCD_DATA" ] || die 3 "$NODE has no etcd: run it on one of: $ETCD_ENDPOINTS"
    data=$prefix$ETCD_DATA wal=${ETCD_WAL:+$prefix$ETCD_WAL} peer=https://$ADDRESS:2380
    [ -x "$prefix/opt/k8s/libexec/etcd-start.sh" ] || die 3 "etcd is not installed here: install this node's bundle first (install.sh)"
    units=''
    for unit in etcd.service $CLIENTS; do case " $UNITS " in *" $unit "*) units="$units $unit" ;; esac; done
}

# "MODE TIME SOURCE STEP" in /var/lib/bundler/restore, from before the first change to the end:
#   begun     units are stopped, nothing is moved
#   made      what etcd is to start with is whole in DATA/restoring
#   placed    it is in its place
# etcd-start.sh starts nothing before `placed`.
read_progress() {
    progress=$store/restore step=none stopped=$units
    stamp=$(date -u +%Y%m%dT%H%M%SZ)
    source=$(if [ "$mode" = snapshot ] && [ -f "$snapshot" ]; then print_digest <"$snapshot"; else echo "$mode"; fi)
    if read -r was_mode was_stamp was_source was_step 2>/dev/null <"$progress" && [ "$was_mode $was_source" = "$mode $source" ]; then
        stamp=$was_stamp step=$was_step
        say "going on with what was begun at $stamp"
        [ "$step" != placed ] || leave_etcd_alone
    fi
    aside=$data/member.before-restore-$stamp new=$data/restoring wal_aside=${wal:+$wal.before-restore-$stamp}
}

# Its data are what they are to be; only its clients start anew.
leave_etcd_alone() { step=placed stopped=$(printf '%s' "$units" | sed 's/ etcd\.service//'); }
set_step() {
    step=$1
    { printf '%s %s %s %s\n' "$mode" "$stamp" "$source" "$step" >"$progress.new" && sync && mv -f "$progress.new" "$progress"; } || die 1 "cannot write $progress"
}

check_snapshot() {
    [ -f "$snapshot" ] || die 3 "$snapshot is not there"
    snapshot=$(cd "$(dirname "$snapshot")" && pwd -P)/${snapshot##*/}
    case $snapshot in "$data"/*) die 3 "$snapshot lies in etcd's own directory, which is about to be moved: copy it elsewhere first (for a member's data: --from-member)" ;; esac
    if [ -f "$snapshot.sha256" ]; then
        [ "$(cut -d' ' -f1 "$snapshot.sha256")" = "$(print_digest <"$snapshot")" ] || die 3 "$snapshot is not what $snapshot.sha256 says: damaged or altered; take another"
    else
        warn "there is no $snapshot.sha256: that it is unaltered only etcd's own digest in it can tell"
    fi
    facts=$(read_snapshot "$snapshot")
    [ -n "$facts" ] || die 3 "$snapshot is no whole snapshot: $(tail -n 1 "$work/status.log")"
    check_room "$(wc -c <"$snapshot")"
    check_quorum
}

check_member() {
    [ "$step" != none ] || [ -f "$data/member/snap/db" ] || die 3 "$data has no data of a member: give a snapshot"
    facts='- as-it-is as-it-is'
    [ "$step" != none ] || check_room "$(wc -c <"$data/member/snap/db")"
    check_quorum
}

check_room() {
    needed=$(($1 * 2 / 1024 + 262144))
    [ "$(free_space "$data")" -ge "$needed" ] || die 3 "$data has $(($(free_space "$data") / 1024)) MiB free, and $((needed / 1024)) are needed: what was there is kept"
}

# A quorum that is there has newer data than any snapshot; others that are one go on without us.
check_quorum() {
    [ "$step" = none ] || return 0
    healthy='' others=0
    for endpoint in $ETCD_ENDPOINTS; do
        is_quorate "$endpoint" || continue
        healthy="$healthy $endpoint"
        [ "$endpoint" = "$(own_endpoint)" ] || others=$((others + 1))
    done
    [ -n "$healthy" ] || return 0
    [ "$replace" = yes ] || die 3 "etcd has a quorum (${healthy# }), and newer data than the snapshot: a member alone is mended with --join; --replace-healthy gives up what was written since"
    # shellcheck disable=SC2086 # a list of endpoints
    set -- $ETCD_ENDPOINTS
    [ "$others" -lt $(($# / 2 + 1)) ] || die 3 "the others are a quorum without this member, and would go on as the old cluster: stop etcd and kube-apiserver there first (systemctl stop kube-apiserver etcd)"
}

# Only a cluster that can take a member in; and not the one that this member is in already, or on its
# way in, since etcd-start.sh joins by itself where there are no data.
check_join() {
    [ "$step" != placed ] || return 0
    check_begun=$(now)
    until find_way; do
        [ $(($(now) - check_begun)) -lt "${PATIENCE:-20}" ] ||
            die 3 "no other member has a quorum to join ($(other_endpoints | tr '\n' ' ')): restore.sh SNAPSHOT on one of them first"
        sleep 1
    done
    [ "$step" = none ] || return 0
    # Whether it serves is asked before who is in its cluster: one that comes up meanwhile is no stranger.
    own_quorum=no
    ! is_quorate "$(own_endpoint)" || own_quorum=yes
    view "$(own_endpoint)" | awk '{ print $1 }' >"$work/own-ids"
    view "$via" | awk '{ print $1 }' >"$work/ids"
    if grep -qxFf "$work/own-ids" "$work/ids" || { is_counted_in "$via" && ! has_log; }; then
        say "etcd here is a member of the cluster of $via already, or about to be"
        leave_etcd_alone
    elif [ "$own_quorum" = yes ]; then
        { [ -s "$work/own-ids" ] && [ -s "$work/ids" ]; } || die 3 "etcd here or at $via does not say who is in its cluster: run it again"
        die 3 "etcd here has a quorum of its own, and $via is of another cluster: two clusters run"
    fi
}

# Sets via: a member with a quorum, or one whose cluster lacks but this host, which it has taken in.
find_way() {
    for via in $(other_endpoints); do
        if { is_counted_in "$via" && ! has_log; } || is_quorate "$via"; then return 0; fi
    done
    via=''
    return 1
}

has_log() { for log in "${wal:-$data/member/wal}"/*.wal; do [ ! -f "$log" ] || return 0; done; return 1; }

# is_counted_in CLIENT-URL: does that member, by its own view, know this host as one that never served?
is_counted_in() { view "$1" | grep -q " $peer -\$"; }

print_plan() {
    # shellcheck disable=SC2086 # words
    set -- ${facts:-}
    say "stop     $(printf '%s\n' "$stopped" | sed 's/^ //')"
    [ "$step" = placed ] || [ ! -d "$data/member" ] || is_moved || say "keep     $data/member as $aside${wal_aside:+, $wal as $wal_aside}"
    [ "$step" = placed ] || case $mode in
        snapshot) say "restore  $snapshot (revision $2, $3 keys) as a cluster of $NODE alone${RESTORE_FLAGS:+, with $RESTORE_FLAGS}" ;;
        member) say "restore  the data of this member as a cluster of $NODE alone${RESTORE_FLAGS:+, with $RESTORE_FLAGS}" ;;
        join) say "join     the cluster of ${via:-which it was begun with} as a new member, with its data" ;;
    esac
    say "start    $(printf '%s\n' "$units" | sed 's/^ //')"
}

begin() {
    [ "$step" != none ] || set_step begun
    note "restore.sh: $mode begun, $source"
}

# In reverse order.
stop_units() {
    backwards=''
    for unit in $stopped; do backwards="$unit $backwards"; done
    [ -n "$backwards" ] || return 0
    say "  stopping $backwards"
    # shellcheck disable=SC2086 # a list of units
    systemctl stop $backwards || die 1 "systemctl stop failed"
}

prepare_snapshot() { [ "$step" != begun ] || make_data "$snapshot"; }

prepare_member() {
    [ "$step" = begun ] || return 0
    [ -n "$(read_snapshot "$data/member/snap/db")" ] || die 1 "$data/member/snap/db is damaged: $(tail -n 1 "$work/status.log"); restore a snapshot"
    make_data "$data/member/snap/db" --skip-hash-check # a digest is in snapshots only
}

# It may have joined by itself a moment before it was stopped. The cluster counts on it then: its data
# must stay where without it there is no quorum, and elsewhere it must not be a member any more, since
# one that comes back without what it has confirmed harms the others.
prepare_join() {
    [ "$step" = begun ] || return 0
    prepare_begun=$(now)
    until is_quorate "$via"; do
        if view "$via" | grep -q " $peer "; then
            say "  without this member the cluster of $via has no quorum: it is one of it already"
            set_step placed
            return 0
        fi
        [ $(($(now) - prepare_begun)) -lt "$limit" ] || die 1 "the cluster of $via has lost its quorum: the same command again goes on"
        sleep 1
    done
    listed=$(etcd_at "$via" member list -w simple | awk -F', ' -v url="$peer" '$4 == url { print $1 }')
    [ -z "$listed" ] || [ ! -d "$data/member" ] || etcd_at "$via" member remove "$listed" >/dev/null || die 1 "the cluster of $via does not give up the old member $listed: run it again"
    set_step made
}

# make_data SNAPSHOT [OPTION...]: beside its place, whole before anything moves.
make_data() {
    from=$1
    shift
    { rm -rf "$new" ${wal:+"$wal.restoring"} && mkdir -p "$data"; } || die 1 "cannot write $data"
    # shellcheck disable=SC2086 # flags
    ETCDCTL_API=3 "$SNAPSHOT_TOOL" snapshot restore "$from" --name="$NODE" --initial-cluster="$NODE=$peer" \
        --initial-advertise-peer-urls="$peer" --initial-cluster-token="$CLUSTER-restored-$stamp" --data-dir="$new" \
        ${wal:+--wal-dir="$wal.restoring"} $RESTORE_FLAGS "$@" >"$work/restore.log" 2>&1 || die 1 "the snapshot cannot be restored: $(tail -n 1 "$work/restore.log")"
    sync
    set_step made
}

# Each move by itself is whole, and is not done twice. The member comes last: with it etcd has data.
put_in_place() {
    [ "$step" = made ] || return 0
    [ "$mode" != join ] || rm -rf "$new" ${wal:+"$wal.restoring"} # of a restore that was given up
    if [ -n "$wal" ] && is_awaited "$wal.restoring"; then
        [ ! -d "$wal" ] || rmdir "$wal" 2>/dev/null || [ -e "$wal_aside" ] || move "$wal" "$wal_aside"
        [ ! -d "$wal.restoring" ] || move "$wal.restoring" "$wal"
    fi
    if [ -d "$data/member" ] && [ ! -e "$aside" ] && is_awaited "$new/member"; then move "$data/member" "$aside"; fi
    if [ -d "$new/member" ]; then move "$new/member" "$data/member"; fi
    rm -rf "$new"
    sync
    set_step placed
}

# is_awaited NEW: are the data in its place still the old ones? NEW is gone when it has been moved there.
is_awaited() { [ "$mode" = join ] || [ -d "$1" ]; }
is_moved() { [ "$step" = made ] && ! is_awaited "$new/member"; }

move() { mv "$1" "$2" || die 1 "cannot move $1 to $2"; }

start_etcd() {
    say "  starting etcd"
    systemctl --no-block start etcd.service || die 1 "systemctl start etcd.service failed"
    await "etcd" is_quorate "$(own_endpoint)"
}

start_clients() {
    for unit in $units; do
        [ "$unit" != etcd.service ] || continue
        say "  starting $unit"
        systemctl --no-block start "$unit" || die 1 "systemctl start $unit failed"
    done
    case "$units" in *kube-apiserver*) is_staged || await "the API server" ready_kube_apiserver ;; esac
}

# await WHAT COMMAND...
await() {
    what=$1 await_begun=$(now)
    shift
    until "$@" >/dev/null 2>&1; do
        [ $(($(now) - await_begun)) -lt "$limit" ] ||
            die 1 "$what is not well after $limit s: journalctl -u etcd -u kube-apiserver -n 50; the same command again goes on waiting"
        sleep 1
    done
    say "  $what is well ($(($(now) - await_begun)) s)"
}

print_next_snapshot() {
    say "$NODE: etcd has the snapshot's data, and is a cluster of this member alone. Now, in this order:"
    for endpoint in $(other_endpoints); do say "  on the host of $endpoint: /opt/k8s/bundle/restore.sh --join --yes"; done
    say "  on control planes without etcd: systemctl restart kube-apiserver kube-controller-manager kube-scheduler"
    if [ -n "$RESTORE_FLAGS" ]; then
        say "  (workers notice by themselves: revisions go on where nobody has seen one)"
    else
        say "  on every worker: systemctl restart kubelet kube-proxy (this etcd counts revisions from the snapshot's on: who watches would not see them)"
        say "  and once: kubectl -n kube-system rollout restart deployment, and whatever else watches the API from a pod"
    fi
    say "  last: /opt/k8s/bundle/verify.sh. When all is well the old data may go: rm -r $aside${wal_aside:+ $wal_aside}"
}
print_next_member() { print_next_snapshot; }
print_next_join() { say "$NODE: etcd is a member again. When all is well the old data may go: rm -rf $aside${wal_aside:+ $wal_aside}"; }

main "$@"
