# Whether a unit is ready: ready_<name> UNIT returns 0 if it is. Otherwise it prints the reason, and returns 1 if the
# cause is on this host, 2 if the unit waits for other hosts, 3 if it works on what may take long.
# needs: etcd_reason live prefix
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

ready_active() {
    state=$(unit_state "$1")
    [ "$state" = active ] || {
        echo "systemd says ${state:-nothing}"
        return 1
    }
}

# check_url HOST PORT PATH CA [CERT KEY]: 200, or the reason.
check_url() {
    status=$(HTTPS_TIMEOUT=4 https_status "$@")
    [ "$status" = 200 ] || {
        echo "https://$1:$2$3 gives ${status#000 }"
        return 1
    }
}

# A member that runs without a quorum waits for the other members. If it now has a larger quota, the alarm NOSPACE can
# go, and the API server needs that.
ready_etcd() {
    if is_etcd_serving "https://$ADDRESS:2379" /etc/etcd/pki/ca.crt \
        /etc/etcd/pki/healthcheck-client.crt /etc/etcd/pki/healthcheck-client.key; then
        ! has_only_nospace "https://$ADDRESS:2379" || /opt/k8s/libexec/etcd-maintain.sh disarm >/dev/null 2>&1 || :
        return 0
    fi
    echo "$etcd_reason"
    case $(systemctl show -p SubState "$1") in *=start | *=running) return 2 ;; *) return 1 ;; esac
}

# api_server_answers ADDRESS: 0 if the API server there is ready; else the reason.
# /readyz came with Kubernetes 1.16; before, RBAC allows /healthz only.
api_server_answers() {
    set -- "$1" "${API_LOCAL##*:}" /etc/kubernetes/pki
    set -- "$1" "$2" "$3/ca.crt" "$3/apiserver-kubelet-client.crt" "$3/apiserver-kubelet-client.key"
    reason=$(check_url "$1" "$2" /readyz "$3" "$4" "$5") && return 0
    case $reason in *' 403' | *' 404')
        check_url "$1" "$2" /healthz "$3" "$4" "$5"
        return $?
        ;;
    esac
    echo "$reason"
    return 1
}

ready_kube_apiserver() {
    reason=$(api_server_answers "$ADDRESS") && return 0
    if has_etcd; then
        echo "$reason"
        return 1
    fi
    echo "no etcd member is healthy yet"
    return 2
}

# Whether any etcd member serves, so that an API server can.
has_etcd() {
    for endpoint in $ETCD_ENDPOINTS; do
        is_etcd_serving "$endpoint" /etc/kubernetes/pki/etcd-ca.crt \
            /etc/kubernetes/pki/apiserver-etcd-client.crt /etc/kubernetes/pki/apiserver-etcd-client.key && return 0
    done
    return 1
}

ready_kube_controller_manager() { ready_with_apiserver 10257; }
ready_kube_scheduler() { ready_with_apiserver 10259; }

ready_with_apiserver() {
    check_url "${MANAGERS_AT:-$ADDRESS}" "$1" /healthz /etc/kubernetes/pki/ca.crt && return 0
    ready_kube_apiserver >/dev/null && return 1
    return 2
}

ready_kube_apply() {
    [ "$(unit_state "$1")" = active ] && return 0
    echo "the manifests in /etc/kubernetes/addons are not applied yet"
    ready_kube_apiserver >/dev/null && return 1
    return 2
}

# Add-ons that are being applied may take longer than units: install.sh then waits on. One that waits, for other hosts
# or add-ons, is no reason to wait here.
ready_kube_addons() {
    ready_active "$1" || return 1
    states=$live/run/kube-addons/state
    if [ ! -f "$states" ]; then
        echo "it has not begun yet"
        ready_kube_apiserver >/dev/null && return 3
        return 2
    fi
    for state in failed:1 applying:3; do
        reason=$(awk -v state="${state%:*}" '$2 == state {
            printf "%sadd-on %s: %s", (n++ ? "; " : ""), $1, state; $1 = $2 = ""; print (NF > 2 ? ":" : "") $0
        }' "$states" | tr -d '\n')
        [ -n "$reason" ] || continue
        printf '%s\n' "$reason" | tr -s ' '
        return "${state#*:}"
    done
}

# is_listening PORT
is_listening() {
    list_listening_ports | awk -v port="$(printf '%04X' "$1")" '$1 == port { found = 1 } END { exit !found }' ||
        {
            echo "nothing listens on port $1"
            return 1
        }
}

