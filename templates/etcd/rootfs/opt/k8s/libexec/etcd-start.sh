#!/bin/sh
# Start etcd as the member that it is; where it has no data yet, as what the other members say.
#
# Usage: etcd-start.sh FLAG...              by etcd.service; it ends as /opt/k8s/bin/etcd FLAG...
#
#   with data             it just starts
#   nobody answers        founders begin the new cluster together; who was added later waits
#   others begin a        so does this one
#     new cluster too
#   a cluster answers     it joins: as the member that is listed and never ran, else as a new one; a
#                         member of its name or address that did run, and whose data are gone, is
#                         removed first
#   it answers, but has   it waits: only a quorum may say who is a member
#     no quorum
#
# /etc/etcd/members.tsv has the planned members. They are no flags of the unit, so that one more of
# them is no reason to restart the others: members that run know one another from their data.
#
# What etcd would do by itself is not enough. Started with --initial-cluster-state=new and no data it
# asks the others too, and ends with "has already been bootstrapped", but only where one answers that
# knows the member under the ID of the first day. A member that was replaced has another ID; members
# that came later have none; and where nobody answers it begins. Two hosts of three that lost their
# disks would so be a quorum of a new and empty cluster, beside the one that still has the data.
# Hence two things that etcd does not know: who founded the cluster (members.tsv), and that this host
# has been a member (/var/lib/bundler/etcd-member, once etcd was ready).
#
# A kill at any moment is healed by the next start: every step is decided anew from what the cluster
# says then. Of two members that join at once etcd takes one, and the other tries again.
#
# DESTDIR    put before the paths of installed files
# PAUSE      seconds between two looks (default 5)
set -u
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
planned=$prefix/etc/etcd/members.tsv
pki=$prefix/etc/etcd/pki
restoring=$prefix/var/lib/bundler/restore
was_member=$prefix/var/lib/bundler/etcd-member
told=''
# shellcheck source=/dev/null # a part of the installed bundle
. "$prefix/opt/k8s/bundle/lib/core/https.sh" || exit 1

main() {
    read_flags "$@"
    while is_restoring; do
        say "waiting: a restore was cut short: run the same restore.sh again"
        sleep "${PAUSE:-5}"
    done
    if has_log; then
        state=new cluster=$(list_founders) # etcd reads neither: its data tell
    else
        set_aside
        until decide; do sleep "${PAUSE:-5}"; done
    fi
    exec etcd "$@" --initial-cluster="$cluster" --initial-cluster-state="$state"
}

# Each line once, until it is another.
say() {
    [ "$told" != "$*" ] || return 0
    told=$*
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
    [ -n "$name" ] && [ -n "$data_dir" ] && [ -n "$peer_url" ] && return
    echo "usage: etcd-start.sh --name=NAME --data-dir=DIR --initial-advertise-peer-urls=URL [FLAG...]" >&2
    exit 2
}

# Data that are half in place: restore.sh says when they are whole.
is_restoring() { [ -f "$restoring" ] && ! grep -q ' placed$' "$restoring"; }

