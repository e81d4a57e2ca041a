# Checks of verify.sh --failover: stop each leader, and wait until another instance is the leader.
# needs: pki
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

test_holder=bundler-verify # takes the lease from a leader on another host
leader_annotation=control-plane.alpha.kubernetes.io/leader

check_controller_manager_failover() { check_failover kube-controller-manager 10257; }
check_scheduler_failover() { check_failover kube-scheduler 10259; }

# check_failover COMPONENT PORT. A leader calls itself HOSTNAME_UUID. One on this host is stopped by
# systemctl. One on another host loses its lease to test_holder: it exits, systemd starts it again, and
# the other instances are candidates when the lease has expired.
check_failover() {
    expect "another $1 is the leader within 60 s after the first was stopped, and the first runs again"
    if [ "$(count_nodes control-plane)" -lt 2 ]; then
        saw "there is only one control-plane node: no other $1 can become the leader"
        return 2
    fi
    before=$(leader_of "$1")
    if [ -z "$before" ]; then
        saw "$1 has no leader"
        return 1
    fi
    stopped=$(now)
    if [ "${before%_*}" = "$(uname -n)" ]; then
        say "stopping $1 on this host: it is the leader"
        how="was stopped"
        systemctl stop "$1.service" || {
            saw "systemctl stop $1.service failed"
            return 2
        }
    else
        say "taking the lease of $1 from ${before%_*}"
        how="lost its lease"
        problem=$(take_lease "$1") || {
            saw "$problem"
            return 2
        }
    fi
    after=$(await_other_leader "$1")
    waited=$(($(now) - stopped))
    [ "$how" = "lost its lease" ] || systemctl start "$1.service" || {
        saw "systemctl start $1.service failed: start it by hand"
        return 2
    }
    if [ -z "$after" ]; then
        saw "no other $1 became the leader within 60 s"
        return 2
    fi
    await_component "${before%_*}" "$2" || {
        saw "$1 on ${before%_*} did not come back within 60 s"
        return 2
    }
    saw "${before%_*} $how, ${after%_*} is the leader after $waited s, ${before%_*} runs again"
}

leader_of() { read_leader "$1" | cut -d' ' -f1 | grep -v "^$test_holder"; }

# Newer versions release the lease when they stop, so there may be no holder for a moment.
await_other_leader() {
    while [ $(($(now) - stopped)) -lt 60 ]; do
        sleep 1
        candidate=$(leader_of "$1")
        case $candidate in
            '' | "$before") ;;
            *)
                printf '%s\n' "$candidate"
                return 0
                ;;
        esac
    done
}

# take_lease COMPONENT. Before Kubernetes 1.17 the lease is an annotation of an Endpoints object, then
# for some versions both, then a Lease only.
take_lease() {
    taken=no
    if kube -n kube-system patch lease "$1" --type merge \
        -p "{\"spec\":{\"holderIdentity\":\"$test_holder\"}}" >/dev/null 2>&1; then taken=yes; fi
    if kube -n kube-system get endpoints "$1" -o yaml 2>/dev/null | grep -q "$leader_annotation"; then
        # the annotation's value is JSON as a string
        record="{\\\"holderIdentity\\\":\\\"$test_holder\\\",\\\"leaseDurationSeconds\\\":15,"
        record="$record\\\"acquireTime\\\":null,\\\"renewTime\\\":null,\\\"leaderTransitions\\\":0}"
        kube -n kube-system patch endpoints "$1" --type merge \
            -p "{\"metadata\":{\"annotations\":{\"$leader_annotation\":\"$record\"}}}" 2>&1 && taken=yes
    fi
    [ "$taken" = yes ]
}

# await_component HOST PORT: wait until it answers again. A host name that is not in cluster.yaml is not checked, nor
# one whose programs listen on loopback.
await_component() {
    address=''
    for pair in $(manager_pairs); do
        [ "${pair%|*}" != "$1" ] || address=${pair#*|}
    done
    [ -n "$address" ] || return 0
    while [ $(($(now) - stopped)) -lt 120 ]; do
        [ "$(https_status "$address" "$2" /healthz "$pki/ca.crt")" != 200 ] || return 0
        sleep 1
    done
    return 1
}
