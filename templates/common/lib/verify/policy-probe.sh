# The script of the clients of the check network-policy. verify.sh passes it as text to `sh -c` in each of them:
#   probe CLIENT open|closed ADDRESS:PORT...
# For each target it prints a line CLIENT TARGET RESULT, where RESULT is ok if it answers (open) or does not (closed);
# the last line is "end". With the host's curl or wget, else with those of the image.
# needs: nothing
# sets: nothing
# shellcheck shell=sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

host_has() { chroot /host /bin/sh -c "command -v $1" >/dev/null 2>&1; }
call() {
    if host_has "$1"; then chroot /host "$@"; else "$@"; fi
}

# answers ADDRESS:PORT: prints yes, no, or why it cannot be seen.
answers() {
    if host_has curl || command -v curl >/dev/null 2>&1; then
        case $(call curl -s -o /dev/null --noproxy '*' -m 4 -w '%{http_code}' "http://$1/" 2>/dev/null) in
            000) echo no ;;
            *) echo yes ;;
        esac
    elif host_has wget || command -v wget >/dev/null 2>&1; then
        if call timeout 5 wget -q -T 4 -O /dev/null "http://$1/" >/dev/null 2>&1; then echo yes; else echo no; fi
    else
        echo "neither curl nor wget is installed on the host"
    fi
}

# probe_target CLIENT open|closed ADDRESS:PORT
probe_target() {
    result=$(answers "$3")
    case $2-$result in
        open-yes | closed-no) result=ok ;;
        open-no) result="no answer, but the policy admits it" ;;
        closed-yes) result="it answers, but the policy does not admit it" ;;
    esac
    printf '%s %s %s\n' "$1" "$3" "$result"
}

client=$1 wanted=$2
shift 2
for target; do probe_target "$client" "$wanted" "$target" & done
wait
echo end
