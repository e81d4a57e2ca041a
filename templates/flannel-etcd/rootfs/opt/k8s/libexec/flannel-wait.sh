#!/bin/sh
# Before the start of flannel: wait until a proxy in front of etcd gives the network configuration that this node has in
# /etc/flannel/network.json. The etcd hosts write it (flannel-describe.sh).
#
# Usage: flannel-wait.sh PATH HOST:PORT...
#
# Each reason to wait is printed once; /run/flannel/reason has the current one.
# DESTDIR is prepended to the paths of installed files.
set -u
prefix=${DESTDIR:-}
for part in environment https; do
    # shellcheck source=/dev/null # parts of the installed bundle
    . "$prefix/opt/k8s/bundle/lib/core/$part.sh" || exit 1
done
pki=$prefix/etc/flannel/pki
run=$prefix/run/flannel
path=$1
shift

# check_proxies HOST:PORT...: whether one of them gives this configuration; if not, print why.
check_proxies() {
    for proxy; do
        answer=$(HTTPS_TIMEOUT=5 https_get "${proxy%:*}" "${proxy##*:}" "$path" \
            "$pki/etcd-ca.crt" "$pki/client.crt" "$pki/client.key")
        # a JSON text inside JSON: its quotes are escaped
        printf '%s\n' "$answer" | tr -d '\134' | grep -qF "\"value\":\"$wanted\"" && return 0
        case $answer in
            200*) echo "etcd has another network configuration than this node: install the etcd hosts first" ;;
            404*) echo "the network configuration is not in etcd yet: install the etcd hosts first" ;;
            *) echo "https://$proxy$path gives $(describe_answer "$answer")" ;;
        esac
    done
    return 1
}

wanted=$(cat "$prefix/etc/flannel/network.json") && mkdir -p "$run" || exit 1
last_reason=''
until reason=$(check_proxies "$@"); do
    reason=$(printf '%s\n' "$reason" | tail -n 1)
    [ "$reason" = "$last_reason" ] || echo "flannel-wait.sh: waiting: $reason" >&2
    last_reason=$reason
    printf '%s\n' "$reason" >"$run/reason"
    sleep 2
done
rm -f "$run/reason"
