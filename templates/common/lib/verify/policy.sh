# The check of NetworkPolicies: what one admits and what it does not, from clients on every worker.
# needs: admin here kubectl namespace server work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# The pods of the policy may start later than those of the other checks: collect_from_pods does not wait for them.
check_network_policy() {
    expect "on every worker admitted pods reach guarded pods and their Service; refused pods, those of another port," \
        "and other workers do not"
    read_pods
    missing=$(for app in guarded admitted refused other-port; do list_missing_pods "$app"; done)
    conclude "$missing" "all pods run" || return 1
    targets=$(awk '$1 == "guarded" && $4 == "Running" && $5 != "-" { printf "%s:80 ", $5 }' "$work/pods")
    service=$(kube -n "$namespace" get service guarded -o 'jsonpath={.spec.clusterIP}' 2>&1) || {
        saw "$service"
        return 1
    }
    # shellcheck disable=SC2046,SC2086 # lists of words
    conclude "$(for_each 4 probe_policy $(node_names worker))" \
        "$(count_nodes worker) workers: $(count_words $targets) pods and their Service, as the policy says"
}

# probe_policy NODE: a line for each flow that is not as the policy says.
probe_policy() {
    probe_flows "$1" admitted open "$targets $service:80"
    probe_flows "$1" refused closed "$targets $service:80"
    probe_flows "$1" other-port closed "$targets $service:80"
    # A node always reaches its own pods, so that the kubelet can probe them.
    probe_flows "$1" probe closed "$(awk -v node="$1" '
        $1 == "guarded" && $2 "" != node "" && $4 == "Running" && $5 != "-" { printf "%s:80 ", $5 }' "$work/pods")"
}

# probe_flows NODE CLIENT open|closed "ADDRESS:PORT..."
probe_flows() {
    [ -n "$4" ] || return 0
    flows=$work/policy.$1.$2
    # shellcheck disable=SC2086 # a list of targets
    timeout 45 "$kubectl" --kubeconfig "$admin" --server "$server" -n "$namespace" exec "$(find_pod "$2" "$1")" -- \
        sh -c "$(cat "$here/lib/verify/policy-probe.sh")" probe "$2" "$3" $4 >"$flows" 2>"$flows.error"
    if has_probe_ended "$flows"; then
        # shellcheck disable=SC2086
        awk -v worker="$1 ($2)" -v kind="$2" -v wanted="$(count_words $4)" -f "$here/lib/verify/probes.awk" "$flows"
    else
        printf '%s (%s): %s\n' "$1" "$2" "$(one_line "$flows.error")"
    fi
}
