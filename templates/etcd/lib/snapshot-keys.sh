# Which keys encrypt the Secrets of a snapshot, before it replaces anything: an API server that lacks one of them can
# read none of these Secrets, and lists none at all. Only etcd knows which values are current: it is started on a copy.
# needs: data here prefix snapshot work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

CHECK_PORTS='23790 24790 25790 26790' # on loopback, and one above each for peers

check_snapshot_keys() {
    reads=$(text_field "$here/state.env" SECRETS_READ_WITH)
    [ -n "$reads" ] ||
        die 3 "$here/state.env does not say which keys the control planes have; --any-key restores all the same"
    copy=$data/checking made=no
    [ -d "$data" ] || made=yes
    { rm -rf "$copy" && mkdir -p "$data"; } || die 3 "cannot write $data"
    read_snapshot_keys >"$work/snapshot-secrets"
    code=$?
    rm -rf "$copy"
    [ "$made" = no ] || rmdir "$data"
    [ "$code" -eq 0 ] || die 3 "cannot read which keys the Secrets of $snapshot need:" \
        "$(tail -n 1 "$work/check.log"); --any-key restores it all the same"
    missing=$(awk -v reads=" $reads plain " '!index(reads, " " $1 " ") { print $1 }' "$work/snapshot-secrets" |
        sort -u | tr '\n' ' ')
    missing=${missing% }
    [ -z "$missing" ] || die 3 "$snapshot has Secrets under a key that the control planes do not have ($missing):" \
        "on the builder, bundler secrets rotate recall ${missing##*:}; install that first (docs/guides/backup.md);" \
        "--any-key restores it all the same"
}

# "PROVIDER:KEY NAMESPACE/NAME" of every Secret in the snapshot.
read_snapshot_keys() {
    ETCDCTL_API=3 "$SNAPSHOT_TOOL" snapshot restore "$snapshot" --name=check --data-dir="$copy" \
        --initial-cluster=check=https://127.0.0.1:2380 --initial-advertise-peer-urls=https://127.0.0.1:2380 \
        >"$work/check.log" 2>&1 || return 1
    for check_port in $CHECK_PORTS; do
        start_etcd_on_copy
        if wait_for_etcd_on_copy; then
            list_secrets_by_key etcd_on_copy
            listed=$?
            stop_etcd_on_copy
            return "$listed"
        fi
        stop_etcd_on_copy # the port may be in use
    done
    return 1
}

# It ends by itself if this script is killed.
start_etcd_on_copy() {
    etcd_pki=$prefix/etc/etcd/pki
    timeout 600 etcd --name=check --data-dir="$copy" --quota-backend-bytes=8589934592 \
        --listen-client-urls="https://127.0.0.1:$check_port" --advertise-client-urls="https://127.0.0.1:$check_port" \
        --listen-peer-urls="https://127.0.0.1:$((check_port + 1))" \
        --cert-file="$etcd_pki/server.crt" --key-file="$etcd_pki/server.key" --client-cert-auth \
        --trusted-ca-file="$etcd_pki/ca.crt" --peer-cert-file="$etcd_pki/peer.crt" \
        --peer-key-file="$etcd_pki/peer.key" --peer-client-cert-auth --peer-trusted-ca-file="$etcd_pki/ca.crt" \
        --initial-cluster=check=https://127.0.0.1:2380 --initial-advertise-peer-urls=https://127.0.0.1:2380 \
        >"$work/check.log" 2>&1 &
    etcd_process=$!
}

etcd_on_copy() { ETCD_TIMEOUT=60 etcd_at "https://127.0.0.1:$check_port" "$@"; }

# Each question is given up after 3 s: one to an etcd that does not start would otherwise take the whole time.
wait_for_etcd_on_copy() {
    check_start=$(now)
    until ETCD_TIMEOUT=7 etcd_at "https://127.0.0.1:$check_port" get bundler/check --keys-only >/dev/null 2>&1; do
        kill -0 "$etcd_process" 2>/dev/null || return 1
        [ $(($(now) - check_start)) -lt 60 ] || return 1
        sleep 1
    done
}

stop_etcd_on_copy() {
    kill "$etcd_process" 2>/dev/null
    wait "$etcd_process" 2>/dev/null
}
