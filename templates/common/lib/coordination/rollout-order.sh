# Is it this host's turn? No controller knows, so each host looks at the others before it restarts
# what they need: a quorum of etcd, an API server that answers, and the versions that Kubernetes allows.
# needs: dry_run here prefix turn_limit work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

minor() { printf '%s\n' "$1" | cut -d. -f2; }
installed_field() { sed -n "s/^$1='\(.*\)'\$/\1/p" "$prefix/opt/k8s/bundle/node.env" 2>/dev/null; }

# One minor after another, and none back: both sides of each table of upgrades know only their neighbour.
check_upgrade() {
    check_step upgrade Kubernetes "$(installed_field KUBERNETES_VERSION)" "$KUBERNETES_VERSION"
    check_step etcd-upgrade etcd "$(installed_field ETCD_VERSION)" "${ETCD_VERSION:-}"
}

# check_step NAME PROGRAM OLD NEW
check_step() {
    [ -n "$3" ] && [ -n "$4" ] || return 0
    step=$(($(minor "$4") - $(minor "$3")))
    if [ "$step" -gt 1 ]; then
        add_failure "$1" "this host has $2 $3, and $4 is $step minors further" "build and install each minor in turn: $(print_path "$3" "$4")"
    elif [ "$step" -lt 0 ] && { ! is_generation || [ "$2" = etcd ]; }; then
        add_failure "$1" "this host has $2 $3, and this bundle has $4: no minor is taken back" \
            "keep $2 $3 in cluster.yaml$([ "$2" != Kubernetes ] || echo ', or go back to a generation that was here: install.sh --list')"
    fi
}

print_path() {
    at=$(minor "$1")
    printf '%s' "$1"
    while at=$((at + 1)); [ "$at" -lt "$(minor "$2")" ]; do printf ', %s.%s' "${1%%.*}" "$at"; done
    printf ', %s\n' "$2"
}

is_due() { { grep -qxF "$1" "$work/restarts" || is_pending "$1"; } && systemctl -q is-active "$1" 2>/dev/null; }

# With --wait it is looked again and again until it is.
check_turn() {
    turn_begun=$(now)
    until reason=$(find_obstacle); [ -z "$reason" ]; do
        if [ "$dry_run" = yes ] || [ $(($(now) - turn_begun)) -ge "$turn_limit" ]; then
            add_failure turn "$reason" "install the other hosts first, or mend them; --wait 15m waits for this host's turn"
            return
        fi
        say "  waiting for this host's turn: $reason"
        sleep 5
    done
}

# What stands in the way, if anything: nothing where this host's units are not to be restarted.
find_obstacle() {
    find_obstacle_of_authorities && return
    for unit in etcd kube-apiserver kubelet; do
        is_due "$unit.service" || continue
        "find_obstacle_of_$(printf '%s' "$unit" | tr - _)" && return
    done
}

# Where clients reach each member that there is, - for one that never served. A member knows; those of
# the plan may be yet to come, or be there no more. Only where it does not answer they must do.
etcd_members() {
    known=$(HTTPS_TIMEOUT=3 https_get "$ADDRESS" 2380 /members /etc/etcd/pki/ca.crt /etc/etcd/pki/peer.crt /etc/etcd/pki/peer.key |
        tr '{' '\n' | awk '/"id":/ { print match($0, /"clientURLs":\["[^"]*/) ? substr($0, RSTART + 15, RLENGTH - 15) : "-" }')
    printf '%s\n' "${known:-$ETCD_ENDPOINTS}"
}

