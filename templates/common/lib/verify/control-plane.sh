# Checks of the control plane.
# needs: api_port endpoint_host endpoint_port here namespace pki prefix secret_name server_host server_port work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# ready_status HOST PORT: the status of /readyz, or of /healthz before Kubernetes 1.16.
ready_status() {
    ready=$(https_status "$1" "$2" /readyz "$pki/ca.crt" "$work/admin.crt" "$work/admin.key")
    [ "$ready" != 404 ] ||
        ready=$(https_status "$1" "$2" /healthz "$pki/ca.crt" "$work/admin.crt" "$work/admin.key")
    printf '%s\n' "$ready"
}

check_apiserver_ready() {
    expect "status 200 from /readyz of every API server"
    conclude "$(
        for pair in $(node_pairs control-plane); do
            ready=$(ready_status "${pair#*|}" "$api_port")
            [ "$ready" = 200 ] || printf '%s (%s:%s): %s\n' "${pair%|*}" "${pair#*|}" "$api_port" "$ready"
        done
    )" "ready on $(node_names control-plane)"
}

check_endpoint_ready() {
    expect "status 200 from $ENDPOINT/readyz"
    ready=$(ready_status "$endpoint_host" "$endpoint_port")
    if [ "$ready" != 200 ]; then
        saw "$ENDPOINT: $ready"
        return 1
    fi
    saw "$ENDPOINT is ready"
}

check_apiserver_metrics() {
    expect "metrics with the administrator's certificate, status 401 or 403 without," \
        "from every API server and $ENDPOINT"
    conclude "$(
        for pair in $(node_pairs control-plane); do
            probe_metrics "${pair%|*}" "${pair#*|}" "$api_port" apiserver_
        done
        probe_metrics endpoint "$endpoint_host" "$endpoint_port" apiserver_
    )" "$(count_nodes control-plane) API servers and the endpoint"
}

# A check that asked nobody has proved nothing.
check_apiserver_authorization() {
    expect "status 401 or 403 for clients without credentials and with an unknown token, and 403 for a user without" \
        "rights, from every API server and $ENDPOINT"
    if [ -z "$(node_pairs control-plane)" ]; then
        saw "node.env names no control-plane node"
        return 2
    fi
    conclude "$(
        for pair in $(node_pairs control-plane); do probe_authorization "${pair%|*}" "${pair#*|}" "$api_port"; done
        probe_authorization endpoint "$endpoint_host" "$endpoint_port"
    )" "$(count_nodes control-plane) API servers and the endpoint"
}

# probe_authorization NAME HOST PORT: a line for each answer that is no refusal, or no answer.
probe_authorization() {
    for path in secrets configmaps pods nodes; do
        status=$(https_status "$2" "$3" "/api/v1/$path?limit=1" "$pki/ca.crt")
        case $status in 401 | 403) ;; *) print_answer "$@" "$path without credentials" "$status" ;; esac
        # The refusal must name the user: it is also 403 if the administrator may not act as another user.
        answer=$(ask_with 'Impersonate-User: bundler:no-rights' "$2" "$3" "$path" "$work/admin.crt" "$work/admin.key")
        case $answer in
            403*'User \"bundler:no-rights\" cannot '*) ;;
            *) print_answer "$@" "$path as a user without rights" "$answer" ;;
        esac
    done
    answer=$(ask_with 'Authorization: Bearer nobody.issued.this' "$2" "$3" secrets)
    case $answer in 401*) ;; *) print_answer "$@" "secrets with an unknown token" "$answer" ;; esac
}

# ask_with HEADER HOST PORT PATH [CERT KEY]
ask_with() (
    header=$(printf '%s\r\n_' "$1") host=$2 port=$3 path=$4
    shift 4
    https_get_with "${header%_}" "$host" "$port" "/api/v1/$path?limit=1" "$pki/ca.crt" "$@"
)

# print_answer NAME HOST PORT WHAT ANSWER: the status, and only without one the next line: the others may be a Secret.
print_answer() {
    printf '%s (%s:%s): %s: ' "$1" "$2" "$3" "$4"
    printf '%s\n' "$5" | awk 'NR == 1 { printf "%s", $0; none = $0 == "000" } NR == 2 && none { printf " %s", $0 }
        END { print "" }'
}

check_controller_manager_metrics() { check_component_metrics 10257 process_; }
check_scheduler_metrics() { check_component_metrics 10259 scheduler_; }

# check_component_metrics PORT PREFIX
check_component_metrics() {
    asked="every control-plane node"
    [ -z "${MANAGERS_AT:-}" ] || asked="this host: with the profile no other host can reach it"
    expect "metrics with the administrator's certificate, status 401 or 403 without," "at port $1 of $asked"
    # shellcheck disable=SC2046 # a list of words
    conclude "$(
        for pair in $(manager_pairs); do probe_metrics "${pair%|*}" "${pair#*|}" "$1" "$2"; done
    )" "port $1 of $(count_words $(manager_pairs)) control-plane nodes"
}

# probe_metrics NAME HOST PORT PREFIX: a line for each problem; one metric must start with PREFIX.
probe_metrics() {
    status=$(https_status "$2" "$3" /metrics "$pki/ca.crt")
    case $status in 401 | 403) ;; *) printf '%s (%s:%s) without a certificate: %s\n' "$1" "$2" "$3" "$status" ;; esac
    as_admin "$2" "$3" /metrics | find_metric "$1 ($2:$3) with a certificate" "$4"
}

