#!/bin/sh
# Set labels, annotations and taints of Nodes as in cluster.yaml, and remove those that are no longer there.
#
# Usage: label-nodes.sh [--once]
#
# /etc/kubernetes/node-labels.tsv has what is planned. A worker with labels or taints registers with the taint
# bundler/uninitialized, so that no pod starts on it before; its kubelet may not remove that taint, and this script does
# when all are set. A Node is changed by one patch, which the API refuses if the Node has changed since it was read.
#
# The ConfigMap kube-system/bundler-node-labels has what was set on each Node: of what is no longer planned, only that
# is removed, and only if nobody has changed it since. It also has the digest of the plan. Every control plane runs this
# script, and during a rollout they have different plans: the one that was installed last counts. Control planes with
# another plan change nothing until they are installed too, and after a boot too. Each decision is printed once on
# stdout.
#
# DESTDIR    prepended to the paths of installed files
# INTERVAL   seconds between two checks (default 10)
set -u
LC_ALL=C
PATH=$PATH:/opt/k8s/bin
export LC_ALL PATH
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
# shellcheck source=/dev/null # of the installed bundle
. "${DESTDIR:-}/opt/k8s/bundle/lib/core/environment.sh" || exit 1
plan=${DESTDIR:-}/etc/kubernetes/node-labels.tsv
kubeconfig=${DESTDIR:-}/etc/kubernetes/node-labeler.kubeconfig
claimed=${DESTDIR:-}/var/lib/kube-node-labeler/plan # the digest of the plan that this host has announced
work=${DESTDIR:-}/run/kube-node-labeler
last_problem=''
tab=$(printf '\t')

main() {
    mkdir -p "$work" "${claimed%/*}" || exit 1
    case "${1:-}" in
        '') ;;
        --once)
            label_nodes
            exit
            ;;
        *)
            echo "usage: label-nodes.sh [--once]" >&2
            exit 2
            ;;
    esac
    trap 'exit 0' INT TERM
    echo "setting labels, annotations and taints of Nodes"
    while :; do
        if label_nodes; then last_problem=''; fi
        # A signal ends `wait` at once, but not a sleep in the foreground.
        sleep "${INTERVAL:-10}" &
        wait $!
    done
}

kube() { kubectl --kubeconfig "$kubeconfig" --request-timeout=15s "$@"; }
last_line() { printf '%s\n' "$1" | tail -n 1; }

# report PROBLEM: print it if it is another one than before; returns 1.
report() {
    [ "$1" = "$last_problem" ] || printf '%s\n' "$1"
    last_problem=$1
    return 1
}

# A Node that changed between the look and the patch is looked at again at once: pods wait for the taint's removal.
label_nodes() {
    for _ in 1 2 3 4 5; do
        conflict=''
        look && return 0
        [ -n "$conflict" ] || return 1
    done
    report "the Node $conflict changed during each of 5 attempts to change it"
}

look() {
    digest=$(sha256sum <"$plan") || return 1
    digest=${digest%% *}
    read_record || return 1
    claim_plan || return 1
    kube get nodes -o "go-template-file=$here/node-labels.gotemplate" >"$work/nodes" 2>"$work/answer" || {
        report "cannot list the Nodes: $(tail -n 1 "$work/answer")"
        return 1
    }
    awk -f "$here/node-labels.awk" "$plan" "$work/record" "$work/nodes" >"$work/steps" || return 1
    write_record "$(awk -F "$tab" '$1 == "record" { printf "%s\"%s\":%s", (n++ ? "," : ""), $2, $3 }' "$work/steps")" ||
        return 1
    patch_nodes
}

# Lines "NAME UID KIND|KEY|VALUE...", and "_plan DIGEST": no node has such a name. Sets record_version.
read_record() {
    answer=$(kube -n kube-system get configmap bundler-node-labels \
        -o "go-template-file=$here/node-labels-record.gotemplate" 2>&1) || {
        report "cannot read the ConfigMap bundler-node-labels: $(last_line "$answer")"
        return 1
    }
    record_version=$(printf '%s\n' "$answer" | sed -n '1s,^// ,,p')
    printf '%s\n' "$answer" | sed 1d >"$work/record"
}

# write_record MEMBERS: the members of a JSON object; other values stay. A second control plane that writes at the same
# time is refused.
write_record() {
    [ -n "$1" ] || return 0
    answer=$(kube -n kube-system patch configmap bundler-node-labels --type=merge \
        -p "{\"metadata\":{\"resourceVersion\":\"$record_version\"},\"data\":{$1}}" \
        -o 'jsonpath={.metadata.resourceVersion}' 2>&1) || {
        report "cannot write the ConfigMap bundler-node-labels: $(last_line "$answer")"
        return 1
    }
    record_version=$answer
}

# An installed plan is announced once. Returns 1 if another one was announced since.
claim_plan() {
    announced=$(sed -n 's/^_plan //p' "$work/record")
    if [ "$announced" != "$digest" ]; then
        if [ -n "$announced" ] && [ "$(cat "$claimed" 2>/dev/null)" = "$digest" ]; then
            report "another control plane has a later plan: nothing to do here until this host is installed too"
            return 1
        fi
        write_record "\"_plan\":\"$digest\"" || return 1
        echo "this host's plan of labels, annotations and taints counts from now on"
    fi
    [ "$(cat "$claimed" 2>/dev/null)" = "$digest" ] ||
        { printf '%s\n' "$digest" >"$claimed.new" && sync && mv -f "$claimed.new" "$claimed"; }
}

# Sets conflict to the name of a Node that the API refused to change because it has changed since it was read.
patch_nodes() {
    failed=0
    awk -F "$tab" '$1 == "patch"' "$work/steps" >"$work/patches"
    while IFS=$tab read -r _ node patch; do
        if answer=$(kube patch node "$node" --type=merge -p "$patch" 2>&1 </dev/null); then
            awk -F "$tab" -v node="$node" '
                $1 == "differs" && $2 "" == node "" { print "changed the Node " node ": " $3 }' "$work/steps"
        else
            case $answer in
                *'(Conflict)'*) conflict=$node ;;
                *) report "cannot change the Node $node: $(last_line "$answer")" ;;
            esac
            failed=1
        fi
    done <"$work/patches"
    return "$failed"
}

main "$@"
