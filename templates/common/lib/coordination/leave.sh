# A host leaves its cluster before it is taken away: pods, Node, member of etcd. What it may no longer
# do by then (its bootstrap token, its place in the others' lists) is in the control planes' next bundles.
# needs: drain prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

is_node() { case " $ROLES " in *' worker '*) [ -f "$identity" ] ;; *) return 1 ;; esac; }
is_member() { [ -n "$ETCD_VERSION" ] && [ -f "$prefix/etc/etcd/pki/server.crt" ]; }

# The members beside this one: etcd decides, and their answer is one that a quorum has agreed to.
etcdctl_of_others() {
    others=''
    for endpoint in $ETCD_ENDPOINTS; do
        [ "$endpoint" = "https://$ADDRESS:2379" ] || others="$others${others:+,}$endpoint"
    done
    ETCDCTL_API=3 etcdctl --endpoints="$others" --cacert=/etc/etcd/pki/ca.crt --command-timeout=10s \
        --cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key "$@"
}

# The member's number, out of "8e9e05c52164694d, started, master1, https://…:2380, https://…:2379, false".
own_member() { etcdctl_of_others member list 2>"$work/answer" | awk -F ', ' -v peer="https://$ADDRESS:2380" '$4 == peer { print $1 }'; }

# Before anything is changed.
check_leave() {
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    touch "$work/touched"
    if is_node; then
        list_pods >"$work/pods" 2>"$work/answer" ||
            die 3 "the API does not answer at $ENDPOINT ($(tail -n 1 "$work/answer")): leave when it does; or, where the whole cluster goes, uninstall without --leave"
        bare=$(awk '$3 == "nobody" { print $1 "/" $2 }' "$work/pods" | tr '\n' ' ')
        [ -z "$bare" ] || [ "$drain" = no ] || die 3 "nobody would make these pods anew elsewhere: ${bare% }; delete them, or give --no-drain"
    fi
    is_member || return 0
    case $ETCD_ENDPOINTS in *' '*) ;; *) die 3 "this is the only member of etcd: the cluster would be gone; uninstall without --leave" ;; esac
    member=$(own_member)
    [ -n "$member" ] || [ ! -s "$work/answer" ] ||
        die 3 "the other members of etcd do not answer: $(tail -n 1 "$work/answer")"
}

print_leave() {
    ! is_node || { [ "$drain" = no ] || say "drain    $NODE ($(count_lines <"$work/pods") pods)"; say "delete   node $NODE"; }
    ! is_member || say "remove   etcd's member $NODE"
}

refuse_leave() {
    uncordon_node
    die 3 "$1; nothing was changed"
}

# etcd first: it may refuse, and then nothing was changed. What this member knew the others know.
leave_cluster() {
    if is_node; then
        cordon_node || die 3 "$NODE cannot be cordoned; nothing was changed"
        [ "$drain" = no ] || empty_node
    fi
    if is_member; then
        member=$(own_member)
        if [ -n "$member" ]; then
            etcdctl_of_others member remove "$member" >/dev/null 2>"$work/answer" ||
                refuse_leave "etcd does not let this member go: $(tail -n 1 "$work/answer")"
            note "left etcd"
            say "  etcd goes on without $NODE"
        fi
        systemctl -q disable --now etcd.service
        for path in $DATA_PATHS; do rm -rf "$path/member" "$path"/*.wal; done
    fi
    if is_node; then
        kube delete node "$NODE" --ignore-not-found >/dev/null 2>"$work/answer" ||
            warn "the node $NODE could not be deleted: $(tail -n 1 "$work/answer"); kubectl delete node $NODE"
        note "left the cluster"
        say "  the cluster goes on without the node $NODE"
    fi
}
