#!/bin/sh
# Start etcd. If this host has no data yet, the other members decide whether it creates a cluster or joins.
#
# Usage: etcd-start.sh FLAG...              run by etcd.service; it ends with exec /opt/k8s/bin/etcd FLAG...
#
#   it has data                     start with that data
#   no member answers               the initial members create the cluster together; a member that was added
#                                   later waits
#   others create a cluster too     create it together
#   a cluster answers               join it: as the listed member that never started, else as a new member. A
#                                   member with this name or address that has run, and whose data is lost, is
#                                   removed first
#   a cluster without quorum        wait: only a quorum may change the members
#
# /etc/etcd/members.tsv has the planned members. They are not flags of the unit, so that a new member does not
# restart the others: running members know each other from their data.
#
# Why etcd's own logic is not enough: with --initial-cluster-state=new and no data, etcd asks the others and
# stops with "has already been bootstrapped", but only if one answers that knows this member under its first
# ID. A replaced member has another ID, a member that was added later has none, and if no member answers, etcd
# creates a cluster. Two of three hosts that lost their disks would be a quorum of a new, empty cluster, in
# addition to the one that has the data. So this script uses two facts that etcd does not have: the initial
# members (members.tsv), and that this host was a member (/var/lib/bundler/etcd-member, written once etcd was
# ready).
#
# It runs as the user etcd, and sees of /var/lib/bundler these two files, as they were when the unit started
# (unit-files.sh): who changes them starts etcd again.
#
# After a kill at any moment the next start completes the work: every step is decided from what the cluster
# reports then. If two members join at once, etcd adds one, and the other tries again.
#
# DESTDIR    prepended to the paths of installed files
# PAUSE      seconds between two tries (default 5)
set -u
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
planned=$prefix/etc/etcd/members.tsv
pki=$prefix/etc/etcd/pki
restoring=$prefix/var/lib/bundler/restore
was_member=$prefix/var/lib/bundler/etcd-member
libexec=$prefix/opt/k8s/libexec
last_message=''
for part in environment https; do
    # shellcheck source=/dev/null # parts of the installed bundle
    . "$prefix/opt/k8s/bundle/lib/core/$part.sh" || exit 1
done

main() {
    read_flags "$@"
    while is_restoring; do
        say "waiting: a restore was interrupted: run the same restore.sh again"
        sleep "${PAUSE:-5}"
    done
    if has_log; then
        state=new cluster=$(list_initial_members) # etcd ignores both if it has data
    else
        back_up_database
        until decide; do sleep "${PAUSE:-5}"; done
    fi
    new_wal=$(choose_new_wal)
    exec etcd "$@" ${new_wal:+"--wal-dir=$new_wal"} --initial-cluster="$cluster" --initial-cluster-state="$state"
}

# Print a message, unless it is the same as the last one.
say() {
    [ "$last_message" != "$*" ] || return 0
    last_message=$*
    echo "etcd-start.sh: $*" >&2
}

read_flags() {
    name='' data_dir='' wal_dir='' peer_url=''
    for flag; do
        case $flag in
            --name=*) name=${flag#*=} ;;
            --data-dir=*) data_dir=${flag#*=} ;;
            --wal-dir=*) wal_dir=${flag#*=} ;;
            --initial-advertise-peer-urls=*) peer_url=${flag#*=} ;;
        esac
    done
    [ -n "$name" ] && [ -n "$data_dir" ] && [ -n "$peer_url" ] && return 0
    echo "usage: etcd-start.sh --name=NAME --data-dir=DIR --initial-advertise-peer-urls=URL [FLAG...]" >&2
    exit 2
}

# restore.sh writes its steps to this file; before "placed" the data is incomplete.
is_restoring() { [ -f "$restoring" ] && ! grep -q ' placed$' "$restoring"; }

