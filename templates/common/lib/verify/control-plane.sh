# Checks of etcd and the control plane.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# etcd ARGUMENT...: etcdctl as the API server's client, at every planned member.
etcd() {
    ETCDCTL_API=3 timeout 15 "$etcdctl" --endpoints="$etcd_commas" --dial-timeout=4s --command-timeout=8s \
        --cacert="$pki/etcd-ca.crt" --cert="$pki/apiserver-etcd-client.crt" \
        --key="$pki/apiserver-etcd-client.key" "$@" 2>&1
}

check_etcd_members() {
    members=$(planned etcd | count_lines)
    expect "$members members, all started and healthy: $ETCD_ENDPOINTS"
    health=$(etcd endpoint health)
    list=$(etcd member list)
    problems=$(
        for endpoint in $ETCD_ENDPOINTS; do
            printf '%s\n' "$health" | grep -q "^$endpoint is healthy" ||
                printf '%s is not healthy: %s\n' "$endpoint" "$(printf '%s\n' "$health" | grep -F "$endpoint" | sed -n 1p)"
            printf '%s\n' "$list" | grep -F "$endpoint" | grep -q ', started, ' ||
                printf '%s is no started member\n' "$endpoint"
        done
        listed=$(printf '%s\n' "$list" | grep -c '^[0-9a-f]*, ')
        [ "$listed" -eq "$members" ] || printf '%s members in the list\n' "$listed"
    )
    [ -z "$problems" ] || { saw "$problems"; return 1; }
    saw "$members of $members members healthy"
}

# Below /registry each kind has its keys; the API server itself always makes these two.
check_etcd_registry() {
    expect "keys below /registry/, namespaces and the kubernetes Service among them"
    keys=$(etcd get /registry --prefix --keys-only)
    for key in /registry/namespaces/kube-system /registry/services/specs/default/kubernetes; do
        printf '%s\n' "$keys" | grep -qxF "$key" || { saw "there is no $key: $(printf '%s\n' "$keys" | few)"; return 1; }
    done
    saw "$(printf '%s\n' "$keys" | grep -c '^/registry/') keys"
}

# With the API server's certificate /health answers, so that a refusal without one means something.
check_etcd_refuses_strangers() {
    expect "with a client certificate 200 from every member, without one no answer at all"
    problems=$(
        for address in $(planned_addresses etcd); do
            friend=$(https_status "$address" 2379 /health "$pki/etcd-ca.crt" \
                "$pki/apiserver-etcd-client.crt" "$pki/apiserver-etcd-client.key")
            stranger=$(https_status "$address" 2379 /health "$pki/etcd-ca.crt")
            case $friend in 200) ;; *) printf '%s with a certificate: %s\n' "$address" "$friend" ;; esac
            case $stranger in 000*) ;; *) printf '%s without a certificate: %s\n' "$address" "$stranger" ;; esac
        done
    )
    [ -z "$problems" ] || { saw "$problems"; return 1; }
    saw "$(planned etcd | count_lines) members refuse a client without a certificate"
}

# ready_status HOST PORT: the status of /readyz, or of /healthz before Kubernetes 1.16.
ready_status() {
    ready=$(https_status "$1" "$2" /readyz "$pki/ca.crt" "$work/admin.crt" "$work/admin.key")
    [ "$ready" != 404 ] ||
        ready=$(https_status "$1" "$2" /healthz "$pki/ca.crt" "$work/admin.crt" "$work/admin.key")
    printf '%s\n' "$ready"
}

check_apiserver_ready() {
    expect "200 from /readyz of every API server"
    problems=$(
        planned control-plane | while read -r name address; do
            ready=$(ready_status "$address" "$api_port")
            [ "$ready" = 200 ] || printf '%s (%s:%s): %s\n' "$name" "$address" "$api_port" "$ready"
        done
    )
    [ -z "$problems" ] || { saw "$problems"; return 1; }
    saw "ready on $(planned_names control-plane | tr '\n' ' ')"
}

check_endpoint_ready() {
    expect "200 from $ENDPOINT/readyz"
    ready=$(ready_status "$endpoint_host" "$endpoint_port")
    [ "$ready" = 200 ] || { saw "$ready"; return 1; }
    saw "$ENDPOINT is ready"
}

check_apiserver_metrics() {
    expect "metrics with the administrator's certificate, 401 or 403 without, from every API server and $ENDPOINT"
    problems=$(
        { planned control-plane | sed "s/\$/ $api_port/"; printf 'endpoint %s %s\n' "$endpoint_host" "$endpoint_port"; } |
            while read -r name address port; do probe_metrics "$name" "$address" "$port" apiserver_; done
    )
    [ -z "$problems" ] || { saw "$problems"; return 1; }
    saw "$(planned control-plane | count_lines) API servers and the endpoint"
}

check_controller_manager_metrics() { check_component_metrics 10257 process_; }
check_scheduler_metrics() { check_component_metrics 10259 scheduler_; }

check_component_metrics() {
    expect "metrics with the administrator's certificate, 401 or 403 without, at port $1 of every control plane"
    problems=$(planned control-plane | while read -r name address; do probe_metrics "$name" "$address" "$1" "$2"; done)
    [ -z "$problems" ] || { saw "$problems"; return 1; }
    saw "$(planned control-plane | count_lines) of them"
}

