# The file of name servers that pods are given. It is a fact of one host: with systemd-resolved it is another one.
# needs: nothing
# sets: nothing
# shellcheck shell=sh

# choose_resolver ROOT: /etc/resolv.conf, or systemd-resolved's own file where that is missing or names only the host's
# loopback address, which inside a pod is the pod's own.
choose_resolver() {
    resolver_file=/etc/resolv.conf better=/run/systemd/resolve/resolv.conf
    if [ -f "$1$better" ] && ! is_loopback_only "$1$better"; then
        { [ -f "$1$resolver_file" ] && ! is_loopback_only "$1$resolver_file"; } || resolver_file=$better
    fi
    printf '%s\n' "$resolver_file"
}

# is_loopback_only FILE: it has name servers, all on loopback.
is_loopback_only() {
    awk '$1 == "nameserver" { n++; own += $2 ~ /^(127\.|::1$)/ } END { exit !(n && n == own) }' "$1" 2>/dev/null
}
