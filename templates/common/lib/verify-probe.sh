# Runs inside the probe pod of one worker, given as text to `sh -c`:
#   probe SERVICE-IP NODE-PORT "POD-IP..." "NODE-ADDRESS..."
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
wait
echo end
