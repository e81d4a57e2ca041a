#!/bin/sh
# Before the start of etcd-flannel-proxy: write flannel's network configuration with the v2 API of etcd; wait for etcd
# if needed.
#
# Usage: flannel-describe.sh KEY
#
# Every etcd host does this. A configuration that is already there and equal is not written again.
# DESTDIR is prepended to the paths of installed files.
set -u
prefix=${DESTDIR:-}
# shellcheck source=/dev/null # of the installed bundle
. "$prefix/opt/k8s/bundle/lib/core/environment.sh" || exit 1
# shellcheck disable=SC1091 # rendered for each node
. "$prefix/opt/k8s/bundle/node.env" || exit 1
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/sbin:/usr/bin:/sbin:/bin
ETCDCTL_API=2
export PATH ETCDCTL_API
pki=$prefix/etc/etcd/pki
last_reason=''

etcd() {
    timeout 10 etcdctl --no-sync --endpoints "https://$ADDRESS:2379" --ca-file "$pki/ca.crt" \
        --cert-file "$pki/healthcheck-client.crt" --key-file "$pki/healthcheck-client.key" "$@"
}

# describe KEY VALUE
describe() { [ "$(etcd get --quorum "$1" 2>/dev/null)" = "$2" ] || etcd set "$1" "$2" >/dev/null; }

wanted=$(cat "$prefix/etc/etcd-flannel-proxy/network.json") || exit 1
until reason=$(describe "$1" "$wanted" 2>&1); do
    reason=$(printf '%s\n' "$reason" | tail -n 1)
    [ "$reason" = "$last_reason" ] || echo "flannel-describe.sh: waiting for etcd: $reason" >&2
    last_reason=$reason
    sleep 2
done
