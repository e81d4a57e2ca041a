# Drain a worker before what runs its pods is replaced: wait for a slot among the workers, cordon, evict,
# and uncordon afterwards. The kubelet's own certificate is enough: the admission plugin NodeRestriction
# lets a node change its own Node and evict its own pods.
# needs: here slot_wait store work
# sets: drain
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# /var/lib/bundler/ticket     the time at which this node asked for a slot (also its annotation bundler/turn)
# /var/lib/bundler/cordoned   this script cordons the node, and must uncordon it: the value of its annotation
#                             bundler/cordoned, which is set together with the cordon
# After a kill or a power cut the next run uncordons the node, or kube-uncordon.service if there is none.

# Is a path of some unit's DrainOn replaced? DrainOn lists what pods do not survive.
is_drain_due() {
    [ "$drain" = yes ] && ! is_staged && systemctl -q is-active kubelet.service 2>/dev/null || return 1
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    [ -f "$identity" ] || return 1
    for unit in $UNITS; do
        # shellcheck disable=SC2046 # a list of paths
        set -- $(unit_field "$unit" DrainOn)
        [ $# -eq 0 ] || [ -z "$(list_changes_below "$@")" ] || return 0
    done
    return 1
}

kube() {
    HOME=$work kubectl --server="$ENDPOINT" --certificate-authority=/etc/kubernetes/pki/ca.crt \
        --client-certificate="$identity" --client-key="$identity" --request-timeout=10s "$@"
}

# list_nodes [NAME...]: "name|unschedulable|ticket|Ready|cordoned" of those of these nodes that exist; without names
# of the planned workers, which a node may read (bundler:planned-nodes). Control planes of earlier bundles let nodes
# list all Nodes, and from Kubernetes 1.32 on not read one by its name.
list_nodes() {
    # shellcheck disable=SC2046 # a list of names
    [ $# -gt 0 ] || set -- $(planned_workers)
    format=go-template-file=$here/lib/coordination/nodes.gotemplate
    if kube get node "$@" --ignore-not-found -o "$format" >"$work/list" 2>"$work/refusal" ||
        { grep -qi forbidden "$work/refusal" && kube get nodes -o "$format" >"$work/list" 2>/dev/null; }; then
        cat "$work/list"
        return 0
    fi
    cat "$work/refusal" >&2
    return 1
}

planned_workers() {
    printf '%s\n' "$NODES" | tr ' ' '\n' | awk -F '|' '("," $3 ",") ~ /,worker,/ { print $1 }'
}

# "namespace name owner here|going" of the pods of this node that must be evicted: all but those that have
# ended and those that are bound to a node (of DaemonSets, and static pods). An owner "nobody" does not
# create the pod again; "going" pods are being deleted.
list_pods() {
    fields='{.metadata.namespace}|{.metadata.name}|{.status.phase}|{.metadata.ownerReferences[0].kind}|'
    fields="$fields{.metadata.annotations.kubernetes\\.io/config\\.mirror}|{.metadata.deletionTimestamp}"
    kube get pods --all-namespaces --field-selector "spec.nodeName=$NODE" \
        -o jsonpath="{range .items[*]}$fields{\"\\n\"}{end}" >"$work/pods.all" || return 1
    awk -F '|' '
        $3 == "Succeeded" || $3 == "Failed" || $4 == "DaemonSet" || $4 == "Node" || $5 != "" { next }
        { print $1, $2, ($4 == "" ? "nobody" : $4), ($6 == "" ? "here" : "going") }' "$work/pods.all"
}

# The pods of list_pods without an owner, as "namespace/name namespace/name".
list_bare_pods() { awk '$3 == "nobody" { printf "%s%s/%s", space, $1, $2; space = " " }' "$work/pods"; }

# The preflight check "drain": can the pods be evicted? Nothing is changed yet.
check_drain() {
    is_drain_due || return 0
    if is_skipped drain; then
        drain=no
        return 0
    fi
    # node.env decides, not the API: if this is the only worker, the API may run on this host only.
    if ! has_peers worker; then
        leave_pods_here
        return 0
    fi
    if ! list_nodes >"$work/nodes" 2>"$work/answer" || ! list_pods >"$work/pods" 2>"$work/answer"; then
        add_failure drain "pods cannot be evicted: $ENDPOINT does not answer: $(tail -n 1 "$work/answer")" \
            "repair the control plane first; --no-drain leaves the pods on this node"
        return 0
    fi
    # A node that is being installed (it has a ticket) counts: it is back before this node is drained.
    if ! awk -F '|' -v own="$NODE" '
        $1 != own && ($3 != "" || ($2 != "true" && $4 == "True")) { found = 1 }
        END { exit !found }' "$work/nodes"; then
        leave_pods_here
        return 0
    fi
    bare=$(list_bare_pods)
    [ -z "$bare" ] || add_failure drain "these pods have no owner that creates them again on another node: $bare" \
        "delete them, or run them from a Deployment or Job; --no-drain leaves all pods on this node"
}

leave_pods_here() {
    add_advice drain "no other node can take this node's pods: they stay here while their programs are replaced" \
        "add a node, or uncordon one"
    drain=no
}

# Nodes are drained in the order of their tickets. Since the hosts' clocks differ, a cordoned node always
# comes first, and this node checks again for earlier tickets after it has cordoned itself.
take_drain_slot() {
    is_drain_due || return 0
    [ -f "$store/ticket" ] || write_line "$store/ticket" "$(now)"
    ticket=$(cat "$store/ticket")
    kube annotate --overwrite node "$NODE" "bundler/turn=$ticket" >/dev/null ||
        die 3 "cannot annotate the node $NODE with bundler/turn; nothing was changed"
    wait_start=$(now) waits_for=''
    while :; do
        reason=$(find_workers_before cordoned)
        [ -n "$reason" ] || reason=$(find_missing_leader)
        if [ -z "$reason" ]; then
            cordon_node || die 3 "$NODE cannot be cordoned; nothing was changed"
            reason=$(find_workers_before)
            [ -n "$reason" ] || return 0
            uncordon_node
        fi
        waited=$(($(now) - wait_start))
        if [ "$waited" -ge "$slot_wait" ]; then
            die 3 "turn: $reason; nothing was changed (--wait 15m waits for this node's rollout slot)"
        fi
        say_waiting "$reason"
        sleep 5
    done
}

# find_workers_before [cordoned]: print which nodes must be back before this one is drained, if there are
# too many. With "cordoned", cordoned nodes count even if their ticket is later.
find_workers_before() {
    if is_skipped turn; then return 0; fi
    list_nodes 2>/dev/null >"$work/nodes" || {
        echo "$ENDPOINT does not answer"
        return 0
    }
    awk -F '|' -v own="$NODE" -v ticket="$ticket" -v most="$MAX_UNAVAILABLE" -v which="${1:-}" \
        -f "$here/lib/coordination/workers-before.awk" "$work/nodes"
}

# Without a controller manager as leader, Services still have the addresses of evicted pods. That is so for
# about 15 s after a control plane was upgraded. A leader renews its lease (before Kubernetes 1.20 an
# annotation) every 2 s. An API server of an earlier bundle may forbid to read either: then this is not checked.
find_missing_leader() {
    first=$(read_leader) || {
        grep -qi forbidden "$work/refusal" || echo "the leader of kube-controller-manager cannot be read: $(
            tail -n 1 "$work/refusal"
        )"
        return 0
    }
    [ -n "$first" ] || return 0
    for _ in 1 2 3; do
        sleep 2
        next=$(read_leader) || continue
        [ "$next" = "$first" ] || return 0
    done
    echo "kube-controller-manager has no leader"
}

read_leader() {
    kube -n kube-system get lease kube-controller-manager -o jsonpath='{.spec.renewTime}' 2>"$work/refusal" ||
        kube -n kube-system get endpoints kube-controller-manager -o jsonpath='{.metadata.annotations}' \
            2>>"$work/refusal"
}

# release_drain_slot EXIT-CODE: at the end of the script. If it failed before files were replaced, the node
# is uncordoned.
release_drain_slot() {
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    case $1 in
        0 | 4 | 5) ;;
        3) uncordon_node ;;
        *) [ -f "$store/switch" ] || uncordon_node ;;
    esac
    if kube annotate node "$NODE" bundler/turn- >/dev/null 2>"$work/answer" ||
        grep -qi 'not *found' "$work/answer"; then
        rm -f "$store/ticket"
        return 0
    fi
    warn "other nodes still wait for $NODE: $(tail -n 1 "$work/answer");" \
        "run install.sh again, or kubectl annotate node $NODE bundler/turn-"
}

