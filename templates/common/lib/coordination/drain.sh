# A worker is emptied before what runs its pods is replaced: its turn among the workers, cordon,
# evictions, and afterwards the node takes pods again. All of it by the kubelet's own rights: the
# admission plugin NodeRestriction lets a node change and evict what is its own, and nothing else.
# needs: store turn_limit work
# sets: drain
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# /var/lib/bundler/ticket     when this node asked for its turn (its annotation bundler/turn says so too)
# /var/lib/bundler/cordoned   this script cordoned the node, and is to take that back

# A unit's DrainOn says what pods do not outlive well.
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

# "name|unschedulable|ticket|Ready" of every node.
list_nodes() {
    kube get nodes -o jsonpath='{range .items[*]}{.metadata.name}|{.spec.unschedulable}|{.metadata.annotations.bundler/turn}|{range .status.conditions[?(@.type=="Ready")]}{.status}{end}{"\n"}{end}'
}

# "namespace name owner" of the pods that must go: neither ended nor bound to this node by their kind.
list_pods() {
    kube get pods --all-namespaces --field-selector "spec.nodeName=$NODE" -o jsonpath='{range .items[*]}{.metadata.namespace}|{.metadata.name}|{.status.phase}|{.metadata.ownerReferences[0].kind}|{.metadata.annotations.kubernetes\.io/config\.mirror}|{.metadata.deletionTimestamp}{"\n"}{end}' >"$work/pods.all" || return 1
    awk -F '|' '$3 != "Succeeded" && $3 != "Failed" && $4 != "DaemonSet" && $4 != "Node" && $5 == "" { print $1, $2, ($4 == "" ? "nobody" : $4), ($6 == "" ? "here" : "going") }' "$work/pods.all"
}

# Before anything is changed: can the pods go at all?
check_drain() {
    is_drain_due || return 0
    if is_skipped drain; then drain=no; return; fi
    # By the plan, whatever the API says: where this worker is the only one, the API may be away with it.
    if ! is_shared worker; then leave_pods_here; return; fi
    if ! list_nodes >"$work/nodes" 2>"$work/answer" || ! list_pods >"$work/pods" 2>"$work/answer"; then
        add_failure drain "pods cannot be moved away: $ENDPOINT says $(tail -n 1 "$work/answer")" "mend the control plane first; --no-drain leaves the pods where they are"
        return
    fi
    # One that has its turn comes back before this one goes.
    if ! awk -F '|' -v own="$NODE" '$1 != own && ($3 != "" || ($2 != "true" && $4 == "True")) { found = 1 } END { exit !found }' "$work/nodes"; then
        leave_pods_here
        return
    fi
    bare=$(awk '$3 == "nobody" { print $1 "/" $2 }' "$work/pods" | tr '\n' ' ')
    [ -z "$bare" ] || add_failure drain "nobody would make these pods anew elsewhere: ${bare% }" "delete them, or let a Deployment or Job own them; --no-drain leaves all pods where they are"
}

leave_pods_here() {
    add_advice drain "no other node could take this node's pods: they stay here while their programs are replaced" "add a node, or uncordon one"
    drain=no
}

# Nodes stand in line by the time at which they asked, and hosts' clocks differ: so one that is
# cordoned counts wherever it stands, and after its own cordon a node looks again who stood before it.
take_drain_turn() {
    is_drain_due || return 0
    [ -f "$store/ticket" ] || write_line "$store/ticket" "$(now)"
    ticket=$(cat "$store/ticket")
    kube annotate --overwrite node "$NODE" "bundler/turn=$ticket" >/dev/null || die 3 "this node cannot ask for its turn; nothing was changed"
    turn_begun=$(now) told=0
    while :; do
        reason=$(find_workers_before cordoned)
        [ -n "$reason" ] || reason=$(find_no_leader)
        if [ -z "$reason" ]; then
            cordon_node || die 3 "$NODE cannot be cordoned; nothing was changed"
            reason=$(find_workers_before)
            [ -n "$reason" ] || return 0
            uncordon_node
        fi
        waited=$(($(now) - turn_begun))
        if [ "$waited" -ge "$turn_limit" ]; then
            die 3 "turn: $reason; nothing was changed (--wait 15m waits for this node's turn)"
        fi
        [ "$waited" -lt "$told" ] || { say "  waiting for this node's turn: $reason"; told=$((waited + 30)); }
        sleep 5
    done
}

