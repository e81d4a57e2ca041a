# The script of the probe pods. verify.sh passes it as text to `sh -c` in the pod of each worker:
#   probe SERVICE-IP NODE-PORT "POD-IP..." "NODE-ADDRESS..." API-SERVICE-IP "API-SERVER..." [DNS-NAME]
# All probes run in parallel, with the host's programs, else with those of the image.
# Each prints a line KIND TARGET RESULT; the last line is "end".
# needs: nothing
# sets: nothing
# shellcheck shell=sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

is_on_host() { chroot /host /bin/sh -c "command -v $1" >/dev/null 2>&1; }

# With SELinux the host's programs go to domains that may not use what is of a pod: without new privileges they stay in
# the pod's.
confine=''
[ ! -e /host/sys/fs/selinux/enforce ] || ! is_on_host setpriv || confine='setpriv --no-new-privs'

# run PROGRAM ARGUMENT...: the host's program, else the image's; exit code 127 if neither has it.
run() {
    # shellcheck disable=SC2086 # words
    if is_on_host "$1"; then chroot /host $confine "$@"; else "$@"; fi
}

probe_ping() {
    result=$(run ping -c 1 -W 2 "$1" 2>&1) && result=ok
    case $result in
        ok) ;;
        *"not found"*) result="ping is not installed on the host" ;;
        *"100% packet loss"*) result="no reply" ;;
        *) result=$(printf '%s' "$result" | run tail -n 1) ;;
    esac
    printf 'ping %s %s\n' "$1" "$result"
}

# probe_http KIND ADDRESS:PORT
probe_http() {
    if is_on_host curl || command -v curl >/dev/null 2>&1; then
        status=$(run curl -s -o /dev/null --noproxy '*' -m 4 -w '%{http_code}' "http://$2/" 2>/dev/null)
        case $status in 200) status=ok ;; 000) status="no answer" ;; *) status="status $status" ;; esac
    elif is_on_host wget || command -v wget >/dev/null 2>&1; then
        status="no answer"
        ! run timeout 5 wget -q -T 4 -O /dev/null "http://$2/" >/dev/null 2>&1 || status=ok
    else
        status="neither curl nor wget is installed on the host"
    fi
    printf '%s %s %s\n' "$1" "$2" "$status"
}

# print_rules MODE SERVICE-IP: kube-proxy's rules for the Service.
print_rules() {
    case $1 in
        ipvs) run ipvsadm -ln -t "$2:443" 2>/dev/null ;;
        nftables) run nft list table ip kube-proxy 2>/dev/null ;;
        *) run iptables-save -t nat 2>/dev/null ;;
    esac
}

# print_proxy_version: not a result, but what the check version-skew reads.
print_proxy_version() {
    metrics=http://127.0.0.1:10249/metrics
    { run curl -s -m 4 --noproxy '*' "$metrics" || run wget -q -T 4 -O - "$metrics"; } 2>/dev/null |
        run sed -n 's/^kubernetes_build_info.*git_*[vV]ersion="\(v[0-9.]*\).*/version kube-proxy \1/p'
}

# probe_rules API-SERVICE-IP API-SERVER...
probe_rules() {
    service=$1
    shift
    mode=$(run curl -s -m 4 --noproxy '*' http://127.0.0.1:10249/proxyMode 2>/dev/null)
    rules=$(print_rules "$mode" "$service")
    result=ok
    printf '%s\n' "$rules" | run grep -qF "$service" || result="no rule for $service"
    for server; do
        printf '%s\n' "$rules" | run sed 's/ \. /:/g' | run grep -qF "$server" || result="no rule names $server"
    done
    printf 'rules %s %s\n' "${mode:-unknown}" "$result"
}

# The bridge must have the first address of the worker's pod subnet, which flannel or cluster.yaml chose, and every pod:
# what takes the bridge, as NetworkManager does, detaches them, and no kubelet notices.
probe_bridge() {
    bridge=cni0
    if [ -f /host/run/flannel/subnet.env ]; then
        wanted=$(run sed -n 's/^FLANNEL_SUBNET=//p' </host/run/flannel/subnet.env)
        [ ! -f /host/run/flannel/docker ] || bridge=docker0
    else
        wanted=$(run sh -c 'cat /etc/cni/net.d/*.conflist' |
            run sed -n 's/.*"subnet": "\([0-9.]*\)\.0\/\([0-9]*\)".*/\1.1\/\2/p')
    fi
    found=$(run ip -4 -o address show dev "$bridge" 2>/dev/null | run awk '{ print $4; exit }')
    result=ok
    if [ -z "$wanted" ]; then
        result="the worker's pod subnet is unknown: no /run/flannel/subnet.env, none in /etc/cni/net.d"
    elif [ "$found" != "$wanted" ]; then
        result="$bridge has ${found:-no address}, expected $wanted"
    else
        detached=$(run ip -o link show 2>/dev/null |
            run awk '$2 ~ /^veth[0-9a-f]+@/ && !/ master / { sub(/@.*/, "", $2); printf " %s", $2 }')
        [ -z "$detached" ] || result="pods are not attached to $bridge:$detached"
    fi
    printf 'bridge %s %s\n' "$bridge" "$result"
}

# probe_dns ADDRESS NAME: with getent or nslookup of the image, so that the pod's resolv.conf is used.
probe_dns() {
    result="no answer"
    if command -v getent >/dev/null 2>&1; then
        found=$(timeout 10 getent hosts "$2")
    else
        found=$(timeout 10 nslookup "$2" 2>&1)
    fi
    case $found in *"$1"*) result=ok ;; ?*) result="another address" ;; esac
    printf 'dns %s %s\n' "$2" "$result"
}

# Limit the number of processes: wait after every twenty.
children=0
limit_children() {
    children=$((children + 1))
    [ $((children % 20)) -ne 0 ] || wait
}

for target in $3; do
    probe_ping "$target" &
    limit_children
done
probe_http service "$1:80" &
for target in $4; do
    probe_http node-port "$target:$2" &
    limit_children
done
# shellcheck disable=SC2086 # a list of addresses
probe_rules "$5" $6 &
probe_bridge &
print_proxy_version &
[ -z "${7:-}" ] || probe_dns "$5" "$7" &
wait
echo end
