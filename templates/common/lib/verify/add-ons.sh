# Checks of CoreDNS and metrics-server, and of the add-ons of cluster.yaml, if the cluster has them.
# needs: prefix
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

check_addons() {
    expect "every add-on of $prefix/etc/kubernetes/site-addons is ready, its objects are as it has them, and" \
        "those of its verify have their condition"
    conclude "$(
        for addon in $(list_site_addons); do
            state=$(kube -n kube-system get configmap "bundler-addon-$addon" \
                -o 'jsonpath={.data.state}: {.data.reason}' 2>&1)
            case $state in
                'ready: '*)
                    list_drift "$addon"
                    list_unmet "$addon"
                    ;;
                *) printf '%s: %s\n' "$addon" "$(printf '%s' "$state" | tail -n 1)" ;;
            esac
        done
    )" "$(list_site_addons | count_lines) add-ons, no drift"
}

list_site_addons() { awk -F '\t' '!/^#/ && NF { print $1 }' "$prefix/etc/kubernetes/site-addons/addons.tsv"; }

# Objects that somebody changed or deleted since they were applied: kubectl diff says so with code 1. A Job that is gone
# has completed.
list_drift() {
    for drift_file in "$prefix/etc/kubernetes/site-addons/$1"/*.yaml; do
        # shellcheck disable=SC2086 # a list of options
        drift=$(KUBECTL_EXTERNAL_DIFF="$prefix/opt/k8s/libexec/differing-objects.sh" \
            kube diff ${DIFF_FLAGS:-} -f "$drift_file" 2>&1)
        case $? in
            0) ;;
            1)
                printf '%s\n' "$drift" | awk -v addon="$1" '
                    $1 ~ /^batch\.[a-z0-9]+\.Job\./ && $2 == "missing" { next }
                    NF == 2 { print addon ": " $1 " is " $2 }'
                ;;
            *) printf '%s: kubectl diff: %s\n' "$1" "$(printf '%s' "$drift" | tail -n 1)" ;;
        esac
    done
}

# list_unmet ADDON: the objects of its `verify` that are missing, or whose condition is not True.
list_unmet() {
    [ -f "$prefix/etc/kubernetes/site-addons/verify.tsv" ] || return 0
    # With the empty string awk compares text: as numbers, 10 and 1e1 are equal.
    awk -F '\t' -v addon="$1" '$1 "" == addon "" { print $2, $3, $4, $5 }' \
        "$prefix/etc/kubernetes/site-addons/verify.tsv" |
        while read -r kind namespace name condition; do
            status=$(kube -n "$namespace" get "$kind" "$name" \
                -o "jsonpath={.status.conditions[?(@.type==\"$condition\")].status}" 2>&1 </dev/null) || {
                printf '%s: %s %s: %s\n' "$1" "$kind" "$name" "$(printf '%s' "$status" | tail -n 1)"
                continue
            }
            case $condition/$status in
                -/* | */True) ;;
                *) printf '%s: %s %s: %s is %s, not True\n' "$1" "$kind" "$name" "$condition" "${status:-missing}" ;;
            esac
        done
}
