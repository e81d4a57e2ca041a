#!/bin/sh
# Remove a dead host from the cluster, which cannot leave by itself (uninstall.sh --leave).
#
# Usage: forget-node.sh NAME                as root, on a control-plane node
#
# Removes the etcd member with this name and deletes the Node, whether or not NAME is still in cluster.yaml. A host that
# still runs is refused. Its bootstrap token is revoked by the next bundle of a control plane, once NAME is not in
# cluster.yaml any more. To replace a host by a new one with the same name, forget nothing: renew its token (bundler
# tokens renew NAME), build, and install a control plane's bundle and then the new host's.
# Exit code: 0 done; 1 it failed; 2 wrong usage; 3 refused: the host runs, or nothing has this name.
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
    name=$1
    # shellcheck disable=SC1091 # rendered for each node
    . "$bundle/node.env" || exit 1
    if [ "$name" = "$NODE" ]; then
        echo "forget-node.sh: this host is $name: use uninstall.sh --leave" >&2
        exit 2
    fi
    read_node
    read_member
    check_known
    check_dead
    # The member first: of one that never started only the Node has the address.
    if [ -n "$id" ]; then
        run_etcdctl "$ETCD_ENDPOINTS" member remove "$id" || exit 1
    else
        echo "etcd has no member $name"
    fi
    kube delete node "$name" --ignore-not-found || exit 1
}

# Sets found, "NAME|Ready|ADDRESS" of the Node (empty without one), its ready, planned, the planned address, and
# address, that or the Node's.
read_node() {
    fields='{.metadata.name}|{.status.conditions[?(@.type=="Ready")].status}'
    fields="$fields|{.status.addresses[?(@.type==\"InternalIP\")].address}"
    found=$(kube get node "$name" --ignore-not-found -o "jsonpath=$fields") || exit 1
    ready=${found#*|}
    ready=${ready%%|*}
    planned=$(printf '%s\n' "$NODES" | tr ' ' '\n' | awk -F '|' -v name="$name" '$1 == name { print $2 }')
    address=${planned:-${found##*|}}
}

# Sets id and client_url of the member. One that never started has no name yet, only a peer URL.
read_member() {
    members=$(run_etcdctl "$ETCD_ENDPOINTS" member list) || exit 1
    member=$(printf '%s\n' "$members" | awk -F ', ' -v name="$name" -v peer="https://$address:2380" '
        $3 == name || ($3 == "" && $4 == peer) { print $1 "|" $5 }')
    id=${member%%|*} client_url=${member##*|}
}

check_known() {
    [ -z "$found$id$planned" ] || return 0
    names=$(kube get nodes -o jsonpath='{.items[*].metadata.name}') || exit 1
    unnamed=$(printf '%s\n' "$members" | awk -F ', ' '$3 == "" { printf " %s (%s)", $1, $4 }')
    refuse "no Node, no member of etcd and no planned node is named $name. Nodes: $names; members of etcd: $(
        printf '%s\n' "$members" | awk -F ', ' '$3 != "" { printf "%s%s", space, $3; space = " " }'
    )${unnamed:+; members that never started have no name:$unnamed: etcdctl member remove ID}"
}

# The control plane sets Ready to Unknown 40 s after the last report of a kubelet.
check_dead() {
    [ "$ready" != True ] ||
        refuse "the Node $name is Ready: its kubelet runs. Fix: on that host uninstall.sh --leave; if the host has" \
            "just stopped, run this again in a minute"
    [ -z "$client_url" ] || ! run_etcdctl "$client_url" endpoint health >/dev/null 2>&1 ||
        refuse "the member $name of etcd at $client_url is healthy. Fix: on that host uninstall.sh --leave, or" \
            "stop etcd"
}

refuse() {
    echo "forget-node.sh: $*" >&2
    echo "Nothing was changed." >&2
    exit 3
}

kube() { kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig --server "$API_LOCAL" --request-timeout=15s "$@"; }

# run_etcdctl ENDPOINTS ARGUMENT...
run_etcdctl() {
    endpoints=$(printf '%s' "$1" | tr ' ' ',')
    shift
    ETCDCTL_API=3 etcdctl --endpoints="$endpoints" --command-timeout=10s --cacert="$pki/etcd-ca.crt" \
        --cert="$pki/apiserver-etcd-client.crt" --key="$pki/apiserver-etcd-client.key" "$@"
}

main "$@"
