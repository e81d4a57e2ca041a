# Leaders stopped and started again: verify.sh --failover.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_controller_manager_failover() { try_failover kube-controller-manager; }
check_scheduler_failover() { try_failover kube-scheduler; }

# A leader calls itself HOSTNAME_UUID. Only one that runs here can be stopped here.
try_failover() {
    expect "another leader within 60 s after this host's was stopped"
    before=$(read_leader "$1")
    before=${before%% *}
    [ -n "$before" ] || { saw "nobody leads"; return 1; }
    if [ "${before%_*}" != "$(uname -n)" ]; then
        saw "${before%_*} leads, and this is $(uname -n): run verify.sh --failover there"
        return 2
    fi
    [ "$(planned control-plane | count_lines)" -gt 1 ] || { saw "there is one control plane only: nobody could take over"; return 2; }
    say "stopping $1, which leads"
    systemctl stop "$1.service" || { saw "systemctl stop $1.service failed"; return 2; }
    stopped=$(now) after=$before
    # newer ones give the lease up when they stop: for a moment nobody holds it
    while { [ -z "$after" ] || [ "$after" = "$before" ]; } && [ $(($(now) - stopped)) -lt 60 ]; do
        sleep 1
        after=$(read_leader "$1")
        after=${after%% *}
    done
    waited=$(($(now) - stopped))
    systemctl start "$1.service" || { saw "systemctl start $1.service failed"; return 2; }
    if [ -z "$after" ] || [ "$after" = "$before" ]; then saw "nobody took over in 60 s"; return 2; fi
    saw "from ${before%_*} to ${after%_*} in $waited s; started here again"
}
