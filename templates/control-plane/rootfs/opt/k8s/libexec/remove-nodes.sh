#!/bin/sh
# Delete the Nodes of hosts that leave the cluster (uninstall.sh --leave).
#
# Usage: remove-nodes.sh [--once]
#
# A host may not delete its own Node: one that is compromised would register it again, without the taint of an
# administrator. A host that leaves stops its kubelet, and then labels its Node bundler/leave=TIME. This script
# deletes such a Node, unless it has a taint or label that only an administrator sets, or its kubelet has reported
# since TIME: then the host was installed again. Each decision is printed once on stdout.
#
# DESTDIR    prepended to the paths of installed files
# INTERVAL   seconds between two checks (default 10)
set -u
LC_ALL=C
PATH=$PATH:/opt/k8s/bin
export LC_ALL PATH
bundle=${DESTDIR:-}/opt/k8s/bundle
# shellcheck source=/dev/null # of the installed bundle
. "$bundle/lib/core/environment.sh" || exit 1
marks=$bundle/lib/coordination/node-marks
kubeconfig=${DESTDIR:-}/etc/kubernetes/node-remover.kubeconfig
reported=' '    # requests whose decision was printed, as NAME=TIME:REASON
last_problem='' # of listing the Nodes
tab=$(printf '\t')

main() {
    case "${1:-}" in
        '') ;;
        --once)
            check_requests
            exit
            ;;
        *)
            echo "usage: remove-nodes.sh [--once]" >&2
            exit 2
            ;;
    esac
    trap 'exit 0' INT TERM
    echo "deleting the Nodes of hosts that leave"
    while :; do
        check_requests
        # A signal ends `wait` at once, but not a sleep in the foreground.
        sleep "${INTERVAL:-10}" &
        wait $!
    done
}

kube() { kubectl --kubeconfig "$kubeconfig" --request-timeout=15s "$@"; }

check_requests() {
    if ! leaving=$(kube get nodes -l bundler/leave -o go-template-file="$marks.gotemplate" 2>&1); then
        leaving=$(printf '%s' "$leaving" | tail -n 1)
        [ "$leaving" = "$last_problem" ] || echo "cannot list the Nodes: $leaving"
        last_problem=$leaving
        return 1
    fi
    RECORD=''
    [ -z "$leaving" ] || RECORD=$(kube -n kube-system get configmap bundler-node-labels --ignore-not-found \
        -o "go-template={{ range \$name, \$value := .data }}{{ \$name }} {{ \$value }}{{ \"\\n\" }}{{ end }}" 2>&1) || {
        RECORD=$(printf '%s' "$RECORD" | tail -n 1)
        [ "$RECORD" = "$last_problem" ] || echo "cannot read the ConfigMap bundler-node-labels: $RECORD"
        last_problem=$RECORD
        return 1
    }
    export RECORD
    last_problem=''
    still_there=' '
    while IFS=$tab read -r name uid version time marks_found; do
        [ -z "$name" ] || decide
    done <<LIST
$(printf '%s\n' "$leaving" | awk -v planned="$(planned_taints)" -f "$marks.awk")
LIST
    reported=$still_there
}

planned_taints() { sed -n "s/^PLANNED_TAINTS='\(.*\)'\$/\1/p" "$bundle/node.env"; }

# Delete or keep the Node in the variables of check_requests; print the decision if it is new.
decide() {
    if reason=$(find_objection); then
        decision='kept'
    elif answer=$(delete_node 2>&1); then
        echo "deleted the Node $name: its host leaves"
        return 0
    else
        decision='could not delete' reason=$(printf '%s' "$answer" | tail -n 1)
    fi
    key=$(printf '%s' "$name=$time:$reason" | tr ' ' _)
    case $reported in *" $key "*) ;; *) echo "$decision the Node $name: $reason" ;; esac
    still_there="$still_there$key "
}

# Print why the Node must be kept and return 0, or return 1 if it may be deleted.
find_objection() {
    if [ "$marks_found" != - ]; then
        echo "it has $marks_found, which an administrator set: remove that, or run forget-node.sh $name"
        return 0
    fi
    case $time in *[!0-9]* | '')
        echo "its label bundler/leave is not a time: $time"
        return 0
        ;;
    esac
    last_report=$(kube -n kube-node-lease get lease "$name" --ignore-not-found \
        -o 'jsonpath={.spec.renewTime}' 2>&1) || {
        echo "its Lease cannot be read: $(printf '%s' "$last_report" | tail -n 1)"
        return 0
    }
    [ -n "$last_report" ] || return 1
    # Both are by the clock of the host: 20260131102030 and 2026-01-31T10:20:30.123456Z.
    awk -v asked="$time" -v reported="$last_report" 'BEGIN {
        gsub(/[^0-9]/, "", reported)
        exit !(substr(reported, 1, 14) + 0 > asked + 0)
    }' || return 1
    echo "its kubelet runs again since the host asked to leave"
}

# Only the Node that was looked at: if an administrator has just marked it, the next look decides. kubectl has
# delete --raw from Kubernetes 1.16 on.
delete_node() {
    case $(kubectl delete --help) in
        *--raw*)
            printf '{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"%s","resourceVersion":"%s"}}' \
                "$uid" "$version" | kube delete --raw "/api/v1/nodes/$name" -f -
            ;;
        *) kube delete node "$name" --ignore-not-found --wait=false ;;
    esac
}

main "$@"