# While this member is away the others must be a quorum. Of two there is none: that cannot be helped.
find_obstacle_of_etcd() {
    # shellcheck disable=SC2046 # a list of endpoints
    set -- $(etcd_members)
    members=$# healthy=0
    [ "$members" -gt 2 ] || return 1
    for endpoint; do
        member=${endpoint#https://}
        [ "${member%:*}" != "$ADDRESS" ] || continue
        ! check_url "${member%:*}" "${member##*:}" /health /etc/etcd/pki/ca.crt \
            /etc/etcd/pki/healthcheck-client.crt /etc/etcd/pki/healthcheck-client.key >/dev/null || healthy=$((healthy + 1))
    done
    [ "$healthy" -le $((members / 2)) ] || return 1
    echo "etcd would lose its quorum: of the $((members - 1)) other members $healthy are healthy"
}

# "name version" of the API servers on other hosts; a version of - where one does not answer. Where it
# was not in the plan that is installed here, it may be yet to come, and is left out then.
other_api_servers() {
    installed_nodes=$(installed_field NODES)
    for planned in $NODES; do
        case ${planned##*|} in *control-plane*) ;; *) continue ;; esac
        server=${planned#*|} server=${server%|*}
        [ "$server" != "$ADDRESS" ] || continue
        version=$(HTTPS_TIMEOUT=4 https_get "$server" "$API_PORT" /version /etc/kubernetes/pki/ca.crt "$@" |
            sed -n 's/.*"gitVersion": *"v\([0-9.]*\).*/\1/p')
        case "$version $installed_nodes" in ' '?*) is_control_plane_in "$installed_nodes" "${planned%%|*}" || continue ;; esac
        printf '%s %s\n' "${planned%%|*}" "${version:--}"
    done
}

is_control_plane_in() { printf '%s\n' "$1" | tr ' ' '\n' | grep -q "^$2|.*control-plane"; }

find_obstacle_of_kube_apiserver() { find_obstacle_of_older_etcd || find_obstacle_of_other_api_servers || find_obstacle_of_kubelets; }

# Members of etcd on hosts of their own come before control planes, as those that share a host do.
find_obstacle_of_older_etcd() {
    pki=/etc/kubernetes/pki
    for planned in $NODES; do
        case ",${planned##*|}," in *,control-plane,* | *,worker,*) continue ;; *,etcd,*) ;; *) continue ;; esac
        member=${planned#*|} member=${member%|*}
        version=$(HTTPS_TIMEOUT=4 https_get "$member" 2379 /version "$pki/etcd-ca.crt" "$pki/apiserver-etcd-client.crt" "$pki/apiserver-etcd-client.key" |
            sed -n 's/.*"etcdserver": *"\([0-9.]*\).*/\1/p')
        is_older "${version:-$CLUSTER_ETCD_VERSION}" "$CLUSTER_ETCD_VERSION" || continue
        echo "etcd on ${planned%%|*} is $version, and older than $CLUSTER_ETCD_VERSION: members of etcd come before control planes"
        return
    done
    return 1
}

is_older() { [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n -k 3,3n | sed -n 1p)" = "$1" ]; }

find_obstacle_of_other_api_servers() {
    other_api_servers /etc/kubernetes/pki/apiserver-kubelet-client.crt /etc/kubernetes/pki/apiserver-kubelet-client.key >"$work/servers"
    [ -s "$work/servers" ] || return 1
    if ! grep -qv ' -$' "$work/servers"; then
        echo "no other API server answers: the cluster would be without one"
    else
        while read -r name version; do
            [ "$version" != - ] || continue
            apart=$(($(minor "$KUBERNETES_VERSION") - $(minor "$version")))
            if [ "$apart" -gt 1 ] || [ "$apart" -lt -1 ]; then
                echo "the API server of $name is $version, more than one minor from $KUBERNETES_VERSION"
                return
            fi
        done <"$work/servers"
        return 1
    fi
}

# Where this API server changes its minor: none is older than a kubelet, or newer by more than Kubernetes
# supports (https://kubernetes.io/releases/version-skew-policy/). What no API server tells is not known.
find_obstacle_of_kubelets() {
    [ "$(minor "$(installed_field KUBERNETES_VERSION)")" != "$(minor "$KUBERNETES_VERSION")" ] || return 1
    HOME=$work kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig --request-timeout=10s get nodes \
        -o jsonpath='{range .items[*]}{.metadata.name}|{.status.nodeInfo.kubeletVersion}{"\n"}{end}' >"$work/kubelets" 2>/dev/null
    awk -F '|' -v own="$NODE" -v alike="$(hosts_alike)" -v version="$KUBERNETES_VERSION" -v server="$(minor "$KUBERNETES_VERSION")" '
        BEGIN { behind = server < 28 ? 2 : 3 }
        $1 == own || split($2, part, ".") < 2 { next }
        part[2] + 0 > server + 0 && index(alike, " " $1 " ") == 0 { newer = newer ", " $1 " (" $2 ")" }
        part[2] + 0 < server - behind { older = older ", " $1 " (" $2 ")" }
        END {
            if (newer) print "kubelets are newer than an API server of " version " may serve: " substr(newer, 3) "; first those nodes go back: install.sh --rollback there"
            else if (older) print "kubelets are more than " behind " minors older than an API server of " version ": " substr(older, 3) "; first upgrade those nodes, or delete them where they are no more"
            else exit 1
        }' "$work/kubelets"
}

# Hosts of both an API server and a kubelet replace the two in one run, and so do not wait for each other.
hosts_alike() {
    has_word "$UNITS" kubelet.service && has_word "$UNITS" kube-apiserver.service || return 0
    printf '%s\n' "$NODES" | tr ' ' '\n' | awk -F '|' '$3 ~ /control-plane.*worker/ { printf " %s ", $1 }'
}

# No kubelet is newer than any of the API servers, since it may be sent to each of them.
find_obstacle_of_kubelet() {
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    other_api_servers "$identity" "$identity" >"$work/servers"
    alike=$(hosts_alike)
    older=$(while read -r name version; do
        [ "$version" = - ] || has_word "$alike" "$name" || [ "$(minor "$version")" -ge "$(minor "$KUBERNETES_VERSION")" ] || echo "that of $name is $version"
    done <"$work/servers")
    [ -n "$older" ] || return 1
    echo "an API server is older than this kubelet: $(printf '%s\n' "$older" | sed -n 1p); control planes come before workers"
}

# Authorities are replaced by stages (bundler certs rotate): everybody believes a new one before anybody
# shows what it signed, and nobody shows what the former signed when it is believed no more. In a
# handshake each server tells both: who signed its certificate, and whose clients it takes. Authorities
# of one name are told apart by OU; - stands for those that have none.
find_obstacle_of_authorities() {
    signs=$(text_field "$here/state.env" AUTHORITY_SIGNS) believed=$(text_field "$here/state.env" AUTHORITIES_BELIEVED)
    installed_state=$prefix/opt/k8s/bundle/state.env
    [ -n "$signs" ] && [ -f "$installed_state" ] || return 1
    former=$(text_field "$installed_state" AUTHORITIES_BELIEVED)
    [ "${former:--}" != "$believed" ] || return 1
    for planned in $NODES; do
        server=${planned#*|} server=${server%|*}
        [ "$server" != "$ADDRESS" ] || continue
        for role_and_port in etcd:2379 "control-plane:$API_PORT" worker:10250; do
            case ",${planned##*|}," in *",${role_and_port%:*},"*) ;; *) continue ;; esac
            find_stranger "${planned%%|*}" "$server" "${role_and_port#*:}" && return
        done
    done
    return 1
}

