#!/bin/sh
# Let no packet of a new pod pass before kube-router has the rules of its NetworkPolicies.
#
# Usage: pod-guard.sh up | watch | release | release-policies
#
#   up                install the guard: packets on the bridge of the pods pass only for addresses in the set
#                     kube-pod-guard; existing connections, and those that this node opens to its pods, pass
#   watch             keep in the set the pods for which kube-router has rules, and kube-router's rules first
#   release           remove the guard and kube-router's rules, if kube-pod-guard.service is disabled
#   release-policies  remove kube-router's rules and sets, if kube-router.service is disabled
#
# install.sh and uninstall.sh disable a unit before they stop it for good: after any other stop, and while this
# script or kube-router does not run, everything stays closed. Pods have IPv4 addresses only, so IPv6 on the
# bridge is dropped: policies would not see it.
#
# INTERVAL  seconds between two looks at the rules (default 1)
set -u
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
set=kube-pod-guard
chain=KUBE-POD-GUARD
bridge=cni0
run=${DESTDIR:-}/run/kube-pod-guard
last_problem=''

main() {
    case ${1:-} in
        up) install_guard || exit 1 ;;
        watch) watch_rules ;;
        release) ! is_disabled kube-pod-guard.service || { remove_guard && remove_policies; } ;;
        release-policies) ! is_disabled kube-router.service || remove_policies ;;
        *)
            echo "usage: pod-guard.sh up|watch|release|release-policies" >&2
            exit 2
            ;;
    esac
}

# An answer that is not "disabled", or none, leaves everything closed.
is_disabled() { [ "$(systemctl is-enabled "$1" 2>/dev/null)" = disabled ]; }

say() {
    [ "$1" != "$last_problem" ] || return 0
    last_problem=$1
    echo "$1" >&2
}

# The chain is complete before a packet goes through it, and rules that are there are not replaced.
install_guard() {
    ipset -exist create "$set" hash:ip || return 1
    install_rules iptables \
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN" \
        "-i $bridge -m set ! --match-set $set src -j DROP" \
        "-o $bridge -m addrtype ! --src-type LOCAL -m set ! --match-set $set dst -j DROP" || return 1
    [ ! -e /proc/net/if_inet6 ] || install_rules ip6tables "-i $bridge -j DROP" "-o $bridge -j DROP"
}

# install_rules PROGRAM RULE...
install_rules() {
    program=$1
    shift
    if ! has_rules "$program" "$@"; then
        {
            printf '%s\n' '*mangle' ":$chain - [0:0]"
            for rule; do printf '%s\n' "-A $chain $rule"; done
            echo COMMIT
        } | "$program-restore" -w --noflush || return 1
    fi
    for hook in FORWARD INPUT OUTPUT; do
        "$program" -w -t mangle -C "$hook" -j "$chain" 2>/dev/null ||
            "$program" -w -t mangle -I "$hook" -j "$chain" || return 1
    done
}

# has_rules PROGRAM RULE...: whether the chain has these rules and no others.
has_rules() {
    has_program=$1
    shift
    [ "$("$has_program" -w -t mangle -S "$chain" 2>/dev/null | grep -c '^-A')" = $# ] || return 1
    for rule; do
        # shellcheck disable=SC2086 # words of a rule
        "$has_program" -w -t mangle -C "$chain" $rule 2>/dev/null || return 1
    done
}

watch_rules() {
    known=unknown turn=0
    while :; do
        if [ $((turn % 10)) = 0 ]; then
            install_guard || say "the guard cannot be installed: it is tried again"
            known=unknown # so that a set that somebody changed is written again
        fi
        turn=$((turn + 1))
        update_set
        sleep "${INTERVAL:-1}" &
        wait $!
    done
}

# If the rules cannot be read, the set stays as it is: it can only be too small for new pods.
update_set() {
    if ! iptables -w -S >"$run/rules" 2>"$run/error"; then
        say "iptables -S: $(tail -n 1 "$run/error")"
        return 0
    fi
    awk -f "$here/pod-guard.awk" "$run/rules" >"$run/steps" || return 0
    while read -r step what; do
        case $step in
            first) place_jump "$what" -I ;;
            spare) place_jump "$what" -D ;;
        esac
    done <"$run/steps"
    pods=$(sed -n 's/^pod //p' "$run/steps" | sort)
    [ "$pods" != "$known" ] || return 0
    if print_set | ipset -exist restore 2>"$run/error"; then
        known=$pods last_problem=''
    else
        say "ipset restore: $(tail -n 1 "$run/error")"
    fi
}

# place_jump CHAIN -I|-D: a jump of the guard's own to kube-router's chain. kube-router moves its own jump to the
# front when it next writes its rules.
place_jump() { iptables -w "$2" "$1" -m comment --comment kube-pod-guard -j "KUBE-ROUTER-$1"; }

# The whole set is exchanged at once.
print_set() {
    echo "create $set-new hash:ip"
    echo "flush $set-new"
    for pod in $pods; do echo "add $set-new $pod"; done
    echo "swap $set-new $set"
    echo "destroy $set-new"
}

remove_guard() {
    for program in iptables ip6tables; do
        command -v "$program" >/dev/null 2>&1 || continue
        for hook in FORWARD INPUT OUTPUT; do
            while "$program" -w -t mangle -D "$hook" -j "$chain" 2>/dev/null; do :; done
            ! [ "$program" = iptables ] || place_jump "$hook" -D 2>/dev/null
        done
        "$program" -w -t mangle -F "$chain" 2>/dev/null
        "$program" -w -t mangle -X "$chain" 2>/dev/null
    done
    ipset destroy "$set" 2>/dev/null || :
}

# All of kube-router's rules at once; its sets can go when no rule names them.
remove_policies() {
    for hook in FORWARD INPUT OUTPUT; do
        while place_jump "$hook" -D 2>/dev/null; do :; done
    done
    iptables-save -t filter |
        awk '/KUBE-ROUTER-|KUBE-POD-FW-|KUBE-NWPLCY-/ { next } { print }' |
        iptables-restore -w -T filter || echo "kube-router's rules cannot be removed" >&2
    ipset list -n | awk '/^KUBE-(SRC|DST)-/ || $0 == "kube-router-local-pods"' |
        while read -r name; do ipset destroy "$name"; done
}

main "$@"
