#!/bin/sh
# Route the pod subnet of each worker to that worker, and masquerade packets of pods that leave the cluster.
#
# Usage: pod-routes.sh up|down
#
# /etc/kubernetes/pod-routes.tsv has the lines `pod-cidr CIDR`, on a worker `own SUBNET`, and for every other
# worker `route SUBNET ADDRESS`, separated by tabs. The routes have protocol 112, so that routes of removed
# workers are found and deleted.
set -eu
table=${DESTDIR:-}/etc/kubernetes/pod-routes.tsv
protocol=112

main() {
    case ${1:-} in
        up) delete_stale_routes && add_routes && for_each_rule add_rule ;;
        down) for_each_rule delete_rule && delete_all_routes ;;
        *)
            echo "usage: pod-routes.sh up|down" >&2
            exit 2
            ;;
    esac
}

column() { awk -F'\t' -v kind="$1" -v n="$2" '$1 == kind { print $n }' "$table"; }

add_routes() {
    awk -F'\t' '$1 == "route" { print $2, $3 }' "$table" | while read -r subnet address; do
        ip route replace "$subnet" via "$address" proto "$protocol"
    done
}

delete_stale_routes() {
    ip -4 route show proto "$protocol" | while read -r subnet _; do
        column route 2 | grep -qxF "$subnet" || ip route del "$subnet" proto "$protocol"
    done
}

delete_all_routes() { ip -4 route flush proto "$protocol" 2>/dev/null || true; }

# FORWARD must accept packets of pods, whatever its policy; packets that leave the cluster get the node's address.
for_each_rule() {
    own=$(column own 2)
    [ -n "$own" ] || return 0
    pods=$(column pod-cidr 2)
    "$1" filter FORWARD -s "$pods" -j ACCEPT
    "$1" filter FORWARD -d "$pods" -j ACCEPT
    "$1" nat POSTROUTING -s "$own" '!' -d "$pods" -j MASQUERADE
}

add_rule() {
    rule_table=$1 chain=$2
    shift 2
    # shellcheck disable=SC2046 # one word or none
    iptables -w -t "$rule_table" -C "$chain" "$@" 2>/dev/null ||
        iptables -w -t "$rule_table" -I "$chain" $(place_after_policies) "$@"
}

# What NetworkPolicies deny must not be accepted before: kube-router's rule stays the first.
place_after_policies() {
    [ "$chain" = FORWARD ] || return 0
    case $(iptables -w -S FORWARD 1 2>/dev/null) in *' -j KUBE-ROUTER-FORWARD') echo 2 ;; esac
}

delete_rule() {
    rule_table=$1 chain=$2
    shift 2
    while iptables -w -t "$rule_table" -D "$chain" "$@" 2>/dev/null; do :; done
}

main "$@"
