# The rollout order of hosts. There is no controller: before a host restarts etcd, an API server or a kubelet
# it asks the other hosts whether quorum, the API and the supported version skew are kept without it.
# needs: dry_run here prefix slot_wait work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

SETTLED=100 # seconds: within 90 s after their start install.sh waits for units, and goes back if they are not ready

# minor VERSION: 21 of 1.21.3
minor() {
    minor_rest=${1#*.}
    printf '%s\n' "${minor_rest%%.*}"
}

installed_field() { text_field "$prefix/opt/k8s/bundle/node.env" "$1"; }

# Kubernetes and etcd support upgrades of one minor version, and no downgrade of etcd.
check_upgrade() {
    check_version_step upgrade Kubernetes "$(installed_field KUBERNETES_VERSION)" "$KUBERNETES_VERSION"
    check_version_step etcd-upgrade etcd "$(installed_field ETCD_VERSION)" "${ETCD_VERSION:-}"
    check_etcd_patch "$(installed_field ETCD_VERSION)"
}

# check_etcd_patch OLD: some minors of etcd can only follow late patches of the minor before (ETCD_STEP_FROM), and 3.6
# does not start with data of the v2 API, where flannel may have its subnets.
check_etcd_patch() {
    if [ "$(minor "${1:-0.9}")" -lt 6 ] && [ "$(minor "${ETCD_VERSION:-0.0}")" -ge 6 ] &&
        has_word "$(installed_field FEATURES)" flannel-etcd; then
        add_failure etcd-upgrade "flannel's subnets are in etcd's v2 API, with which $ETCD_VERSION does not start" \
            "install network.flannel.store kubernetes with etcd $1 first, and remove the data as etcd's guide says: \
https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/"
    fi
    is_too_old_for_step "$1" || return 0
    add_failure etcd-upgrade "this host has etcd $1, and $ETCD_VERSION can only follow $ETCD_STEP_FROM or later" \
        "set etcd.version to the newest ${ETCD_STEP_FROM%.*}, build it, and install it on every member first"
}

# is_too_old_for_step VERSION: of a minor before that of this bundle's etcd, and older than what that needs.
is_too_old_for_step() {
    [ -n "$1" ] && [ -n "${ETCD_STEP_FROM:-}" ] && [ "$(minor "$1")" -lt "$(minor "$ETCD_VERSION")" ] &&
        is_older "$1" "$ETCD_STEP_FROM"
}

# check_version_step CHECK PROGRAM OLD NEW
check_version_step() {
    [ -n "$3" ] && [ -n "$4" ] || return 0
    step=$(($(minor "$4") - $(minor "$3")))
    if [ "$step" -gt 1 ]; then
        add_failure "$1" "this host has $2 $3, and $4 is $step minor versions newer" \
            "build and install one minor version after another: $(print_upgrade_path "$3" "$4")"
    elif [ "$step" -lt 0 ] && { ! is_generation || [ "$2" = etcd ]; }; then
        fix="keep $2 $3 in cluster.yaml"
        [ "$2" != Kubernetes ] || fix="$fix, or roll back to an earlier generation of this host: install.sh --list"
        add_failure "$1" "this host has $2 $3, and this bundle has $4: the minor version cannot be downgraded" "$fix"
    fi
}

# A bundle with a larger quota ends NOSPACE, so this stops nothing.
check_etcd_alarm() {
    has_word "$ROLES" etcd || has_word "$ROLES" control-plane || return 0
    [ -n "$(installed_field ETCD_ENDPOINTS)" ] && [ -x "$prefix/opt/k8s/bin/etcdctl" ] || return 0
    if ! found=$(list_etcd_alarms "$(installed_field ETCD_ENDPOINTS)"); then
        add_advice etcd-alarm "etcd's alarms cannot be read: $found" "systemctl status etcd    # on each member"
    elif [ -n "$found" ]; then
        add_advice etcd-alarm "etcd has alarms: $(echo "$found" | tr '\n' ' ')(NOSPACE: it accepts no write)" \
            "/opt/k8s/libexec/etcd-maintain.sh defrag    # on each member, one after another
# or a larger quota: docs/guides/etcd-space.md"
    fi
}

# print_upgrade_path OLD NEW: 1.18.4, 1.19, 1.20, 1.21.3
print_upgrade_path() {
    path_minor=$(($(minor "$1") + 1))
    printf '%s' "$1"
    while [ "$path_minor" -lt "$(minor "$2")" ]; do
        printf ', %s.%s' "${1%%.*}" "$path_minor"
        path_minor=$((path_minor + 1))
    done
    printf ', %s\n' "$2"
}

# is_restart_due UNIT: it runs, and the installation restarts it.
is_restart_due() {
    { grep -qxF "$1" "$work/restarts" || is_pending "$1"; } && systemctl -q is-active "$1" 2>/dev/null
}

# The preflight check "turn". With --wait it is repeated until there is no obstacle; but this host is refused anyway if
# another check has failed.
check_turn() {
    wait_start=$(now) waits_for=''
    until
        reason=$(find_obstacle)
        [ -z "$reason" ]
    do
        if [ "$dry_run" = yes ] || [ -s "$work/failures" ] || [ $(($(now) - wait_start)) -ge "$slot_wait" ]; then
            add_failure turn "$reason" \
                "install or repair the other hosts first; --wait 15m waits for this host's rollout slot"
            return 0
        fi
        say_waiting "$reason"
        sleep 5
    done
}

# say_waiting REASON: once for each reason. The seconds in it count on.
say_waiting() {
    waiting=$(printf '%s\n' "$1" | sed 's/[0-9]* s ago/a moment ago/')
    [ "$waiting" != "$waits_for" ] || return 0
    waits_for=$waiting
    say "  waiting for this host's rollout slot: $1"
}

# Print why this host must not restart its units now, if there is a reason.
find_obstacle() {
    if find_ca_obstacle; then return 0; fi
    if find_key_obstacle; then return 0; fi
    if is_restart_due etcd.service && { find_old_etcd_member || find_etcd_obstacle; }; then return 0; fi
    if is_restart_due kube-apiserver.service && find_api_server_obstacle; then return 0; fi
    ! is_restart_due kubelet.service || find_kubelet_obstacle
}

# The client URL of each member of etcd, - for one that never started. The own member knows the members;
# cluster.yaml may have members that are not installed yet, so it is used only if the member does not answer.
list_etcd_members() {
    etcd_pki=/etc/etcd/pki
    members=$(HTTPS_TIMEOUT=3 https_get "$ADDRESS" 2380 /members \
        "$etcd_pki/ca.crt" "$etcd_pki/peer.crt" "$etcd_pki/peer.key" | tr '{' '\n' |
        awk '/"id":/ { print match($0, /"clientURLs":\["[^"]*/) ? substr($0, RSTART + 15, RLENGTH - 15) : "-" }')
    printf '%s\n' "${members:-$ETCD_ENDPOINTS}"
}

# Before a member gets a minor of etcd that needs a late patch of the minor before, every member must have that patch.
# A member that does not answer may have an older one.
find_old_etcd_member() {
    [ -n "${ETCD_STEP_FROM:-}" ] && [ "$(minor "$(installed_field ETCD_VERSION)")" != "$(minor "$ETCD_VERSION")" ] ||
        return 1
    etcd_pki=/etc/etcd/pki
    for endpoint in $(list_etcd_members); do
        member=${endpoint#https://} member=${member%:*}
        [ "$member" != "$ADDRESS" ] || continue
        HTTPS_TIMEOUT=4 https_get "$member" 2379 /version \
            "$etcd_pki/ca.crt" "$etcd_pki/healthcheck-client.crt" "$etcd_pki/healthcheck-client.key" >"$work/answer"
        version=$(sed -n 's/.*"etcdserver": *"\([0-9.]*\).*/\1/p' "$work/answer")
        if [ -z "$version" ]; then
            echo "the version of the etcd member $member is unknown ($(sed -n 2p "$work/answer")):" \
                "before etcd $ETCD_VERSION every member must have $ETCD_STEP_FROM or later"
        elif is_too_old_for_step "$version"; then
            echo "the etcd member $member has version $version:" \
                "before etcd $ETCD_VERSION every member must have $ETCD_STEP_FROM or later"
        else
            continue
        fi
        return 0
    done
    return 1
}

# Without this member the others must have a quorum. Two members never have one without the other.
find_etcd_obstacle() {
    # shellcheck disable=SC2046 # a list of endpoints
    set -- $(list_etcd_members)
    count=$# healthy=0
    [ "$count" -gt 2 ] || return 1
    for endpoint; do
        member=${endpoint#https://}
        [ "${member%:*}" != "$ADDRESS" ] || continue
        ! is_etcd_serving "$endpoint" /etc/etcd/pki/ca.crt \
            /etc/etcd/pki/healthcheck-client.crt /etc/etcd/pki/healthcheck-client.key || healthy=$((healthy + 1))
    done
    [ "$healthy" -le $((count / 2)) ] || return 1
    echo "etcd would lose quorum: only $healthy of the $((count - 1)) other members are healthy"
}

# list_other_api_servers CERT KEY: "name version address" of the API servers on other hosts; the version is - if one
# does not answer. One that does not answer and is not in the installed node.env may not be installed yet:
# it is left out.
list_other_api_servers() {
    installed_nodes=$(installed_field NODES)
    for planned in $NODES; do
        case ${planned##*|} in *control-plane*) ;; *) continue ;; esac
        server=${planned#*|} server=${server%|*}
        [ "$server" != "$ADDRESS" ] || continue
        version=$(HTTPS_TIMEOUT=4 https_get "$server" "$API_PORT" /version /etc/kubernetes/pki/ca.crt "$@" |
            sed -n 's/.*"gitVersion": *"v\([0-9.]*\).*/\1/p')
        [ -n "$version" ] || [ -z "$installed_nodes" ] || is_installed_control_plane "${planned%%|*}" || continue
        printf '%s %s %s\n' "${planned%%|*}" "${version:--}" "$server"
    done
}

# is_installed_control_plane NAME: by the installed node.env
is_installed_control_plane() {
    for installed_node in $installed_nodes; do
        case $installed_node in "$1|"*control-plane*) return 0 ;; esac
    done
    return 1
}

find_api_server_obstacle() { find_older_etcd || find_other_api_server_obstacle || find_kubelet_skew; }

# Members of etcd on hosts without a control plane must be upgraded before the control planes.
find_older_etcd() {
    pki=/etc/kubernetes/pki
    client=$pki/apiserver-etcd-client
    for planned in $NODES; do
        case ",${planned##*|}," in *,control-plane,* | *,worker,*) continue ;; *,etcd,*) ;; *) continue ;; esac
        member=${planned#*|} member=${member%|*}
        version=$(HTTPS_TIMEOUT=4 https_get "$member" 2379 /version "$pki/etcd-ca.crt" "$client.crt" "$client.key" |
            sed -n 's/.*"etcdserver": *"\([0-9.]*\).*/\1/p')
        if [ -z "$version" ]; then
            # without a new version of etcd there is no order that could be wrong
            former_etcd=$(installed_field CLUSTER_ETCD_VERSION)
            is_older "${former_etcd:-$CLUSTER_ETCD_VERSION}" "$CLUSTER_ETCD_VERSION" || continue
            echo "etcd on ${planned%%|*} does not answer, so its version is unknown, and" \
                "$CLUSTER_ETCD_VERSION is needed: repair it, or install it, before control planes"
            return 0
        fi
        is_older "$version" "$CLUSTER_ETCD_VERSION" || continue
        echo "etcd on ${planned%%|*} has version $version, older than $CLUSTER_ETCD_VERSION:" \
            "install etcd members before control planes"
        return 0
    done
    return 1
}

# is_older VERSION OTHER
is_older() {
    [ "$1" != "$2" ] &&
        [ "$(printf '%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n -k 3,3n | sed -n 1p)" = "$1" ]
}

# Another API server must answer, and none may be more than one minor version away from this one.
find_other_api_server_obstacle() {
    client=/etc/kubernetes/pki/apiserver-kubelet-client
    list_other_api_servers "$client.crt" "$client.key" >"$work/servers"
    [ -s "$work/servers" ] || return 1
    if ! grep -qv ' - ' "$work/servers"; then
        echo "no other API server answers: the cluster would have none"
        return 0
    fi
    while read -r name version _; do
        [ "$version" != - ] || continue
        skew=$(($(minor "$KUBERNETES_VERSION") - $(minor "$version")))
        if [ "$skew" -gt 1 ] || [ "$skew" -lt -1 ]; then
            echo "the API server of $name has version $version, more than one minor version from $KUBERNETES_VERSION"
            return 0
        fi
    done <"$work/servers"
    return 1
}

# If the minor version of this API server changes, no kubelet may be newer, or older than Kubernetes supports
# (https://kubernetes.io/releases/version-skew-policy/).
find_kubelet_skew() {
    [ "$(minor "$(installed_field KUBERNETES_VERSION)")" != "$(minor "$KUBERNETES_VERSION")" ] || return 1
    HOME=$work kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig --request-timeout=10s get nodes \
        -o jsonpath='{range .items[*]}{.metadata.name}|{.status.nodeInfo.kubeletVersion}{"\n"}{end}' \
        >"$work/kubelets" 2>"$work/kubelets.error" || {
        echo "the versions of the kubelets cannot be read: $(tail -n 1 "$work/kubelets.error")"
        return 0
    }
    awk -F '|' -v own="$NODE" -v combined="$(list_combined_hosts)" -v version="$KUBERNETES_VERSION" \
        -v server="$(minor "$KUBERNETES_VERSION")" -f "$here/lib/coordination/kubelet-skew.awk" "$work/kubelets"
}

# If this host has an API server and a kubelet: the names of all such hosts. One run replaces both, so
# these hosts do not wait for each other.
list_combined_hosts() {
    has_word "$UNITS" kubelet.service && has_word "$UNITS" kube-apiserver.service || return 0
    for planned in $NODES; do
        case ${planned##*|} in *control-plane*worker*) printf ' %s ' "${planned%%|*}" ;; esac
    done
}

# No kubelet may be newer than any API server, since it may be connected to each of them. So before its minor version
# goes up each of them must have answered, and so long after its start that its host does not go back any more.
find_kubelet_obstacle() {
    former=$(installed_field KUBERNETES_VERSION)
    [ -n "$former" ] && [ "$(minor "$former")" -lt "$(minor "$KUBERNETES_VERSION")" ] || return 1
    identity=$KUBELET_ROOT/pki/kubelet-client-current.pem
    list_other_api_servers "$identity" "$identity" >"$work/servers"
    combined=$(list_combined_hosts)
    while read -r name version server; do
        ! has_word "$combined" "$name" || continue
        if [ "$version" = - ]; then
            echo "the API server of $name does not answer, so its version is unknown, and may be older than this" \
                "kubelet"
            return 0
        elif [ "$(minor "$version")" -lt "$(minor "$KUBERNETES_VERSION")" ]; then
            echo "the API server of $name has version $version, older than this kubelet:" \
                "install control planes before workers"
            return 0
        fi
        age=$(api_server_age "$server")
        [ "${age:-0}" -lt "$SETTLED" ] || continue
        echo "the API server of $name was started ${age:-0} s ago, and its host may still go back to the former version"
        return 0
    done <"$work/servers"
    return 1
}

# Seconds since the start of the API server at that address; nothing if it does not say. Its certificate for this name
# is made at the start, and its subject has the time (k8s.io/client-go, util/cert).
api_server_age() {
    api_server_start=$(timeout 10 openssl s_client -connect "$1:$API_PORT" -servername apiserver-loopback-client \
        </dev/null 2>/dev/null | openssl x509 -noout -subject 2>/dev/null |
        sed -n 's/.*apiserver-loopback-client@\([0-9][0-9]*\).*/\1/p')
    [ -z "$api_server_start" ] || echo $(($(now) - api_server_start))
}

# CAs are rotated in stages (bundler certs rotate): all hosts trust the new CA before any server uses a
# certificate of it, and no server uses a certificate of the old CA when hosts stop to trust it. A TLS
# handshake shows both: the issuer of the server's certificate, and the CAs that it trusts for clients.
# CAs of the same name have different OUs; "-" is a CA without an OU.
find_ca_obstacle() {
    signs=$(text_field "$here/state.env" AUTHORITY_SIGNS) trusted=$(text_field "$here/state.env" AUTHORITIES_BELIEVED)
    installed_state=$prefix/opt/k8s/bundle/state.env
    [ -n "$signs" ] && [ -f "$installed_state" ] || return 1
    former=$(text_field "$installed_state" AUTHORITIES_BELIEVED)
    [ "${former:--}" != "$trusted" ] || return 1
    for planned in $NODES; do
        server=${planned#*|} server=${server%|*}
        [ "$server" != "$ADDRESS" ] || continue
        for role_and_port in etcd:2379 "control-plane:$API_PORT" worker:10250; do
            case ",${planned##*|}," in *",${role_and_port%:*},"*) ;; *) continue ;; esac
            find_ca_mismatch "${planned%%|*}" "$server" "${role_and_port#*:}" && return 0
        done
    done
    return 1
}

# find_ca_mismatch NAME ADDRESS PORT: print why the CAs of that server do not go with those of this bundle.
find_ca_mismatch() {
    previous="install the bundle of the previous rotation stage on $1 first"
    timeout 10 openssl s_client -connect "$2:$3" </dev/null >"$work/handshake" 2>/dev/null
    issuer=$(openssl x509 -noout -issuer -in "$work/handshake" 2>/dev/null | print_name_units)
    if [ -z "$issuer" ]; then
        echo "port $3 of $1 does not answer, so it is unknown which CAs $1 trusts"
    elif ! print_client_cas "$work/handshake" | print_name_units | grep -qxFe "$signs"; then
        echo "port $3 of $1 does not trust the CA that signs this bundle's certificates: $previous"
    elif ! has_word "$trusted" "$issuer"; then
        echo "port $3 of $1 uses a certificate of a CA that this bundle no longer trusts: $previous"
    elif [ "$3" = "$API_PORT" ] && [ "$issuer" != "$signs" ] && is_kubelet_with_new_signer; then
        echo "the API server of $1 does not use a certificate of the new CA yet: install control planes before workers"
    else
        return 1
    fi
}

# After a restart kubelets request new certificates, from the CA that the control planes then sign with.
is_kubelet_with_new_signer() {
    ! has_word "$UNITS" kube-apiserver.service && has_word "$UNITS" kubelet.service && ! is_generation &&
        [ "$(text_field "$installed_state" AUTHORITY_SIGNS)" != "$signs" ]
}

# print_client_cas FILE: the names of the CAs that the server accepts client certificates of.
print_client_cas() {
    awk '/^Acceptable client certificate CA names/ { on = 1; next }
        /^(Client Certificate Types|Requested|Shared|Peer|Server|---)/ { on = 0 }
        on' "$1"
}

# Distinguished names on stdin, as any version of openssl prints them: the OU of each, or - without one.
print_name_units() { awk -f "$here/lib/coordination/name-units.awk"; }

# If two hosts check at the same moment, only one may continue: this host holds a lock in etcd until the
# script ends, even if it is killed. Hosts without an API server use the certificate of etcd's health check.
take_rollout_slot() {
    { is_restart_due etcd.service && has_peers etcd; } ||
        { is_restart_due kube-apiserver.service && has_peers control-plane; } || return 0
    if has_only_nospace "$ETCD_ENDPOINTS"; then
        warn "etcd has the alarm NOSPACE and accepts no lock: install on one host after another"
        return 0
    fi
    say "  taking the rollout slot of etcd members and control planes"
    : >"$work/slot"
    : >"$work/slot.log"
    pki=$prefix/etc/kubernetes/pki
    set -- "$pki/etcd-ca.crt" "$pki/apiserver-etcd-client"
    if [ ! -f "$1" ]; then
        pki=$prefix/etc/etcd/pki
        set -- "$pki/ca.crt" "$pki/healthcheck-client"
    fi
    request_slot "$@"
    wait_start=$(now)
    until grep -q held "$work/slot"; do
        if [ $(($(now) - wait_start)) -ge $((slot_wait + 20)) ]; then
            kill "$slot_request" 2>/dev/null
            rm -f "$work/slot"
            add_failure turn \
                "another host holds the rollout slot, or etcd does not answer: $(tail -n 1 "$work/slot.log")" \
                "--wait 15m waits for it"
            break
        fi
        sleep 1
        # It ends when the member that it asks is restarted, as by the host that holds the slot.
        kill -0 "$slot_request" 2>/dev/null || grep -q held "$work/slot" || request_slot "$@"
    done
    [ -s "$work/failures" ] || check_turn
    [ ! -s "$work/failures" ] || die 3 "$(sed -n '1s/^ *//p' "$work/failures");" \
        "nothing was changed (--wait 15m waits for this host's rollout slot)"
}

# request_slot CA CERTIFICATE: ask etcd for the lock. etcdctl holds it while the command runs: until the script ends, or
# removes $work/slot.
request_slot() {
    hold="echo held >'$work/slot'; while [ -f '$work/slot' ] && kill -0 $$; do sleep 1; done; rm -rf '$work'"
    ETCDCTL_API=3 etcdctl --endpoints="$(printf '%s' "$ETCD_ENDPOINTS" | tr ' ' ',')" \
        --cacert="$1" --cert="$2.crt" --key="$2.key" lock bundler/turn -- sh -c "$hold" >>"$work/slot.log" 2>&1 &
    slot_request=$!
}

# has_peers ROLE: more than one planned node has it.
has_peers() {
    peers=0
    for planned in $NODES; do case ${planned##*|} in *"$1"*) peers=$((peers + 1)) ;; esac done
    [ "$peers" -gt 1 ]
}
