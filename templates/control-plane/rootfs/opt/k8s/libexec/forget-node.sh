#!/bin/sh
# Remove a dead host from the cluster, which cannot leave by itself (uninstall.sh --leave).
#
# Usage: forget-node.sh NAME                as root, on a control-plane node
#
# Deletes the Node and removes the etcd member with this name. Its bootstrap token is revoked by the next
# bundle of a control plane, once NAME is not in cluster.yaml any more. To replace a host by a new one with the
# same name, forget nothing: renew its token (bundler tokens renew NAME), build, and install a control plane's bundle and
# then the new host's.
# Exit code: 0 done, or there is no such node; 1 it failed; 2 wrong usage.
set -u
PATH=$PATH:/opt/k8s/bin
export PATH
bundle=/opt/k8s/bundle
pki=/etc/kubernetes/pki
# shellcheck source=/dev/null # of the installed bundle
. "$bundle/lib/core/environment.sh" || exit 1

main() {
    case ${1:-} in '' | -* | *[!a-z0-9.-]*)
        sed -n '2,/^# Exit/s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
    # shellcheck disable=SC1091 # rendered for each node
    . "$bundle/node.env" || exit 1
    if [ "$1" = "$NODE" ]; then
        echo "forget-node.sh: this host is $1: use uninstall.sh --leave" >&2
        exit 2
    fi
    kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig --server "$API_LOCAL" --request-timeout=15s \
        delete node "$1" --ignore-not-found || exit 1
    members=$(run_etcdctl member list) || exit 1
    # A member that never started has no name yet, only a peer URL.
    peer=$(printf '%s\n' "$NODES" | tr ' ' '\n' |
        awk -F '|' -v name="$1" '$1 == name { print "https://" $2 ":2380" }')
    id=$(printf '%s\n' "$members" |
        awk -F ', ' -v name="$1" -v peer="$peer" '$3 == name || ($3 == "" && $4 == peer) { print $1 }')
    if [ -z "$id" ]; then
        echo "etcd has no member $1"
        exit 0
    fi
    run_etcdctl member remove "$id"
}

run_etcdctl() {
    ETCDCTL_API=3 etcdctl --endpoints="$(printf '%s' "$ETCD_ENDPOINTS" | tr ' ' ',')" --command-timeout=10s \
        --cacert="$pki/etcd-ca.crt" --cert="$pki/apiserver-etcd-client.crt" \
        --key="$pki/apiserver-etcd-client.key" "$@"
}

main "$@"
