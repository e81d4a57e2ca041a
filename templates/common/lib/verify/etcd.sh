# Checks of etcd.
# needs: etcd_commas etcdctl here pki work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# etcd ARGUMENT...: etcdctl against all planned members, with the API server's client certificate. It can warn on stderr
# and
# succeed: of a member that does not answer, or (3.6) of ETCDCTL_API, which 3.3 needs. So stderr is never part of a
# value.
etcd() {
    ETCDCTL_API=3 timeout 15 "$etcdctl" --endpoints="$etcd_commas" --dial-timeout=4s --command-timeout=8s \
        --cacert="$pki/etcd-ca.crt" --cert="$pki/apiserver-etcd-client.crt" \
        --key="$pki/apiserver-etcd-client.key" "$@"
}

check_etcd_members() {
    expect "$(count_nodes etcd) members, all started and healthy: $ETCD_ENDPOINTS"
    etcd endpoint health >"$work/etcd-health" 2>&1
    etcd member list >"$work/etcd-members" 2>&1
    conclude "$(
        ENDPOINTS=$ETCD_ENDPOINTS awk -f "$here/lib/verify/etcd-members.awk" "$work/etcd-health" "$work/etcd-members"
    )" "$(count_nodes etcd) of $(count_nodes etcd) members healthy"
}

check_etcd_alarms() {
    expect "no alarm"
    if ! found=$(list_etcd_alarms "$ETCD_ENDPOINTS"); then
        saw "the alarms cannot be read: $found"
        return 1
    fi
    conclude "$(printf '%s\n' "$found" | sed -n 's/..*/the alarm & is on/p')" "no alarm"
}

# Each kind of object has keys below /registry. These two keys exist in every cluster.
check_etcd_registry() {
    expect "keys below /registry/, among them the namespace kube-system and the Service kubernetes"
    keys=$(etcd get /registry --prefix --keys-only 2>&1)
    for key in /registry/namespaces/kube-system /registry/services/specs/default/kubernetes; do
        printf '%s\n' "$keys" | grep -qxF "$key" || {
            saw "key $key is missing; etcdctl printed: $(printf '%s\n' "$keys" | print_first)"
            return 1
        }
    done
    saw "$(printf '%s\n' "$keys" | grep -c '^/registry/') keys"
}

# The request with a certificate shows that /health works, so that a refusal without one is meaningful.
check_etcd_refuses_strangers() {
    expect "status 200 with a client certificate and no answer without one, from every member"
    conclude "$(
        for address in $(node_addresses etcd); do
            with=$(https_status "$address" 2379 /health "$pki/etcd-ca.crt" \
                "$pki/apiserver-etcd-client.crt" "$pki/apiserver-etcd-client.key")
            without=$(https_status "$address" 2379 /health "$pki/etcd-ca.crt")
            [ "$with" = 200 ] || printf '%s with a certificate: %s\n' "$address" "$with"
            case $without in 000*) ;; *) printf '%s without a certificate: %s\n' "$address" "$without" ;; esac
        done
    )" "$(count_nodes etcd) members refuse clients without a certificate"
}
