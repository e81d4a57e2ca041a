# Take this host out of its cluster (uninstall.sh --leave): evict its pods, remove its etcd member, stop its kubelet,
# and ask the control planes to delete its Node, which no host may do itself (kube-node-remover.service there). Its
# bootstrap token and its place in node.env of the others go with the control planes' next bundles.
# needs: drain here prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

LEAVE_LIMIT=60 # how long to wait until a control plane has deleted the Node, in seconds

is_node() { case " $ROLES " in *' worker '*) [ -f "$identity" ] ;; *) return 1 ;; esac }
is_member() { [ -n "$ETCD_VERSION" ] && [ -f "$prefix/etc/etcd/pki/server.crt" ]; }

# etcdctl at the other members: only they can remove this one, by a quorum.
etcdctl_at_others() {
    others=''
    for endpoint in $ETCD_ENDPOINTS; do
        [ "$endpoint" = "https://$ADDRESS:2379" ] || others="$others${others:+,}$endpoint"
    done
    ETCDCTL_API=3 etcdctl --endpoints="$others" --cacert=/etc/etcd/pki/ca.crt --command-timeout=10s \
        --cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key "$@"
}

# Sets member: the member ID, from a line like "8e9e05c52164694d, started, master1, https://…:2380, https://…:2379,
# false"; nothing if this host is not listed (any more). Returns 1 if the list cannot be read.
read_own_member() {
    member=''
    etcdctl_at_others member list >"$work/members" 2>"$work/answer" || return 1
    member=$(awk -F ', ' -v peer="https://$ADDRESS:2380" '$4 == peer { print $1 }' "$work/members")
}

# Can this host leave? Nothing is changed yet.
check_leave() {
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    touch "$work/touched"
    if is_node; then
        { describe_node >"$work/node" && list_pods >"$work/pods"; } 2>"$work/answer" ||
            die 3 "the API at $ENDPOINT does not answer ($(tail -n 1 "$work/answer")): try again when it does;" \
                "if the whole cluster is removed, uninstall without --leave"
        check_marks
        bare=$(list_bare_pods)
        [ -z "$bare" ] || [ "$drain" = no ] ||
            die 3 "these pods have no owner that creates them again on another node: $bare;" \
                "delete them, or give --no-drain"
    fi
    is_member || return 0
    case $ETCD_ENDPOINTS in
        *' '*) ;;
        *) die 3 "this is the only member of etcd: removing it would destroy the cluster; uninstall without --leave" ;;
    esac
    read_own_member ||
        die 3 "the other members of etcd do not answer: $(tail -n 1 "$work/answer")"
}

# The Node of this host as node-marks.gotemplate prints it; nothing if it does not exist (any more).
describe_node() {
    kube get node "$NODE" --ignore-not-found -o go-template-file="$here/lib/coordination/node-marks.gotemplate"
}

# kube-node-remover would refuse for the same reason.
check_marks() {
    marks=$(awk -v planned="$PLANNED_TAINTS $PLANNED_LABELS" -f "$here/lib/coordination/node-marks.awk" "$work/node" |
        cut -f 5)
    case $marks in
        '' | -) ;;
        *)
            die 3 "the Node $NODE has $marks, which an administrator set, so no control plane deletes it;" \
                "nothing was changed. Remove that with kubectl, or uninstall without --leave and then run" \
                "/opt/k8s/libexec/forget-node.sh $NODE on a control plane"
            ;;
    esac
}

print_leave() {
    if is_node; then
        [ "$drain" = no ] || say "drain    $NODE ($(count_lines <"$work/pods") pods)"
        say "delete   node $NODE"
    fi
    ! is_member || say "remove   etcd member $NODE"
}

refuse_leave() {
    uncordon_node
    die 3 "$1; nothing was changed"
}

# etcd comes first: it may refuse, and then nothing was changed. The other members have all of its data.
leave_cluster() {
    if is_node && [ -s "$work/node" ]; then
        cordon_node || die 3 "$NODE cannot be cordoned; nothing was changed"
        [ "$drain" = no ] || evict_pods
    fi
    if is_member; then
        read_own_member || refuse_leave "the other members of etcd do not answer: $(tail -n 1 "$work/answer")"
        if [ -n "$member" ]; then
            etcdctl_at_others member remove "$member" >/dev/null 2>"$work/answer" ||
                refuse_leave "etcd refuses to remove this member: $(tail -n 1 "$work/answer")"
            note "left etcd"
            say "  removed $NODE from etcd"
        fi
        systemctl -q disable --now etcd.service
        for path in $DATA_PATHS; do
            { remove_tree "$path/member" && rm -f "$path"/*.wal "$path"/wal/*.wal; } ||
                die 1 "cannot remove $path/member, the data of a member that is removed: run it again"
        done
    fi
    ! is_node || leave_api
}

# The kubelet stops first, so that it does not register the host again, not even after a power cut. If it reports
# after the time in the label, the host was installed again, and nobody deletes its Node.
leave_api() {
    systemctl -q disable --now kubelet.service
    if ! kube label --overwrite node "$NODE" "bundler/leave=$(date -u +%Y%m%d%H%M%S)" >/dev/null 2>"$work/answer"; then
        ! grep -qi 'not *found' "$work/answer" || return 0
        warn_of_node "cannot ask for the deletion of the Node $NODE: $(tail -n 1 "$work/answer")"
        return 0
    fi
    say "  waiting until a control plane has deleted the Node $NODE"
    wait_start=$(now)
    until is_node_gone; do
        if [ $(($(now) - wait_start)) -ge "$LEAVE_LIMIT" ]; then
            warn_of_node "after $LEAVE_LIMIT s the Node $NODE still exists: see journalctl -u kube-node-remover there"
            return 0
        fi
        sleep 2
    done
    note "left the cluster"
    say "  the Node $NODE is deleted"
}

is_node_gone() { describe_node >"$work/node" 2>"$work/answer" && [ ! -s "$work/node" ]; }

# warn_of_node WHAT: the host goes on without --leave's last step, which an administrator can do without it.
warn_of_node() {
    warn "$1; when this host is uninstalled, run /opt/k8s/libexec/forget-node.sh $NODE on a control plane"
}