# It is by its log that etcd knows whether it has been a member (wal.Exist); the directory is there
# after a start that failed, too.
has_log() {
    for log in "${wal_dir:-$data_dir/member/wal}"/*.wal; do [ ! -f "$log" ] || return 0; done
    return 1
}

# A database whose log is lost fits nothing that the cluster would send. etcd makes one of some 20 KB
# before it knows whether it can start.
set_aside() {
    database=$data_dir/member/snap/db
    [ -f "$database" ] && [ "$(wc -c <"$database")" -gt 65536 ] || return 0
    say "$data_dir has a database, but its log is gone: it is kept in $data_dir/member.without-log"
    rm -rf "$data_dir/member.without-log"
    mv "$data_dir/member" "$data_dir/member.without-log" || exit 1
}

# Sets state and cluster; or says what is waited for.
decide() {
    survey
    if [ "$clusters" -gt 1 ]; then
        say "two clusters answer: $via and others. Which one is right no program can know: stop etcd on the hosts of the other"
        return 1
    fi
    if [ -n "$quorate" ]; then join; elif [ -n "$formed" ]; then join_without_quorum; else found; fi
}

# Views of the cluster, lines of "ID NAME PEER-URLS CLIENT-URLS" with a - where there is nothing:
#   formed    of one that knows of members that have served, so that there was a quorum once
#   quorate   of one that can read with a quorum right now; via is its client URL
#   strange   the peer URL of one that begins a cluster of other members
survey() {
    formed='' quorate='' via='' strange='' clusters=0
    # shellcheck disable=SC2013 # a word a line
    for other in $(awk -F'\t' -v url="$peer_url" '$2 != url { print $2 "|" $3 }' "$planned"); do
        view=$(ask_peer "${other%|*}")
        [ -n "$view" ] || continue
        if ! printf '%s\n' "$view" | awk '$4 != "-" { found = 1 } END { exit !found }'; then
            is_founding "$view" || strange=${other%|*}
            continue
        fi
        formed=$view
        view=$(ask_quorum "${other#*|}") || continue
        has_common_member "$quorate" "$view" || clusters=$((clusters + 1))
        quorate=$view via=${other#*|}
    done
}

# ask_peer PEER-URL: in its own view, which every member gives from its start on. etcd keeps these
# connections open for 5 s, so the time is always used up; but to be slow is not to be silent: on
# silence a new cluster may be begun.
ask_peer() {
    peer=${1#https://}
    # shellcheck disable=SC2034 # by https_get
    for HTTPS_TIMEOUT in 2 8; do
        answer=$(https_get "${peer%:*}" "${peer##*:}" /members "$pki/ca.crt" "$pki/peer.crt" "$pki/peer.key" | awk 'NR == 1 && $1 != 200 { exit } NR > 1 && /\]$/')
        [ -z "$answer" ] || break
    done
    printf '%s\n' "$answer" | tr '{' '\n' | awk '
            function value(key) {
                if (!match($0, "\"" key "\":(\\[[^]]*\\]|\"[^\"]*\"|[0-9]+)")) return "-"
                text = substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
                gsub(/[]["]/, "", text)
                return text == "" ? "-" : text
            }
            /"id":/ { print value("id"), value("name"), value("peerURLs"), value("clientURLs") }'
}

# ask_quorum CLIENT-URL: a read needs a quorum, and brings this member up to date; before 3.5 the list
# of members by itself does neither.
ask_quorum() {
    etcdctl_at "$1" get bundler/quorum --keys-only >/dev/null 2>&1 || return 1
    list=$(etcdctl_at "$1" member list -w simple 2>/dev/null) || return 1
    printf '%s\n' "$list" | awk -F', ' 'NF >= 4 { print $1, $3 == "" ? "-" : $3, $4, $5 == "" ? "-" : $5 }'
}

etcdctl_at() {
    endpoint=$1
    shift
    ETCDCTL_API=3 timeout 12 etcdctl --endpoints="$endpoint" --cacert="$pki/ca.crt" --cert="$pki/healthcheck-client.crt" \
        --key="$pki/healthcheck-client.key" --dial-timeout=3s --command-timeout=8s "$@"
}

# Two views of one cluster; of nothing and a first one: no.
has_common_member() {
    printf '%s\n' "$1" '' "$2" | awk 'NF == 0 { second = 1; next } !second { known[$1] = 1; next } $1 in known { found = 1 } END { exit !found }'
}

# Are these the founders, and nobody else?
is_founding() {
    [ "$(printf '%s\n' "$1" | awk '{ print $3 }' | sort)" = "$(awk -F'\t' '$4 == "founder" { print $2 }' "$planned" | sort)" ]
}

list_founders() { awk -F'\t' '$4 == "founder" { printf "%s%s=%s", comma, $1, $2; comma = "," }' "$planned"; }

# Nobody knows of a cluster that has served.
found() {
    if [ -n "$strange" ]; then
        say "waiting: $strange begins a cluster of other members than $planned names: are all bundles of one build?"
    elif ! list_founders | tr ',' '\n' | grep -qxF "$name=$peer_url"; then
        say "waiting: this member was added to a cluster, of which no member answers"
    elif [ -f "$was_member" ]; then
        say "this host has been a member, and its data in $data_dir are gone: it joins as soon as others are a quorum." \
            "If all are lost: /opt/k8s/bundle/restore.sh; if nothing is to be kept: rm $was_member"
    else
        say "no cluster answers: beginning a new one with $(list_founders)"
        state=new cluster=$(list_founders)
        return 0
    fi
    return 1
}

# A cluster serves: it is changed, or is as it must be.
join() {
    stale=$(printf '%s\n' "$quorate" | awk -v name="$name" -v url="$peer_url" '($3 == url && $4 != "-") || ($3 != url && $2 == name) { print $1; exit }')
    if [ -n "$stale" ]; then
        say "member $stale of $via was this host, and its data are gone: removing it"
        change member remove "$stale"
        return 1 # decide anew: it is not listed now
    fi
    if ! is_listed "$quorate"; then
        say "adding this host to the cluster of $via"
        change member add "$name" --peer-urls="$peer_url" || return 1
    fi
    take_part "$quorate"
}

# A cluster that has no quorum cannot be changed. Where this member is what it lacks (it was added or
# counted in, and never ran), its start is what everybody waits for.
join_without_quorum() {
    if is_listed "$formed" -; then take_part "$formed"; return; fi
    say "waiting: a cluster answers, but it has no quorum, and only a quorum may take this host in: start its other members (if they are lost: /opt/k8s/bundle/restore.sh)"
    return 1
}

# is_listed VIEW [CLIENT-URLS]
is_listed() { printf '%s\n' "$1" | awk -v url="$peer_url" -v client="${2:-}" '$3 == url && (client == "" || $4 == client) { found = 1 } END { exit !found }'; }

# What etcd wants to hear: the members that are there, and this one, each under a name of its own.
take_part() {
    state=existing
    cluster=$(printf '%s\n' "$1" | awk -v name="$name" -v url="$peer_url" '
        $3 == url { next }
        { n = split($3, urls, ","); for (i = 1; i <= n; i++) printf "%s=%s,", $2 == "-" || $2 == name ? $1 : $2, urls[i] }
        END { printf "%s=%s", name, url }')
    say "joining the cluster as one of $cluster"
}

change() {
    reason=$(etcdctl_at "$via" "$@" 2>&1 >/dev/null) && return
    say "the cluster does not take it yet ($1 $2): $(printf '%s\n' "$reason" | sed -n '$p')"
    return 1
}

main "$@"
