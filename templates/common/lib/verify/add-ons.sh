# Checks of CoreDNS and metrics-server, if the cluster has them.
# needs: nothing
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_coredns_ready() {
    expect "all replicas of CoreDNS are ready, on at least two workers if there are two"
    replicas=$(kube -n kube-system get deployment coredns \
        -o jsonpath='{.spec.replicas} {.status.readyReplicas}' 2>&1) || {
        saw "$replicas"
        return 1
    }
    wanted=${replicas% *} ready=${replicas#* }
    if [ "$ready" != "$wanted" ]; then
        saw "${ready:-0} of $wanted replicas are ready"
        return 1
    fi
    hosts=$(kube -n kube-system get pods -l k8s-app=kube-dns \
        -o go-template='{{range .items}}{{.spec.nodeName}}{{"\n"}}{{end}}' | sort -u | count_lines)
    if [ "$hosts" -lt 2 ] && [ "$wanted" -gt 1 ] && [ "$(count_nodes worker)" -gt 1 ]; then
        saw "all $wanted replicas are on one worker. Spread them:" \
            "kubectl -n kube-system rollout restart deployment coredns"
        return 1
    fi
    saw "$wanted replicas on $hosts workers"
}

check_metrics_server() {
    expect "kubectl top nodes shows each of: $(node_names worker)"
    top=$(kube top nodes --no-headers 2>&1) || {
        saw "$(printf '%s' "$top" | tail -n 1)"
        return 1
    }
    # With the empty string awk compares text: as numbers, 10 and 1e1 are equal.
    conclude "$(
        for worker in $(node_names worker); do
            printf '%s\n' "$top" |
                awk -v node="$worker" '$1 "" == node "" && $2 ~ /^[0-9]+m$/ { found = 1 } END { exit !found }' ||
                printf '%s has no metrics yet\n' "$worker"
        done
    )" "$(count_nodes worker) workers"
}
