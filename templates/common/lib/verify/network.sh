# What the test's pods show: they run, every worker reaches them, nothing was pulled.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# Gathers, in the background, what the workload checks judge: $work/pods, $work/service, $work/probe.*
gather_workload() {
    while :; do
        read_pods
        if [ -z "$(missing_pods web)$(missing_pods probe)" ] || ! is_time_left; then break; fi
        sleep 1
    done
    kube -n "$namespace" get service web -o jsonpath='{.spec.clusterIP} {.spec.ports[0].nodePort}' \
        >"$work/service" 2>&1
    # shellcheck disable=SC2046 # a list of words
    for_each 8 probe_worker $(planned_names worker)
}

# A line a pod: app node name phase address ready-or-reason
read_pods() {
    kube -n "$namespace" get pods -o go-template='{{range .items}}{{.metadata.labels.app}} {{with .spec.nodeName}}{{.}}{{else}}-{{end}} {{.metadata.name}} {{.status.phase}} {{with .status.podIP}}{{.}}{{else}}-{{end}} {{range .status.containerStatuses}}{{if .ready}}ready{{else}}{{with .state}}{{with .waiting}}{{.reason}}{{end}}{{with .terminated}}{{.reason}}{{end}}{{end}}{{end}}{{end}}{{"\n"}}{{end}}' \
        >"$work/pods.new" 2>"$work/pods.error" && mv "$work/pods.new" "$work/pods"
    [ -f "$work/pods" ] || : >"$work/pods"
}

# pod_of APP NODE: its line when it runs and is ready. (The empty string makes awk compare text.)
pod_of() {
    awk -v app="$1" -v node="$2" '$1 == app && $2 "" == node "" && $4 == "Running" && $6 == "ready"' "$work/pods" | sed -n 1p
}

# missing_pods APP: a line for every worker without a running one, with what is there instead.
missing_pods() {
    for worker in $(planned_names worker); do
        [ -n "$(pod_of "$1" "$worker")" ] || awk -v app="$1" -v node="$worker" '
            $1 == app && $2 "" == node "" { state = $4 " " $6 }
            END { print node ": " (state == "" ? "no pod" : state) " (" app ")" }' "$work/pods"
    done
}

# probe_worker NODE: everything that the pod there can try, again until all is well or time is over.
probe_worker() {
    pod=$(pod_of probe "$1" | cut -d' ' -f3)
    report=$work/probe.$1
    [ -n "$pod" ] || { echo "no running probe pod" >"$report.error"; return; }
    read -r service_ip node_port <"$work/service"
    pod_ips=$(awk '$1 == "web" && $4 == "Running" && $5 != "-" { print $5 }' "$work/pods" | tr '\n' ' ')
    while :; do
        timeout 45 "$kubectl" --kubeconfig "$admin" --server "$server" -n "$namespace" exec "$pod" -- \
            sh -c "$(cat "$here/lib/verify/probe.sh")" probe "$service_ip" "$node_port" "$pod_ips" \
            "$(planned_addresses worker | tr '\n' ' ')" "$SERVICE_IP" \
            "$(planned_addresses control-plane | sed "s/\$/:$api_port/" | tr '\n' ' ')" "$(dns_name)" \
            >"$report.new" 2>"$report.error"
        mv "$report.new" "$report"
        is_probe_well "$report" && return
        is_time_left || return
        sleep 2
    done
}

# The name that a pod must find; nothing where the cluster has no DNS.
dns_name() { ! has_feature coredns || printf 'kubernetes.default.svc.%s\n' "$DNS_DOMAIN"; }

is_probe_well() { tail -n 1 "$1" | grep -qx end && ! grep -v -q -e ' ok$' -e '^end$' "$1"; }

check_pods_running() {
    expect "one Running pod on each of: $(planned_names worker | tr '\n' ' ')"
    problems=$(missing_pods web)
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)$(sed -n '1s/^/; /p' "$work/pods.error")"; return 2; }
    saw "$(planned worker | count_lines) pods Running"
}

check_kubectl_exec() {
    expect "an answer through kubectl exec from a host-network pod on every worker"
    problems=$(
        missing_pods probe
        for worker in $(planned_names worker); do
            [ -n "$(pod_of probe "$worker")" ] || continue
            tail -n 1 "$work/probe.$worker" 2>/dev/null | grep -qx end ||
                printf '%s: %s\n' "$worker" "$(one_line "$work/probe.$worker.error")"
        done
    )
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 2; }
    saw "worked on $(planned worker | count_lines) workers"
}