# etcd too decides by its log whether it has been a member (wal.Exist). The directory alone exists after a
# failed start, too.
has_log() {
    for log in "${wal_dir:-$data_dir/member/wal}"/*.wal ${wal_dir:+"$wal_dir"/wal/*.wal}; do
        [ ! -f "$log" ] || return 0
    done
    return 1
}

# etcd makes a log next to its place, and renames it. The user etcd may write in the directory of the log and not above
# it: a new log is in its subdirectory. One that root made stays where it is.
choose_new_wal() {
    [ -n "$wal_dir" ] || return 0
    for log in "$wal_dir"/*.wal; do [ ! -f "$log" ] || return 0; done
    printf '%s\n' "$wal_dir/wal"
}

# A database without its log cannot be used by a joining member: back it up. etcd creates one of about 20 KB
# before it knows whether it can start; that one is not kept.
back_up_database() {
    database=$data_dir/member/snap/db
    [ -f "$database" ] && [ "$(wc -c <"$database")" -gt 65536 ] || return 0
    say "$data_dir has a database without its log: it is moved to $data_dir/member.without-log"
    rm -rf "$data_dir/member.without-log"
    mv "$data_dir/member" "$data_dir/member.without-log" || exit 1
}

# Set state and cluster, or say what this host waits for and return 1.
decide() {
    ask_members
    if [ "$clusters" -gt 1 ]; then
        say "two clusters answer: $via and others. Decide which one is right, and stop etcd on the hosts of the other"
        return 1
    fi
    if [ -n "$quorate" ]; then
        join
    elif [ -n "$formed" ]; then
        join_without_quorum
    elif [ -n "$unread" ]; then
        say "waiting: $unread, so it is unknown whether there is a cluster already"
        return 1
    else
        create
    fi
}

# Ask all planned members. Sets views of the cluster, lines of "ID NAME PEER-URLS CLIENT-URLS", with - for
# nothing:
#   formed     of a member that knows members that have started: there was a quorum once
#   quorate    of a member that can read with a quorum now; via is its client URL
# and clusters: how many clusters with a quorum answer; unexpected: the peer URL of a member that creates a
# cluster of other members; unread: which member answers and cannot be read, and why.
ask_members() {
    formed='' quorate='' via='' unexpected='' unread='' clusters=0
    # shellcheck disable=SC2013 # a word a line
    for other in $(awk -F'\t' -v url="$peer_url" '$2 != url { print $2 "|" $3 }' "$planned"); do
        view=$(ask_peer "${other%|*}") || {
            unread="${other%|*} answers and cannot be read ($view)"
            continue
        }
        [ -n "$view" ] || continue
        if ! printf '%s\n' "$view" | awk '$4 != "-" { found = 1 } END { exit !found }'; then
            has_only_initial_members "$view" || unexpected=${other%|*}
            continue
        fi
        formed=$view
        view=$(ask_with_quorum "${other#*|}") || continue
        has_common_member "$quorate" "$view" || clusters=$((clusters + 1))
        quorate=$view via=${other#*|}
    done
}

# ask_peer PEER-URL: the view of this member, which it gives from its start on; nothing if nobody answers. Returns 1 and
# prints why if it answers and cannot be read. etcd does not close the connection for 5 s, so each call takes the two
# seconds. A slow member must not be taken for a missing one (a new cluster might be created), so there is a second,
# longer try.
ask_peer() {
    peer=${1#https://}
    # shellcheck disable=SC2034 # read by https_get
    for HTTPS_TIMEOUT in 2 8; do
        answer=$(https_get "${peer%:*}" "${peer##*:}" /members "$pki/ca.crt" "$pki/peer.crt" "$pki/peer.key")
        members=$(printf '%s\n' "$answer" | awk 'NR == 1 && $1 != 200 { exit } NR > 1 && /\]$/')
        [ -z "$members" ] || break
    done
    if [ -n "$members" ]; then
        printf '%s\n' "$members" | tr '{' '\n' | awk -f "$libexec/etcd-members.awk"
        return 0
    fi
    reason=$(describe_answer "$answer")
    is_absent "$reason" && return 0
    printf '%s\n' "$reason"
    return 1
}

# ask_with_quorum CLIENT-URL: the view of this member after a read, which needs a quorum and makes the member
# catch up. Before etcd 3.5 the list of members alone does neither.
ask_with_quorum() {
    etcdctl_at "$1" get bundler/quorum --keys-only >/dev/null 2>&1 || return 1
    list=$(etcdctl_at "$1" member list -w simple 2>/dev/null) || return 1
    printf '%s\n' "$list" | awk -F', ' 'NF >= 4 { print $1, $3 == "" ? "-" : $3, $4, $5 == "" ? "-" : $5 }'
}

etcdctl_at() {
    endpoint=$1
    shift
    ETCDCTL_API=3 timeout 12 etcdctl --endpoints="$endpoint" --cacert="$pki/ca.crt" \
        --cert="$pki/healthcheck-client.crt" --key="$pki/healthcheck-client.key" \
        --dial-timeout=3s --command-timeout=8s "$@"
}

# has_common_member VIEW VIEW: do both views have a member ID in common? False if one is empty.
has_common_member() {
    printf '%s\n' "$1" '' "$2" | awk '
        NF == 0 { second = 1; next }
        !second { known[$1] = 1; next }
        $1 in known { found = 1 }
        END { exit !found }'
}

# has_only_initial_members VIEW: are its members exactly the initial ones?
has_only_initial_members() {
    [ "$(printf '%s\n' "$1" | awk '{ print $3 }' | sort)" = \
        "$(awk -F'\t' '$4 == "founder" { print $2 }' "$planned" | sort)" ]
}

# The initial members are marked "founder" in the fourth column: NAME=PEER-URL,NAME=PEER-URL
list_initial_members() {
    awk -F'\t' '$4 == "founder" { printf "%s%s=%s", comma, $1, $2; comma = "," }' "$planned"
}

# No member knows of a cluster that has started.
create() {
    if [ -n "$unexpected" ]; then
        say "waiting: $unexpected creates a cluster of other members than those in $planned:" \
            "install bundles of the same build on all hosts"
    elif ! list_initial_members | tr ',' '\n' | grep -qxF "$name=$peer_url"; then
        say "waiting: this member was added to a cluster, and no member of it answers"
    elif [ -f "$was_member" ]; then
        say "waiting: this host was a member, and its data in $data_dir is lost:" \
            "it joins as soon as others have a quorum." \
            "If all data is lost: /opt/k8s/bundle/restore.sh; if no data is to be kept:" \
            "rm $was_member && systemctl restart etcd"
    else
        say "no cluster answers: creating a new one with $(list_initial_members)"
        state=new cluster=$(list_initial_members)
        return 0
    fi
    return 1
}

# A cluster with a quorum answers: change its members, if needed, and join.
join() {
    stale=$(printf '%s\n' "$quorate" | awk -v name="$name" -v url="$peer_url" '
        ($3 == url && $4 != "-") || ($3 != url && $2 == name) { print $1; exit }')
    if [ -n "$stale" ]; then
        say "member $stale of $via was this host, and its data is lost: removing it"
        change member remove "$stale"
        return 1 # decide again: it is not listed any more
    fi
    if ! is_listed "$quorate"; then
        say "adding this host to the cluster of $via"
        change member add "$name" --peer-urls="$peer_url" || return 1
    fi
    set_cluster "$quorate"
}

# A cluster without a quorum cannot be changed. If this member is listed and never started, it must start:
# the quorum may need it.
join_without_quorum() {
    if is_listed "$formed" -; then
        set_cluster "$formed"
        return $?
    fi
    say "waiting: a cluster answers, but has no quorum, and only a quorum can add this host:" \
        "start its other members (if they are lost: /opt/k8s/bundle/restore.sh)"
    return 1
}

# is_listed VIEW [CLIENT-URLS]
is_listed() {
    printf '%s\n' "$1" | awk -v url="$peer_url" -v client="${2:-}" '
        $3 == url && (client == "" || $4 == client) { found = 1 }
        END { exit !found }'
}

# set_cluster VIEW: etcd needs the existing members and this one, each with a unique name.
set_cluster() {
    state=existing
    cluster=$(printf '%s\n' "$1" | awk -v name="$name" -v url="$peer_url" '
        $3 == url { next }
        {
            n = split($3, urls, ",")
            for (i = 1; i <= n; i++) printf "%s=%s,", ($2 == "-" || $2 == name ? $1 : $2), urls[i]
        }
        END { printf "%s=%s", name, url }')
    say "joining the cluster with $cluster"
}

change() {
    reason=$(etcdctl_at "$via" "$@" 2>&1 >/dev/null) && return 0
    say "the cluster refused ($1 $2), trying again: $(printf '%s\n' "$reason" | sed -n '$p')"
    return 1
}

main "$@"