ready_kube_nginx() { ready_active "$1" && is_listening "${ENDPOINT##*:}"; }

ready_kube_registry_nginx() { ready_active "$1" && is_listening "$REGISTRY_PORT"; }

# The registry is ready when it has every image of the bundle. Copying may take longer than units: install.sh then waits
# on.
ready_kube_registry() {
    ready_active "$1" || return 1
    seeded=$(cat "$prefix$REGISTRY_STORAGE/.bundler-complete" 2>/dev/null)
    [ "$seeded" != "$(sha256sum <"$prefix/opt/k8s/bundle/lib/registry.tsv" | cut -d ' ' -f 1)" ] || return 0
    if [ "$(unit_state kube-registry-seed.service)" = failed ]; then
        echo "not all images of the bundle are in $REGISTRY_STORAGE: journalctl -u kube-registry-seed"
        return 1
    fi
    echo "images of the bundle are being copied into $REGISTRY_STORAGE"
    return 3
}

# seed_wait: the seconds that copying may take, at 20 MB a second.
seed_wait() {
    if [ -f "$prefix/opt/k8s/bundle/lib/registry.tsv" ]; then
        awk -F '\t' '$1 == "blob" { bytes += $4 } END { print int(bytes / 20000000) + 60 }' \
            "$prefix/opt/k8s/bundle/lib/registry.tsv"
    else
        echo 0
    fi
}

# has_endpoint: whether an API server answers at the address that every client uses.
has_endpoint() {
    host=${ENDPOINT#https://}
    case $(HTTPS_TIMEOUT=4 https_status "${host%:*}" "${host##*:}" /healthz /etc/kubernetes/pki/ca.crt) in
        000*) return 1 ;;
    esac
}

# With the kubelet's own certificate, which the control plane issued. kubelet-join.sh waits for it in the same unit.
ready_kubelet() {
    ready_active "$1" || return 1
    has_endpoint || {
        echo "the API does not answer at $ENDPOINT yet"
        return 2
    }
    if [ -s "$live/run/kubelet-join/reason" ]; then
        cat "$live/run/kubelet-join/reason"
        return 2
    fi
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    [ -f "$identity" ] || {
        echo "the control plane has not given it a certificate yet"
        return 2
    }
    node_object=$(HTTPS_TIMEOUT=5 https_get "${host%:*}" "${host##*:}" "/api/v1/nodes/$NODE" \
        /etc/kubernetes/pki/ca.crt "$identity" "$identity" | tr -d ' \n')
    case $node_object in
        *'{"type":"Ready","status":"True"'*) return 0 ;;
        *NetworkPluginNotReady*)
            [ -z "${NETWORK_ADDON:-}" ] || {
                echo "the add-on $NETWORK_ADDON has not made the pod network of this node yet"
                return 3
            }
            ;;
    esac
    echo "the node is not Ready yet"
    return 1
}

# It serves when the network's configuration is in etcd, which needs a quorum.
ready_etcd_flannel_proxy() {
    reason=$(ready_active "$1" && is_listening 2382) && return 0
    echo "$reason"
    ready_etcd etcd.service >/dev/null && return 1
    return 2
}

# flannel gets this node's subnet from the API, with the kubelet's certificate, or from etcd, through a proxy there.
ready_flannel() {
    reason=$(ready_active "$1") && [ -f /run/flannel/subnet.env ] && return 0
    reason=${reason:-this node has no subnet yet}
    case " $FEATURES " in
        *' flannel-etcd '*)
            cat "$live/run/flannel/reason" 2>/dev/null && return 2
            echo "$reason"
            return 1
            ;;
    esac
    echo "$reason"
    [ -f "$KUBELET_ROOT/pki/kubelet-client-current.pem" ] && has_endpoint && return 1
    return 2
}

# It ends and starts again until its node is registered. No pod gets a network before its rules are there.
ready_kube_router() {
    ready_active "$1" || return 1
    iptables -w -S KUBE-ROUTER-FORWARD >/dev/null 2>&1 && return 0
    echo "it has not written its rules yet"
    [ -f "$KUBELET_ROOT/pki/kubelet-client-current.pem" ] && has_endpoint && return 1
    return 2
}

ready_kube_proxy() {
    reason=$(ready_active "$1" && is_listening 10256) && return 0
    has_endpoint && {
        echo "$reason"
        return 1
    }
    echo "the API does not answer at $ENDPOINT yet"
    return 2
}
