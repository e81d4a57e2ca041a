# Runs inside the probe pod of one worker, given as text to `sh -c`:
#   probe SERVICE-IP NODE-PORT "POD-IP..." "NODE-ADDRESS..." API-SERVICE-IP "API-SERVER..." [DNS-NAME]
# Tries everything side by side with the host's own ping and curl (or wget; the image's own where
# the host has none) and prints a line for each: KIND TARGET RESULT. The last line is "end".
# shellcheck shell=sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

is_on_host() { chroot /host /bin/sh -c "command -v $1" >/dev/null 2>&1; }

# run PROGRAM ARGUMENT...: the host's, else the image's; 127 when neither has it.
run() {
    if is_on_host "$1"; then chroot /host "$@"; else "$@"; fi
}

try_ping() {
    result=$(run ping -c 1 -W 2 "$1" 2>&1) && result=ok
    case $result in
        ok) ;;
        *"not found"*) result="there is no ping on the host" ;;
        *"100% packet loss"*) result="no reply" ;;
        *) result=$(printf '%s' "$result" | tail -n 1) ;;
    esac
    printf 'ping %s %s\n' "$1" "$result"
}

# try_http KIND ADDRESS:PORT
try_http() {
    if is_on_host curl || command -v curl >/dev/null 2>&1; then
        status=$(run curl -s -o /dev/null --noproxy '*' -m 4 -w '%{http_code}' "http://$2/" 2>/dev/null)
        case $status in 200) status=ok ;; 000) status="no answer" ;; *) status="status $status" ;; esac
    elif is_on_host wget || command -v wget >/dev/null 2>&1; then
        status="no answer"
        ! run timeout 5 wget -q -T 4 -O /dev/null "http://$2/" >/dev/null 2>&1 || status=ok
    else
        status="there is neither curl nor wget on the host"
    fi
    printf '%s %s %s\n' "$1" "$2" "$status"
}

# What kube-proxy made of the Service kubernetes; the kernel's own table where ipvsadm is not there.
print_rules() {
    case $1 in
        ipvs) run ipvsadm -ln -t "$2:443" 2>/dev/null ;;
        nftables) run nft list table ip kube-proxy 2>/dev/null ;;
        *) run iptables-save -t nat 2>/dev/null ;;
    esac
}

# try_rules API-SERVICE-IP API-SERVER...
try_rules() {
    service=$1
    shift
    mode=$(run curl -s -m 4 --noproxy '*' http://127.0.0.1:10249/proxyMode 2>/dev/null)
    rules=$(print_rules "$mode" "$service")
    result=ok
    printf '%s\n' "$rules" | grep -qF "$service" || result="no rule for $service"
    for server; do
        printf '%s\n' "$rules" | sed 's/ \. /:/g' | grep -qF "$server" || result="no rule names $server"
    done
    printf 'rules %s %s\n' "${mode:-unknown}" "$result"
}

# The bridge has the first address of the subnet that flannel or the plan gave this worker.
try_bridge() {
    bridge=cni0
    if [ -f /host/run/flannel/subnet.env ]; then
        wanted=$(sed -n 's/^FLANNEL_SUBNET=//p' /host/run/flannel/subnet.env)
        [ ! -f /host/run/flannel/docker ] || bridge=docker0
    else
        wanted=$(sed -n 's/.*"subnet": "\([0-9.]*\)\.0\/\([0-9]*\)".*/\1.1\/\2/p' /host/etc/cni/net.d/*.conflist)
    fi
    found=$(run ip -4 -o address show dev "$bridge" 2>/dev/null | awk '{ print $4 }' | head -n 1)
    result=ok
    [ -n "$wanted" ] && [ "$found" = "$wanted" ] || result="$bridge has ${found:-no address}, not ${wanted:-what is written nowhere}"
    printf 'bridge %s %s\n' "$bridge" "$result"
}

# The image's own getent or nslookup: the pod asks where the kubelet sends it.
try_dns() {
    result="no answer"
    if command -v getent >/dev/null 2>&1; then
        found=$(timeout 10 getent hosts "$2")
    else
        found=$(timeout 10 nslookup "$2" 2>&1)
    fi
    case $found in *"$1"*) result=ok ;; ?*) result="another answer" ;; esac
    printf 'dns %s %s\n' "$2" "$result"
}

# Twenty at a time: pass KIND and TARGET pairs on.
started=0
pace() {
    started=$((started + 1))
    [ $((started % 20)) -ne 0 ] || wait
}

for target in $3; do
    try_ping "$target" &
    pace
done
try_http service "$1:80" &
for target in $4; do
    try_http node-port "$target:$2" &
    pace
done
# shellcheck disable=SC2086 # a list of addresses
try_rules "$5" $6 &
try_bridge &
[ -z "${7:-}" ] || try_dns "$5" "$7" &
wait
echo end