# probe_metrics NAME HOST PORT PREFIX: nothing where all is well, else a line.
probe_metrics() {
    stranger=$(https_status "$2" "$3" /metrics "$pki/ca.crt")
    case $stranger in 401 | 403) ;; *) printf '%s (%s:%s) without a certificate: %s\n' "$1" "$2" "$3" "$stranger" ;; esac
    as_admin "$2" "$3" /metrics | awk -v prefix="$4" -v who="$1 ($2:$3)" '
        NR == 1 { status = $0 }
        index($0, prefix) == 1 { found = 1 }
        END { if (status != 200) print who " with a certificate: " status; else if (!found) print who ": no " prefix "* among its metrics" }'
}

check_ports_open() {
    expect "a listener on each port of each node's roles"
    problems=$(
        {
            planned etcd | sed 's/$/ 2379 2380/'
            planned control-plane | sed "s/\$/ $api_port 10257 10259/"
            planned worker | sed 's/$/ 10250/'
        } | while read -r name address ports; do
            for port in $ports; do
                is_open "$address" "$port" || printf '%s does not listen on %s\n' "$name" "$port"
            done
        done
    )
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "etcd 2379 2380, control planes $api_port 10257 10259, workers 10250"
}

check_ports_closed() {
    expect "no listener on any of $CLOSED_PORTS of any node, seen from $NODE"
    # shellcheck disable=SC2046 # a list of words
    problems=$(for_each 8 probe_closed $(for node in $NODES; do printf '%s\n' "${node%|*}"; done))
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    # shellcheck disable=SC2086 # a list of words
    saw "$(printf '%s\n' $NODES | count_lines) nodes"
}

probe_closed() {
    for port in $CLOSED_PORTS; do
        ! is_open "${1#*|}" "$port" || printf '%s listens on %s\n' "${1%%|*}" "$port"
    done
}

# is_open HOST PORT: does anything take a TCP connection there? A port that a firewall drops is shut.
is_open() {
    printf '' | timeout 4 openssl s_client -connect "$1:$2" 2>&1 | grep -q '^CONNECTED'
}

check_controller_manager_leader() { check_leader kube-controller-manager; }
check_scheduler_leader() { check_leader kube-scheduler; }

# A leader is alive when it renews: two readings differ. So no clock has to agree with another.
check_leader() {
    expect "one leader that renews its lease within 15 s"
    first=$(read_leader "$1")
    [ -n "${first%% *}" ] || { saw "nobody leads: there is no lease with a holder"; return 1; }
    for _ in 1 2 3 4 5 6 7; do
        sleep 2
        second=$(read_leader "$1")
        if [ -n "$second" ] && [ "$second" != "$first" ]; then
            saw "leader: ${second%% *}"
            return 0
        fi
    done
    saw "${first%% *} holds the lease but has not renewed it for 14 s (last: ${first#* })"
    return 1
}

# "holder renew-time" out of the Lease, or before Kubernetes 1.17 out of the Endpoints' annotation.
read_leader() {
    lease=$(as_admin "$server_host" "$server_port" "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/$1" |
        tr -d '\n')
    case $lease in
        200*'"holderIdentity":'*) ;;
        *) lease=$(as_admin "$server_host" "$server_port" "/api/v1/namespaces/kube-system/endpoints/$1" |
            tr -d '\n\134') ;;
    esac
    holder=$(printf '%s\n' "$lease" | sed -n 's/.*"holderIdentity": *"\([^"]*\)".*/\1/p')
    renewed=$(printf '%s\n' "$lease" | sed -n 's/.*"renewTime": *"\([^"]*\)".*/\1/p')
    [ -z "$holder" ] || printf '%s %s\n' "$holder" "$renewed"
}

# The value reaches neither argv nor the log. Each API server has to decrypt it: that fails where
# one has another key than the rest.
check_secrets_encrypted() {
    expect "k8s:enc: before the value in etcd, the value nowhere in clear, and 200 from every API server"
    raw=$work/secret.raw
    etcd get "/registry/secrets/$namespace/$secret_name" --print-value-only >"$raw"
    if ! [ -s "$raw" ]; then
        saw "etcd has nothing at /registry/secrets/$namespace/$secret_name"
        return 1
    fi
    if tr -d '\000' <"$raw" | LC_ALL=C grep -q -F -f "$work/secret.value"; then
        saw "the value stands in etcd in clear"
        return 2
    fi
    provider=$(LC_ALL=C tr -cd '\040-\176' <"$raw" | sed -n 's/^\(k8s:enc:[^:]*:v[0-9]*:[^:]*\):.*/\1/p')
    [ -n "$provider" ] || { saw "the record in etcd does not begin with k8s:enc:"; return 2; }
    base64 <"$work/secret.value" | tr -d '\n' >"$work/secret.base64"
    problems=$(
        planned control-plane | while read -r name address; do
            as_admin "$address" "$api_port" "/api/v1/namespaces/$namespace/secrets/$secret_name" >"$raw.$name"
            LC_ALL=C grep -q -F -f "$work/secret.base64" "$raw.$name" ||
                printf '%s does not read it back: %s\n' "$name" "$(sed -n 1p "$raw.$name")"
        done
    )
    [ -z "$problems" ] || { saw "$problems"; return 1; }
    saw "$provider, readable through $(planned control-plane | count_lines) API servers"
}

check_audit_log() {
    audit_log=$prefix/var/log/kubernetes/audit.log
    expect "audit.k8s.io events in $audit_log"
    [ -s "$audit_log" ] || { saw "the file is missing or empty"; return 1; }
    entries=$(tail -n 200 "$audit_log" | grep -c '"apiVersion":"audit.k8s.io/')
    [ "$entries" -gt 0 ] || { saw "no event among its last 200 lines"; return 1; }
    saw "$(wc -c <"$audit_log" | tr -d ' ') bytes, $entries events in the last lines"
}