check_pod_network() { judge_probes ping "$(planned worker | count_lines)" "pings to pods"; }
check_service_ip() { judge_probes service 1 "requests to the Service IP"; }
check_node_ports() { judge_probes node-port "$(planned worker | count_lines)" "requests to NodePorts"; }

# judge_probes KIND PER-WORKER WHAT: that many successes from every worker.
judge_probes() {
    expect "$2 successful $3 from each of: $(planned_names worker | tr '\n' ' ')"
    problems=$(
        for worker in $(planned_names worker); do
            report=$work/probe.$worker
            [ -f "$report" ] || { printf '%s: %s\n' "$worker" "$(one_line "$report.error")"; continue; }
            awk -v worker="$worker" -v kind="$1" -v wanted="$2" '
                $1 != kind { next }
                $3 == "ok" && NF == 3 { well++; next }
                { bad = 1; target = $2; $1 = $2 = ""; print worker " to " target ":" substr($0, 2) }
                END { if (!bad && well != wanted) print worker ": only " well + 0 " of " wanted " were possible" }' "$report"
        done
    )
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 2; }
    saw "$(($(planned worker | count_lines) * $2)) $3 from $(planned worker | count_lines) workers"
}

check_cluster_dns() { judge_probes dns 1 "lookups of kubernetes.default"; }
check_pod_bridge() { judge_probes bridge 1 "bridges in their subnets"; }

check_proxy_rules() {
    judge_probes rules 1 "sets of rules for $SERVICE_IP:443 that name every API server" || return
    modes=$(for worker in $(planned_names worker); do awk '$1 == "rules" { print $2 }' "$work/probe.$worker"; done | sort -u | tr '\n' ' ')
    modes=${modes% }
    if has_feature "proxy-$modes"; then
        saw "mode $modes on $(planned worker | count_lines) workers, $(planned control-plane | count_lines) API servers each"
    else
        saw "mode $modes on $(planned worker | count_lines) workers, though ${PROXY_MODE} was asked for: their kernels have none"
    fi
}

check_coredns_ready() {
    expect "all replicas ready, on at least two workers where there are two"
    wanted=$(kube -n kube-system get deployment coredns -o jsonpath='{.spec.replicas} {.status.readyReplicas}' 2>&1) ||
        { saw "$wanted"; return 1; }
    [ "${wanted#* }" = "${wanted% *}" ] || { saw "${wanted#* } of ${wanted% *} replicas are ready"; return 1; }
    hosts=$(kube -n kube-system get pods -l k8s-app=kube-dns -o go-template='{{range .items}}{{.spec.nodeName}}{{"\n"}}{{end}}' | sort -u | count_lines)
    if [ "$hosts" -lt 2 ] && [ "${wanted% *}" -gt 1 ] && [ "$(planned worker | count_lines)" -gt 1 ]; then
        saw "all ${wanted% *} replicas are on one worker: kubectl -n kube-system rollout restart deployment coredns spreads them"
        return 1
    fi
    saw "${wanted% *} replicas on $hosts workers"
}

check_metrics_server() {
    expect "a line of kubectl top nodes for each of: $(planned_names worker | tr '\n' ' ')"
    top=$(kube top nodes --no-headers 2>&1) || { saw "$(printf '%s' "$top" | tail -n 1)"; return 1; }
    problems=$(
        for worker in $(planned_names worker); do
            printf '%s\n' "$top" | awk -v node="$worker" '$1 "" == node "" && $2 ~ /^[0-9]+m$/ { found = 1 } END { exit !found }' ||
                printf '%s has no metrics yet\n' "$worker"
        done
    )
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "$(planned worker | count_lines) workers"
}

check_images_local() {
    expect "events that say that the image was already present, and none of a pull"
    events=$(kube -n "$namespace" get events -o go-template='{{range .items}}{{.reason}} {{.message}}{{"\n"}}{{end}}' 2>&1) ||
        { saw "$events"; return 1; }
    pulls=$(printf '%s\n' "$events" | grep -e '^Pulling ' -e '^Pulled Successfully' -e '^Pull.* pulled')
    [ -z "$pulls" ] || { saw "$(printf '%s\n' "$pulls" | few)"; return 2; }
    present=$(printf '%s\n' "$events" | grep -c 'already present')
    [ "$present" -gt 0 ] || { saw "no event about an image yet"; return 1; }
    saw "$present events, all of an image already present"
}