# find_stranger NAME ADDRESS PORT: what that server has of other stages than go with this bundle's.
find_stranger() {
    timeout 10 openssl s_client -connect "$2:$3" </dev/null >"$work/hands" 2>/dev/null
    shown=$(openssl x509 -noout -issuer -in "$work/hands" 2>/dev/null | read_units)
    if [ -z "$shown" ]; then
        echo "port $3 of $1 does not answer, so nobody knows which authorities $1 believes"
    elif ! awk '/^Acceptable client certificate CA names/ { on = 1; next } /^(Client Certificate Types|Requested|Shared|Peer|Server|---)/ { on = 0 } on' "$work/hands" |
        read_units | grep -qxFe "$signs"; then
        echo "port $3 of $1 does not believe the authorities that sign in this bundle: install the stage before on $1"
    elif ! has_word "$believed" "$shown"; then
        echo "port $3 of $1 shows a certificate of an authority that this bundle believes no more: install the stage before on $1"
    elif [ "$3" = "$API_PORT" ] && [ "$shown" != "$signs" ] && is_kubelet_with_new_signer; then
        echo "the API server of $1 does not show the new authorities' certificate: control planes come before workers"
    else
        return 1
    fi
}

# Kubelets ask for new certificates when they restart, of whoever signs then on the control planes.
is_kubelet_with_new_signer() {
    ! has_word "$UNITS" kube-apiserver.service && has_word "$UNITS" kubelet.service && ! is_generation &&
        [ "$(text_field "$installed_state" AUTHORITY_SIGNS)" != "$signs" ]
}

# Distinguished names on stdin, in any form that openssl ever wrote → their units.
read_units() { awk '{ if (match($0, /OU *= *[^,\/+]*/)) { name = substr($0, RSTART, RLENGTH); sub(/^OU *= */, "", name); sub(/ *$/, "", name); print name } else if (/CN *=/) print "-" }'; }

# Two hosts that look at the same moment must not both go: the lock is in etcd, and is this host's until
# the script ends, however it does. Hosts without an API server ask with what etcd's member has.
take_turn() {
    { is_due etcd.service && is_shared etcd; } || { is_due kube-apiserver.service && is_shared control-plane; } || return 0
    say "  taking the turn of this cluster's members of etcd and control planes"
    : >"$work/turn"
    pki=$prefix/etc/kubernetes/pki
    set -- "$pki/etcd-ca.crt" "$pki/apiserver-etcd-client"
    [ -f "$1" ] || { pki=$prefix/etc/etcd/pki; set -- "$pki/ca.crt" "$pki/healthcheck-client"; }
    ETCDCTL_API=3 etcdctl --endpoints="$(printf '%s' "$ETCD_ENDPOINTS" | tr ' ' ',')" --cacert="$1" --cert="$2.crt" --key="$2.key" \
        lock bundler/turn -- sh -c "echo held >'$work/turn'; while [ -f '$work/turn' ] && kill -0 $$; do sleep 1; done; rm -rf '$work'" >"$work/turn.log" 2>&1 &
    turn_begun=$(now)
    until grep -q held "$work/turn"; do
        if [ $(($(now) - turn_begun)) -ge $((turn_limit + 20)) ]; then
            kill $! 2>/dev/null
            rm -f "$work/turn"
            add_failure turn "another host has the turn, or etcd does not answer: $(tail -n 1 "$work/turn.log")" "--wait 15m waits for it"
            break
        fi
        sleep 1
    done
    [ -s "$work/failures" ] || check_turn
    [ ! -s "$work/failures" ] || die 3 "$(sed -n '1s/^ *//p' "$work/failures"); nothing was changed (--wait 15m waits for this host's turn)"
}

is_shared() { [ "$(printf '%s\n' "$NODES" | tr ' ' '\n' | grep -c "|.*$1")" -gt 1 ]; }