# The file is written first, so that the next run uncordons the node after a kill in between. A node that
# was cordoned by somebody else stays cordoned.
cordon_node() {
    cordoned=$(list_nodes "$NODE") || return 1
    case $cordoned in "$NODE|true|"*) return 0 ;; esac
    cordoned_at=$(print_time)
    write_line "$store/cordoned" "$cordoned_at"
    mark='"annotations":{"bundler/cordoned":"'$cordoned_at'"}'
    kube patch node "$NODE" -p '{"metadata":{'"$mark"'},"spec":{"unschedulable":true}}' >/dev/null
}

uncordon_node() {
    [ -f "$store/cordoned" ] || return 0
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    read -r cordoned_at <"$store/cordoned"
    former=''
    cordoned=$(list_nodes "$NODE" 2>"$work/answer") || {
        warn_of_cordon
        return 0
    }
    case $cordoned in
        '') ;;
        "$NODE|true|"*"|$cordoned_at") former=',"spec":{"unschedulable":null}' ;;
        "$NODE|true|"*) warn "$NODE stays cordoned, because somebody else cordoned it: kubectl uncordon $NODE" ;;
    esac
    [ -z "$cordoned" ] || unmark_node "$former" || return 0
    rm -f "$store/cordoned"
    [ -n "$former" ] || return 0
    note "uncordoned $NODE"
    say "  $NODE is uncordoned"
}

