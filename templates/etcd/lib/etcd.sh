# What backup.sh and restore.sh know of etcd: how to ask it, and what a snapshot is.
# needs: live prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

own_endpoint() { printf 'https://%s:2379\n' "$ADDRESS"; }
other_endpoints() { printf '%s\n' "$ETCD_ENDPOINTS" | tr ' ' '\n' | grep -vxF "$(own_endpoint)"; }

# etcd_at ENDPOINT WORD...: what this member of etcd answers.
etcd_at() {
    at=$1
    shift
    ETCDCTL_API=3 timeout "${ETCD_TIMEOUT:-12}" etcdctl --endpoints="$at" --cacert="$prefix/etc/etcd/pki/ca.crt" \
        --cert="$prefix/etc/etcd/pki/healthcheck-client.crt" --key="$prefix/etc/etcd/pki/healthcheck-client.key" \
        --dial-timeout=3s --command-timeout="$((${ETCD_TIMEOUT:-12} - 4))s" "$@"
}

# view CLIENT-URL: "ID PEER-URL CLIENT-URL" of all members, as this one says to its peers; it need not
# have a quorum. etcd keeps these connections open, so the time is always used up.
view() {
    host=${1#https://}
    HTTPS_TIMEOUT=2 https_get "${host%:*}" 2380 /members "$prefix/etc/etcd/pki/ca.crt" "$prefix/etc/etcd/pki/peer.crt" "$prefix/etc/etcd/pki/peer.key" |
        tr '{' '\n' | sed -n '/"clientURLs":\["/!s/$/"clientURLs":["-"/; s/.*"id":\([0-9]*\).*"peerURLs":\["\([^"]*\)".*"clientURLs":\["\([^"]*\)".*/\1 \2 \3/p'
}

# A read needs a quorum. Of one that is not there etcdctl waits for as long as it may; so it is looked
# first whether somebody is.
is_quorate() { [ -n "$(view "$1")" ] && etcd_at "$1" get bundler/quorum --keys-only >/dev/null 2>&1; }

# "HASH REVISION KEYS BYTES" of a snapshot, or nothing where it is none.
read_snapshot() { ETCDCTL_API=3 "$SNAPSHOT_TOOL" snapshot status "$1" -w simple 2>"$work/status.log" | awk -F', ' 'NF >= 4 { print $1, $2, $3, $4; exit }'; }

# KiB that are free where a path is, or will be.
free_space() {
    place=$1
    while [ ! -d "$place" ]; do place=${place%/*}; [ -n "$place" ] || place=/; done
    df -Pk "$place" | awk 'NR == 2 { print $4 }'
}

# is_mounted PATH: is something mounted exactly there?
is_mounted() { awk -v path="$(printf '%s' "$1" | sed 's/ /\\040/g')" '$2 == path { found = 1 } END { exit !found }' "$live/proc/self/mounts"; }
