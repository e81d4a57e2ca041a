# Checks with the test's pods: they run, every worker reaches them, no image was pulled.
# needs: admin api_port here kubectl namespace server work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# Runs in the background; writes what the workload checks read: $work/pods, $work/service, $work/probe.*
collect_from_pods() {
    while :; do
        read_pods
        if [ -z "$(list_missing_pods web)$(list_missing_pods probe)" ] || ! is_time_left; then break; fi
        sleep 1
    done
    kube -n "$namespace" get service web -o jsonpath='{.spec.clusterIP} {.spec.ports[0].nodePort}' \
        >"$work/service" 2>&1
    # shellcheck disable=SC2046 # a list of words
    for_each 8 probe_from_worker $(node_names worker)
}

# $work/pods has a line for each pod: app node name phase address ready-or-reason
read_pods() {
    kube -n "$namespace" get pods -o go-template-file="$here/lib/verify/pods.gotemplate" \
        >"$work/pods.new" 2>"$work/pods.error" && mv "$work/pods.new" "$work/pods"
    [ -f "$work/pods" ] || : >"$work/pods"
}

# find_pod APP NODE: the name of the pod that is running and ready there. (With the empty string awk
# compares text: as numbers, 10 and 1e1 are equal.)
find_pod() {
    awk -v app="$1" -v node="$2" \
        '$1 == app && $2 "" == node "" && $4 == "Running" && $6 == "ready" { print $3; exit }' "$work/pods"
}

# list_missing_pods APP: a line for every worker without a pod that is running and ready, with its state.
list_missing_pods() {
    WORKERS=$(node_names worker) awk -v app="$1" '
        $1 == app { state[$2] = $4 " " $6; if ($4 == "Running" && $6 == "ready") runs[$2] = 1 }
        END {
            n = split(ENVIRON["WORKERS"], worker, " ")
            for (i = 1; i <= n; i++) if (!(worker[i] in runs))
                print worker[i] ": " (worker[i] in state ? state[worker[i]] : "no pod") " (" app ")"
        }' "$work/pods"
}

# probe_from_worker NODE: run probe.sh in the pod there, again until all succeeds or the time is over.
probe_from_worker() {
    pod=$(find_pod probe "$1")
    report=$work/probe.$1
    if [ -z "$pod" ]; then
        echo "no running probe pod" >"$report.error"
        return 0
    fi
    read -r service_ip node_port <"$work/service"
    pod_ips=$(awk '$1 == "web" && $4 == "Running" && $5 != "-" { printf "%s ", $5 }' "$work/pods")
    api_servers=''
    for address in $(node_addresses control-plane); do api_servers="$api_servers $address:$api_port"; done
    while :; do
        timeout 45 "$kubectl" --kubeconfig "$admin" --server "$server" -n "$namespace" exec "$pod" -- \
            sh -c "$(cat "$here/lib/verify/probe.sh")" probe "$service_ip" "$node_port" "$pod_ips" \
            "$(node_addresses worker)" "$SERVICE_IP" "$api_servers" "$(dns_name)" \
            >"$report.new" 2>"$report.error"
        mv "$report.new" "$report"
        has_probe_succeeded "$report" && return 0
        is_time_left || return $?
        sleep 2
    done
}

# The name that pods must resolve; nothing if the cluster has no DNS.
dns_name() { ! has_feature coredns || printf 'kubernetes.default.svc.%s\n' "$DNS_DOMAIN"; }

has_probe_succeeded() { has_probe_ended "$1" && ! grep -v -q -e ' ok$' -e '^version ' -e '^end$' "$1"; }
has_probe_ended() { tail -n 1 "$1" 2>/dev/null | grep -qx end; }

# conclude_workload PROBLEMS SUMMARY: like conclude, but a second try would read the same files.
conclude_workload() { conclude "$@" || return 2; }

check_pods_running() {
    expect "one Running pod on each of: $(node_names worker)"
    problems=$(list_missing_pods web)
    [ -z "$problems" ] || problems=$(printf '%s\n' "$problems" && cat "$work/pods.error")
    conclude_workload "$problems" "$(count_nodes worker) pods Running"
}

check_kubectl_exec() {
    expect "kubectl exec works in a host-network pod on each of: $(node_names worker)"
    conclude_workload "$(
        list_missing_pods probe
        for worker in $(node_names worker); do
            [ -n "$(find_pod probe "$worker")" ] || continue
            has_probe_ended "$work/probe.$worker" ||
                printf '%s: %s\n' "$worker" "$(one_line "$work/probe.$worker.error")"
        done
    )" "kubectl exec works on $(count_nodes worker) workers"
}

check_pod_network() { check_probes ping "$(count_nodes worker)" "pings to pods"; }
check_service_ip() { check_probes service 1 "requests to the Service IP"; }
check_node_ports() { check_probes node-port "$(count_nodes worker)" "requests to NodePorts"; }
check_cluster_dns() { check_probes dns 1 "lookups of kubernetes.default"; }
check_pod_bridge() { check_probes bridge 1 "bridges in their subnets"; }

# check_probes KIND COUNT WHAT: every worker reported COUNT results of that kind, all of them ok.
check_probes() {
    expect "$2 successful $3 from each of: $(node_names worker)"
    conclude_workload "$(
        for worker in $(node_names worker); do
            report=$work/probe.$worker
            if [ -f "$report" ]; then
                awk -v worker="$worker" -v kind="$1" -v wanted="$2" -f "$here/lib/verify/probes.awk" "$report"
            else
                printf '%s: %s\n' "$worker" "$(one_line "$report.error")"
            fi
        done
    )" "$(($(count_nodes worker) * $2)) $3 from $(count_nodes worker) workers"
}

check_proxy_rules() {
    check_probes rules 1 "sets of rules for $SERVICE_IP:443 that name every API server" || return $?
    modes=$(for worker in $(node_names worker); do
        awk '$1 == "rules" { print $2 }' "$work/probe.$worker"
    done | sort -u | tr '\n' ' ')
    modes=${modes% }
    if has_feature "proxy-$modes"; then
        saw "mode $modes on $(count_nodes worker) workers, $(count_nodes control-plane) API servers each"
    else
        saw "mode $modes on $(count_nodes worker) workers: their kernels do not support the configured mode $PROXY_MODE"
    fi
}

check_images_local() {
    expect "events say that images were already present, and no event says that one was pulled"
    events=$(kube -n "$namespace" get events \
        -o go-template='{{range .items}}{{.reason}} {{.message}}{{"\n"}}{{end}}' 2>&1) || {
        saw "$events"
        return 1
    }
    pulls=$(printf '%s\n' "$events" | grep -e '^Pulling ' -e '^Pulled Successfully' -e '^Pull.* pulled')
    if [ -n "$pulls" ]; then
        saw "$(printf '%s\n' "$pulls" | print_first)"
        return 2
    fi
    present=$(printf '%s\n' "$events" | grep -c 'already present')
    if [ "$present" -eq 0 ]; then
        saw "no event about an image yet"
        return 1
    fi
    saw "$present events, all of them: image already present"
}