unmark_node() {
    marks='"annotations":{"bundler/cordoned":null},"labels":{"bundler/leave":null}'
    kube patch node "$NODE" -p '{"metadata":{'"$marks}$1}" >"$work/answer" 2>&1 && return 0
    warn_of_cordon
    return 1
}

warn_of_cordon() {
    warn "$NODE stays cordoned: $(tail -n 1 "$work/answer"); run install.sh again, or kubectl uncordon $NODE"
}

is_drain_interrupted() { [ -f "$store/cordoned" ] || [ -f "$store/ticket" ]; }

# A run that was killed, or lost power, left the node cordoned, or its slot taken. With the lock.
end_interrupted_drain() {
    uncordon_node
    [ ! -f "$store/ticket" ] || release_drain_slot 0
}

drain_node() {
    ! is_drain_due || evict_pods
}

evict_pods() {
    say "  $NODE is cordoned; evicting its pods"
    drain_start=$(now) next_message=15
    until list_pods >"$work/pods" 2>"$work/answer" && [ ! -s "$work/pods" ]; do
        : >"$work/refusals"
        grep ' here$' "$work/pods" | while read -r namespace pod _; do evict_pod "$namespace" "$pod"; done
        waited=$(($(now) - drain_start))
        [ "$waited" -lt "$DRAIN_LIMIT" ] || give_up_draining
        if [ "$waited" -ge "$next_message" ]; then
            next_message=$((waited + 15))
            refusal=$(sed -n '1s/^/: /p' "$work/refusals")
            say "  after $waited s $(count_lines <"$work/pods") pods are still here$refusal"
        fi
        sleep 2
    done
    note "drained $NODE"
    say "  all pods are evicted, except those of DaemonSets ($(($(now) - drain_start)) s)"
}

# evict_pod NAMESPACE NAME. A disruption budget may refuse for now; a pod that no longer exists is fine.
evict_pod() {
    printf '{"apiVersion":"%s","kind":"Eviction","metadata":{"name":"%s","namespace":"%s"}}\n' \
        "$EVICTION_API" "$2" "$1" |
        kube create --raw "/api/v1/namespaces/$1/pods/$2/eviction" -f - >/dev/null 2>"$work/answer" && return 0
    grep -qi 'not *found' "$work/answer" ||
        printf '%s/%s: %s\n' "$1" "$2" "$(tail -n 1 "$work/answer" | cut -c1-200)" >>"$work/refusals"
}

give_up_draining() {
    left=$(awk '{ printf "%s%s/%s", space, $1, $2; space = " " }' "$work/pods")
    why=$(sed -n 1p "$work/refusals")
    uncordon_node
    die 3 "after $DRAIN_LIMIT s these pods are still here: $left${why:+ ($why)};" \
        "nothing was changed (upgrade.drain_minutes sets the limit; --no-drain leaves pods on this node)"
}
