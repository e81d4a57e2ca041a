# The host's firewall: the rules that this node needs, and the commands for the missing ones.
# install.sh changes no rule: what is open is the owner's decision.
# needs: here live work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

check_firewall() {
    list_firewall_rules >"$work/rules"
    if is_active firewalld.service && command -v firewall-cmd >/dev/null 2>&1; then
        advise_rules "firewalld is running" "$(list_missing_firewalld_rules)"
    elif command -v ufw >/dev/null 2>&1 && ufw status 2>/dev/null | grep -q '^Status: active'; then
        advise_rules "ufw is active" "$(list_missing_ufw_rules)"
    else
        advise_rules "iptables drops what no rule accepts" "$(list_missing_iptables_rules)"
        advise_rules "nftables drops what no rule accepts" "$(list_missing_nft_rules)"
    fi
}

# advise_rules WHAT COMMANDS
advise_rules() { [ -z "$2" ] || add_advice firewall "$1, and has no rules for what this node needs" "$2"; }

has_unit() { case " $UNITS " in *" $1 "*) ;; *) return 1 ;; esac }

# "kind value": tcp and udp PORTS that must come in, a protocol's NUMBER, a CIDR from which everything
# must come in, a CIDR from and to which packets must be forwarded.
list_firewall_rules() {
    for port in $OPEN_PORTS ${ADDON_PORTS:-}; do echo "${port#*/} ${port%/*}"; done
    ! has_unit kube-keepalived.service || echo "protocol 112"
    has_unit kubelet.service || return 0
    for cidr in $POD_CIDR $SERVICE_CIDR; do echo "from $cidr"; done
    echo "forward $POD_CIDR"
}

# Units that accept forwarding themselves, with a first rule of iptables' FORWARD or its policy.
has_forwarding_unit() { has_unit kube-pod-routes.service || has_unit docker.service; }

# The zone of the interface with the node's address; the zone trusted accepts and forwards everything.
list_missing_firewalld_rules() {
    interface=$(ip -4 -o address show 2>/dev/null |
        awk -v address="$ADDRESS" '{ split($4, part, "/") } part[1] == address { print $2; exit }')
    zone=$(firewall-cmd --get-zone-of-interface="$interface" 2>/dev/null) ||
        zone=$(firewall-cmd --get-default-zone 2>/dev/null)
    while read -r kind value; do
        case $kind in
            tcp | udp) set -- "--zone=$zone" "port=$value/$kind" ;;
            protocol) set -- "--zone=$zone" protocol=vrrp ;;
            from) set -- --zone=trusted "source=$value" ;;
            *) continue ;;
        esac
        firewall-cmd --permanent "$1" "--query-$2" </dev/null >/dev/null 2>&1 ||
            echo "firewall-cmd --permanent $1 --add-$2"
    done <"$work/rules" | append_command "firewall-cmd --reload"
}

append_command() { awk -v last="$1" '{ print } END { if (NR) print last }'; }

list_missing_ufw_rules() {
    ufw status >"$work/ufw"
    while read -r kind value; do
        case $kind in
            tcp | udp)
                value=$(printf '%s' "$value" | tr - :)/$kind
                grep -Eq "^$value +ALLOW" "$work/ufw" || echo "ufw allow $value"
                ;;
            protocol)
                grep -q '^-A ufw-before-input -p \(112\|vrrp\) -j ACCEPT' "$live/etc/ufw/before.rules" 2>/dev/null ||
                    echo "sed -i '/^COMMIT/i -A ufw-before-input -p 112 -j ACCEPT' /etc/ufw/before.rules && ufw reload"
                ;;
            from) grep -Eq "ALLOW +(IN +)?$value" "$work/ufw" || echo "ufw allow from $value" ;;
            forward)
                has_forwarding_unit || grep -Eq "ALLOW +FWD +$value" "$work/ufw" ||
                    printf '%s\n' "ufw route allow from $value" "ufw route allow to $value"
                ;;
        esac
    done <"$work/rules"
}

# A chain drops by its policy, or by a last rule without conditions.
is_dropping() { iptables -S "$1" 2>/dev/null | grep -Eq -e "^-P $1 DROP" -e "^-A $1 -j (DROP|REJECT)"; }

list_missing_iptables_rules() {
    command -v iptables >/dev/null 2>&1 || return $?
    input=no forward=no
    ! is_dropping INPUT || input=yes
    has_forwarding_unit || ! is_dropping FORWARD || forward=yes
    while read -r kind value; do
        case $input-$forward-$kind in
            yes-*-tcp | yes-*-udp) print_missing_rule INPUT -p "$kind" --dport "$(printf '%s' "$value" | tr - :)" ;;
            yes-*-protocol) print_missing_rule INPUT -p "$value" ;;
            yes-*-from) print_missing_rule INPUT -s "$value" ;;
            *-yes-forward)
                print_missing_rule FORWARD -s "$value"
                print_missing_rule FORWARD -d "$value"
                ;;
        esac
    done <"$work/rules" |
        append_command "# and save them as this host saves its rules (netfilter-persistent save, service iptables save)"
}

print_missing_rule() { iptables -C "$@" -j ACCEPT 2>/dev/null || echo "iptables -I $* -j ACCEPT"; }

# Chains of nftables itself; list_missing_iptables_rules checks those of iptables-nft.
list_missing_nft_rules() {
    command -v nft >/dev/null 2>&1 || return $?
    nft list chains 2>/dev/null | awk -f "$here/lib/preflight/dropping-chains.awk" |
        while read -r hook family table chain; do
            nft list chain "$family" "$table" "$chain" 2>/dev/null </dev/null |
                sed 's/ip protocol vrrp/ip protocol 112/' >"$work/chain"
            while read -r kind value; do
                case $hook-$kind in
                    input-tcp | input-udp) set -- "$kind dport $value" ;;
                    input-protocol) set -- "ip protocol $value" ;;
                    input-from) set -- "ip saddr $value" ;;
                    forward-forward) set -- "ip saddr $value" "ip daddr $value" ;;
                    *) continue ;;
                esac
                for match in "$@"; do
                    grep -qF "$match accept" "$work/chain" || echo "nft insert rule $family $table $chain $match accept"
                done
            done <"$work/rules"
        done | append_command "# and write them to /etc/nftables.conf"
}
