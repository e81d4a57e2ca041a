# Checks of the workers: registration and kubelets.
# needs: here pki prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_nodes_ready() {
    expect "exactly the planned nodes, all Ready and without a pressure condition: $(node_names worker)"
    kube get nodes -o go-template-file="$here/lib/verify/nodes.gotemplate" >"$work/nodes" 2>&1 || {
        saw "$(cat "$work/nodes")"
        return 1
    }
    conclude "$(PLANNED=$(node_pairs worker) awk -f "$here/lib/verify/nodes.awk" "$work/nodes")" \
        "$(count_nodes worker) nodes Ready"
}

# Without a record, which only kube-node-labeler reads: marks of others are not looked at.
check_node_labels() {
    expect "on every worker what is in $prefix/etc/kubernetes/node-labels.tsv, and no taint bundler/uninitialized"
    labels=$prefix/opt/k8s/libexec/node-labels
    kube get nodes -o go-template-file="$labels.gotemplate" >"$work/node-labels" 2>"$work/node-labels.answer" || {
        saw "$(cat "$work/node-labels.answer")"
        return 1
    }
    awk -f "$labels.awk" "$prefix/etc/kubernetes/node-labels.tsv" /dev/null "$work/node-labels" \
        >"$work/node-labels.steps"
    planned=$(awk -F '\t' '$1 == "count" { n[$2] = $3 }
        END { print n["label"] + 0 " labels, " n["taint"] + 0 " taints, " n["annotation"] + 0 " annotations" }' \
        "$work/node-labels.steps")
    conclude "$(awk -F '\t' '$1 == "differs" { print $2 ": " $3 } $1 == "missing" { print $2 " is not registered" }' \
        "$work/node-labels.steps")" "$planned on $(count_nodes worker) workers"
}

check_kubelet_certificates() {
    expect "no pending request of a planned kubelet or of a bootstrap token," \
        "and TLS that verifies against $pki/ca.crt on every worker"
    requests=$(kube get csr -o go-template-file="$here/lib/verify/pending-csrs.gotemplate" 2>&1) || {
        saw "$requests"
        return 1
    }
    # shellcheck disable=SC2046 # a list of words
    conclude "$(
        printf '%s\n' "$requests" | while IFS='	' read -r name requester signer; do
            case "$signer $requester" in
                '"kubernetes.io/kubelet-serving" "system:node:'*)
                    node=${requester#\"system:node:}
                    is_planned worker "${node%\"}" || continue
                    ;;
                '"kubernetes.io/kube-apiserver-client-kubelet" "system:bootstrap:'*) ;;
                *) continue ;;
            esac
            printf 'request %s of %s is not approved (journalctl -u kube-csr-approver)\n' "$name" "$requester"
        done
        for_each 8 probe_kubelet_certificate $(node_pairs worker)
    )" "$(count_nodes worker) certificates verified"
}

# probe_kubelet_certificate NAME|ADDRESS. Any status shows that the TLS connection was made.
probe_kubelet_certificate() {
    status=$(https_status "${1#*|}" 10250 /healthz "$pki/ca.crt")
    case $status in 000*) printf '%s (%s:10250): %s\n' "${1%|*}" "${1#*|}" "${status#000 }" ;; esac
}

check_kubelet_metrics() {
    expect "status 200 and metrics from /metrics and /metrics/cadvisor of every kubelet"
    # shellcheck disable=SC2046 # a list of words
    conclude "$(for_each 8 probe_kubelet_metrics $(node_pairs worker))" "$(count_nodes worker) kubelets"
}

# probe_kubelet_metrics NAME|ADDRESS
probe_kubelet_metrics() {
    for path in /metrics:kubelet_ /metrics/cadvisor:machine_cpu_cores; do
        as_admin "${1#*|}" 10250 "${path%:*}" | find_metric "${1%|*} (${1#*|}:10250${path%:*})" "${path#*:}"
    done
}

check_kubelet_configz() {
    expect "every setting of $here/lib/kubelet-configz.tsv in /configz of every kubelet"
    # shellcheck disable=SC2046 # a list of words
    conclude "$(for_each 8 probe_configz $(node_names worker))" \
        "$(count_lines <"$here/lib/kubelet-configz.tsv") settings on $(count_nodes worker) workers"
}

# probe_configz NAME
probe_configz() {
    if ! kube get --raw "/api/v1/nodes/$1/proxy/configz" >"$work/configz.$1" 2>&1; then
        printf '%s: %s\n' "$1" "$(tail -n 1 "$work/configz.$1")"
        return 0
    fi
    awk -v name="$1" -v settings="$here/lib/kubelet-configz.tsv" -v own="$here/lib/kubelet-configz-nodes.tsv" \
        -f "$here/lib/verify/configz.awk" "$work/configz.$1"
}

check_kubelet_authorization() {
    expect "status 401 without a certificate, 403 as the controller manager, 200 as an administrator," \
        "on every worker"
    # shellcheck disable=SC2046 # a list of words
    conclude "$(for_each 8 probe_kubelet_authorization $(node_pairs worker))" \
        "401, 403, 200 from $(count_nodes worker) kubelets"
}

# probe_kubelet_authorization NAME|ADDRESS
probe_kubelet_authorization() {
    anonymous=$(https_status "${1#*|}" 10250 /metrics "$pki/ca.crt")
    wrong=$(https_status "${1#*|}" 10250 /metrics "$pki/ca.crt" "$work/wrong.crt" "$work/wrong.key")
    right=$(https_status "${1#*|}" 10250 /metrics "$pki/ca.crt" "$work/admin.crt" "$work/admin.key")
    [ "$anonymous $wrong $right" = "401 403 200" ] ||
        printf '%s (%s:10250): without a certificate %s, as the controller manager %s, as an administrator %s\n' \
            "${1%|*}" "${1#*|}" "$anonymous" "$wrong" "$right"
}