# find_workers_before [cordoned]: who must come back first, if anybody; `cordoned` nodes too that asked later.
find_workers_before() {
    if is_skipped turn; then return; fi
    list_nodes 2>/dev/null >"$work/nodes" || { echo "$ENDPOINT does not answer"; return; }
    awk -F '|' -v own="$NODE" -v ticket="$ticket" -v most="$MAX_UNAVAILABLE" -v which="${1:-}" '
        $1 == own { next }
        $3 != "" && ($3 + 0 < ticket || ($3 + 0 == ticket && $1 < own) || (which == "cordoned" && $2 == "true")) { n++; line = line " " $1 " (its turn)"; next }
        $3 == "" && $2 == "true" { n++; line = line " " $1 " (cordoned)"; next }
        $3 == "" && $4 != "True" { n++; line = line " " $1 " (not Ready)" }
        END { if (n >= most) print "away:" line ", and only " most " may be at a time (upgrade.max_unavailable)" }' "$work/nodes"
}

# Without a controller manager that leads, Services go on naming pods that were evicted: so it is for
# some 15 s after a control plane was upgraded. A leader renews its lease, before 1.20 an annotation,
# every 2 s. Where this may not be read, nothing is known.
find_no_leader() {
    first=$(read_leader)
    [ -n "$first" ] || return 0
    for _ in 1 2 3; do
        sleep 2
        [ "$(read_leader)" = "$first" ] || return 0
    done
    echo "no kube-controller-manager leads"
}

read_leader() {
    kube -n kube-system get lease kube-controller-manager -o jsonpath='{.spec.renewTime}' 2>/dev/null ||
        kube -n kube-system get endpoints kube-controller-manager -o jsonpath='{.metadata.annotations}' 2>/dev/null
}

# release_drain_turn CODE: when the script ends; where it failed before files moved the node takes pods again.
release_drain_turn() {
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    case $1 in 0 | 4 | 5) ;; 3) uncordon_node ;; *) [ -f "$store/switch" ] || uncordon_node ;; esac
    if kube annotate node "$NODE" bundler/turn- >/dev/null 2>"$work/answer" || grep -qi 'not *found' "$work/answer"; then
        rm -f "$store/ticket"
        return
    fi
    warn "others still wait for $NODE: $(tail -n 1 "$work/answer"); run install.sh again, or kubectl annotate node $NODE bundler/turn-"
}

# The mark comes first: a kill between the two is healed by the next run. Who cordoned it before stays its master.
cordon_node() {
    case $(list_nodes | awk -F '|' -v own="$NODE" '$1 == own { print $2 }') in true) return ;; esac
    write_line "$store/cordoned" "$(print_time)"
    kube patch node "$NODE" -p '{"spec":{"unschedulable":true}}' >/dev/null
}

uncordon_node() {
    [ -f "$store/cordoned" ] || return 0
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    if ! kube patch node "$NODE" -p '{"spec":{"unschedulable":null}}' >"$work/answer" 2>&1; then
        warn "$NODE stays cordoned: $(tail -n 1 "$work/answer"); run install.sh again, or kubectl uncordon $NODE"
        return 0
    fi
    rm -f "$store/cordoned"
    note "uncordoned $NODE"
    say "  $NODE takes pods again"
}

drain_node() {
    ! is_drain_due || empty_node
}

empty_node() {
    say "  $NODE is cordoned; its pods go to other nodes"
    drain_begun=$(now) told=0
    until list_pods >"$work/pods" 2>"$work/answer" && [ ! -s "$work/pods" ]; do
        : >"$work/refusals"
        grep ' here$' "$work/pods" | while read -r namespace pod _; do evict_pod "$namespace" "$pod"; done
        waited=$(($(now) - drain_begun))
        if [ "$waited" -ge "$DRAIN_LIMIT" ]; then give_up_draining; fi
        if [ "$waited" -ge $((told + 15)) ]; then
            told=$waited
            say "  after $waited s $(count_lines <"$work/pods") pods are still here$(sed -n '1s/^/: /p' "$work/refusals")"
        fi
        sleep 2
    done
    note "drained $NODE"
    say "  no pod is left but those of DaemonSets ($(($(now) - drain_begun)) s)"
}

# A disruption budget says no for now; a pod that is gone is well.
evict_pod() {
    printf '{"apiVersion":"%s","kind":"Eviction","metadata":{"name":"%s","namespace":"%s"}}\n' "$EVICTION_API" "$2" "$1" |
        kube create --raw "/api/v1/namespaces/$1/pods/$2/eviction" -f - >/dev/null 2>"$work/answer" && return
    grep -qi 'not *found' "$work/answer" || printf '%s/%s: %s\n' "$1" "$2" "$(tail -n 1 "$work/answer" | cut -c1-200)" >>"$work/refusals"
}

give_up_draining() {
    left=$(awk '{ print $1 "/" $2 }' "$work/pods" | tr '\n' ' ')
    why=$(sed -n 1p "$work/refusals")
    uncordon_node
    die 3 "after $DRAIN_LIMIT s these pods are still here: $left${why:+($why) }- nothing was changed (upgrade.drain_minutes; --no-drain leaves pods where they are)"
}
