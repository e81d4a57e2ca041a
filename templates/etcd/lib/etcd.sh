# What backup.sh and restore.sh share: requests to etcd, snapshots, free disk space.
# needs: here live prefix work
# sets: unread
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

own_endpoint() { printf 'https://%s:2379\n' "$ADDRESS"; }
other_endpoints() {
    for etcd_endpoint in $ETCD_ENDPOINTS; do
        [ "$etcd_endpoint" = "$(own_endpoint)" ] || printf '%s\n' "$etcd_endpoint"
    done
}

# etcd_at ENDPOINT WORD...: etcdctl at this member, with a time limit of ETCD_TIMEOUT seconds (default 12).
etcd_at() {
    at=$1
    shift
    etcd_pki=$prefix/etc/etcd/pki
    ETCDCTL_API=3 timeout "${ETCD_TIMEOUT:-12}" etcdctl --endpoints="$at" --cacert="$etcd_pki/ca.crt" \
        --cert="$etcd_pki/healthcheck-client.crt" --key="$etcd_pki/healthcheck-client.key" \
        --dial-timeout=3s --command-timeout="$((${ETCD_TIMEOUT:-12} - 4))s" "$@"
}

# view CLIENT-URL: "ID PEER-URL CLIENT-URL" of all members, as this member sees them; without a quorum too.
# The client URL is - for a member that never started. etcd does not close the connection, so each call
# takes the two seconds.
view() {
    host=${1#https://}
    etcd_pki=$prefix/etc/etcd/pki
    HTTPS_TIMEOUT=2 https_get "${host%:*}" 2380 /members \
        "$etcd_pki/ca.crt" "$etcd_pki/peer.crt" "$etcd_pki/peer.key" |
        tr '{' '\n' | sed -n '/"clientURLs":\["/!s/$/"clientURLs":["-"/
            s/.*"id":\([0-9]*\).*"peerURLs":\["\([^"]*\)".*"clientURLs":\["\([^"]*\)".*/\1 \2 \3/p'
}

# has_quorum CLIENT-URL: a read needs a quorum. Returns 0 if it has one, 1 if it has none or nobody answers, and 2 if
# the member answers and cannot be read: then nobody knows, and `unread` says why.
has_quorum() {
    # etcdctl comes second, because it waits for its whole time limit if no member is there
    etcd_answer=$(get_from_member "$1" 2380 /members peer)
    case $etcd_answer in
        200*) ;;
        *)
            unread=$(describe_answer "$etcd_answer")
            is_absent "$unread" && return 1
            return 2
            ;;
    esac
    unread=$(etcd_at "$1" get bundler/quorum --keys-only 2>&1) && return 0
    unread=$(printf '%s\n' "$unread" | tail -n 1)
    # A wrong certificate, a proxy or a missing etcdctl look like a lost quorum to etcdctl, and an alarm does to
    # /health.
    ! get_from_member "$1" "${1##*:}" /metrics healthcheck-client | grep -qx 'etcd_server_has_leader 0' || return 1
    return 2
}

# get_from_member CLIENT-URL PORT PATH CERTIFICATE: the answer of https_get. A slow member must not be taken for a
# missing one, so there is a second, longer try.
get_from_member() {
    host=${1#https://}
    etcd_pki=$prefix/etc/etcd/pki
    for HTTPS_TIMEOUT in 2 8; do
        etcd_answer=$(https_get "${host%:*}" "$2" "$3" "$etcd_pki/ca.crt" "$etcd_pki/$4.crt" "$etcd_pki/$4.key")
        case $etcd_answer in *'no answer within'*) ;; *) break ;; esac
    done
    printf '%s\n' "$etcd_answer"
}

# read_snapshot FILE: "HASH REVISION KEYS BYTES", or nothing if it is damaged (see $work/status.log).
read_snapshot() {
    ETCDCTL_API=3 "$SNAPSHOT_TOOL" snapshot status "$1" -w simple 2>"$work/status.log" |
        awk -F', ' 'NF >= 4 { print $1, $2, $3, $4; exit }'
}

# free_space PATH: KiB that are free where the path is, or will be.
free_space() {
    existing=$1
    while [ ! -d "$existing" ]; do
        existing=${existing%/*}
        [ -n "$existing" ] || existing=/
    done
    df -Pk "$existing" | awk 'NR == 2 { print $4 }'
}

# is_mounted PATH: is the path itself a mount point?
is_mounted() {
    BELOW=$(readlink -f "$1") MADE='' awk -f "$here/lib/transaction/mount-points.awk" "$live/proc/self/mountinfo" |
        grep -q '^at '
}