# find_metric WHERE PREFIX: an answer of https_get on stdin; print what is wrong with it.
find_metric() {
    awk -v where="$1" -v prefix="$2" '
        NR == 1 { status = $0 }
        index($0, prefix) == 1 { found = 1 }
        END { if (status != 200) print where ": " status; else if (!found) print where ": no metric " prefix "*" }'
}

check_controller_manager_leader() { check_leader kube-controller-manager; }
check_scheduler_leader() { check_leader kube-scheduler; }

# The lease must change between two readings, so that the hosts' clocks need not agree.
check_leader() {
    expect "one leader that renews its lease within 15 s"
    first=$(read_leader "$1")
    if [ -z "${first%% *}" ]; then
        saw "$1 has no leader: no lease has a holder"
        return 1
    fi
    for _ in 1 2 3 4 5 6 7; do
        sleep 2
        second=$(read_leader "$1")
        if [ -n "$second" ] && [ "$second" != "$first" ]; then
            saw "leader: ${second%% *}"
            return 0
        fi
    done
    saw "${first%% *} holds the lease of $1 but has not renewed it for 14 s (last renewal: ${first#* })"
    return 1
}

# "HOLDER RENEW-TIME" from the Lease, or before Kubernetes 1.17 from the annotation of the Endpoints.
read_leader() {
    lease=$(as_admin "$server_host" "$server_port" "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/$1" |
        tr -d '\n')
    case $lease in
        200*'"holderIdentity":'*) ;;
        *)
            lease=$(as_admin "$server_host" "$server_port" "/api/v1/namespaces/kube-system/endpoints/$1" |
                tr -d '\n\134')
            ;;
    esac
    holder=$(printf '%s\n' "$lease" | sed -n 's/.*"holderIdentity": *"\([^"]*\)".*/\1/p')
    renewed=$(printf '%s\n' "$lease" | sed -n 's/.*"renewTime": *"\([^"]*\)".*/\1/p')
    [ -z "$holder" ] || printf '%s %s\n' "$holder" "$renewed"
}

# The value of the Secret is in no argument and no log. Every API server must decrypt it: one with
# another encryption key than the others cannot.
check_secrets_encrypted() {
    expect "the value in etcd starts with k8s:enc: and is not in plain text," \
        "and every API server answers with the value"
    raw=$work/secret.raw
    if ! etcd get "/registry/secrets/$namespace/$secret_name" --print-value-only >"$raw" 2>"$raw.log"; then
        saw "the Secret cannot be read from etcd: $(tail -n 1 "$raw.log")"
        return 1
    elif ! [ -s "$raw" ]; then
        saw "etcd has no key /registry/secrets/$namespace/$secret_name"
        return 1
    fi
    if tr -d '\000' <"$raw" | LC_ALL=C grep -q -F -f "$work/secret.value"; then
        saw "the value is in etcd in plain text: the API server that wrote it does not encrypt Secrets"
        return 2
    fi
    provider=$(LC_ALL=C tr -cd '\040-\176' <"$raw" | sed -n 's/^\(k8s:enc:[^:]*:v[0-9]*:[^:]*\):.*/\1/p')
    if [ -z "$provider" ]; then
        saw "the value in etcd does not start with k8s:enc:"
        return 2
    fi
    base64 <"$work/secret.value" | tr -d '\n' >"$work/secret.base64"
    conclude "$(
        for pair in $(node_pairs control-plane); do
            answer=$raw.${pair%|*}
            as_admin "${pair#*|}" "$api_port" "/api/v1/namespaces/$namespace/secrets/$secret_name" >"$answer"
            LC_ALL=C grep -q -F -f "$work/secret.base64" "$answer" ||
                printf 'the API server of %s cannot read the Secret: %s\n' "${pair%|*}" "$(sed -n 1p "$answer")"
        done
    )" "$provider, readable through $(count_nodes control-plane) API servers"
}

# After `bundler secrets rotate write`, kube-rotation.service writes those that are under the former key again.
check_secret_keys() {
    writes=$(sed -n "s/^SECRETS_WRITTEN_WITH='\(.*\)'\$/\1/p" "$here/state.env")
    expect "every value below /registry/secrets in etcd starts with the key $writes"
    if ! list_secrets_by_key etcd >"$work/secret-keys"; then
        saw "the Secrets cannot be read from etcd"
        return 1
    fi
    conclude "$(awk -v writes="$writes" '$1 != writes { n[$1]++ }
        END { for (key in n) print n[key] " Secrets: " key }' "$work/secret-keys" | sort)" \
        "$(awk 'END { print NR }' "$work/secret-keys") Secrets under $writes"
}

check_audit_log() {
    audit_log=$prefix/var/log/kubernetes/audit.log
    expect "audit.k8s.io events in $audit_log"
    if [ ! -s "$audit_log" ]; then
        saw "$audit_log is missing or empty"
        return 1
    fi
    entries=$(tail -n 200 "$audit_log" | grep -c '"apiVersion":"audit.k8s.io/')
    if [ "$entries" -eq 0 ]; then
        saw "the last 200 lines of $audit_log have no audit event"
        return 1
    fi
    saw "$(($(wc -c <"$audit_log"))) bytes, $entries events in the last 200 lines"
}
