# Leaders stopped, and another takes over: verify.sh --failover.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

usurper=bundler-verify
leader_annotation=control-plane.alpha.kubernetes.io/leader

check_controller_manager_failover() { try_failover kube-controller-manager 10257; }
check_scheduler_failover() { try_failover kube-scheduler 10259; }

# A leader calls itself HOSTNAME_UUID. One that runs here is stopped by systemd; from one on another
# host its lease is taken: it ends at once, systemd starts it again, and the rest stand for election
# when the lease that nobody renews is over.
try_failover() {
    expect "another leader within 60 s after the first was stopped, and that one back again"
    if [ "$(planned control-plane | count_lines)" -lt 2 ]; then saw "there is one control plane only: nobody could take over"; return 2; fi
    before=$(leader_of "$1")
    [ -n "$before" ] || { saw "nobody leads"; return 1; }
    stopped=$(now)
    if [ "${before%_*}" = "$(uname -n)" ]; then
        say "stopping $1, which leads"
        how="was stopped"
        systemctl stop "$1.service" || { saw "systemctl stop $1.service failed"; return 2; }
    else
        say "taking the lease of $1 from ${before%_*}"
        how="lost its lease"
        problem=$(seize "$1") || { saw "$problem"; return 2; }
    fi
    after=$(await_other_leader "$1")
    waited=$(($(now) - stopped))
    [ "$how" = "lost its lease" ] || systemctl start "$1.service" || { saw "systemctl start $1.service failed"; return 2; }
    [ -n "$after" ] || { saw "nobody took over in 60 s"; return 2; }
    await_component "${before%_*}" "$2" || { saw "${before%_*} did not come back within 60 s"; return 2; }
    saw "${before%_*} $how, ${after%_*} leads after $waited s, ${before%_*} is back"
}

leader_of() { read_leader "$1" | cut -d' ' -f1 | grep -v "^$usurper"; }

# Newer ones give the lease up when they stop: for a moment nobody holds it.
await_other_leader() {
    while [ $(($(now) - stopped)) -lt 60 ]; do
        sleep 1
        candidate=$(leader_of "$1")
        case $candidate in '' | "$before") ;; *) printf '%s\n' "$candidate"; return ;; esac
    done
}

# Where the lease is: a Lease, before Kubernetes 1.17 an annotation of Endpoints, in between both.
seize() {
    seized=no
    if kube -n kube-system patch lease "$1" --type merge -p "{\"spec\":{\"holderIdentity\":\"$usurper\"}}" >/dev/null 2>&1; then seized=yes; fi
    if kube -n kube-system get endpoints "$1" -o yaml 2>/dev/null | grep -q "$leader_annotation"; then
        record="{\\\"holderIdentity\\\":\\\"$usurper\\\",\\\"leaseDurationSeconds\\\":15,\\\"acquireTime\\\":null,\\\"renewTime\\\":null,\\\"leaderTransitions\\\":0}"
        kube -n kube-system patch endpoints "$1" --type merge -p "{\"metadata\":{\"annotations\":{\"$leader_annotation\":\"$record\"}}}" 2>&1 && seized=yes
    fi
    [ "$seized" = yes ]
}

# await_component HOST PORT: it answers again; hosts go by their planned names or by their own.
await_component() {
    address=$(planned control-plane | awk -v host="$1" '$1 "" == host "" { print $2 }')
    [ -n "$address" ] || return 0
    while [ $(($(now) - stopped)) -lt 120 ]; do
        [ "$(https_status "$address" "$2" /healthz "$pki/ca.crt")" != 200 ] || return 0
        sleep 1
    done
    return 1
}
