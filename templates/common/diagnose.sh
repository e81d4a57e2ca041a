#!/bin/sh
# Collect in one tarball what is needed to diagnose a problem of this host from elsewhere.
#
# Usage: diagnose.sh [OPTION...]            as root, in /opt/k8s/bundle or in the unpacked bundle
#
#   -o FILE          where to write the tarball (default ./diagnose-NODE-TIME.tar.gz)
#   --lines N        how many lines of the journal of each unit (default 500)
#   --help           show this text
#
# It has the state and journal of units, installed files, kernel, network and package information, dates of
# certificates, and generations; of etcd members and alarms; on a control-plane node also nodes, pods and events.
# Nothing is changed. Of files with secrets only mode and size are included; in all other text, what is a key, token or
# password by its name or its shape is redacted.
# Exit code: 0 the tarball is written, 1 it is not, 2 wrong usage, 3 others than root can change this script.
# DESTDIR, if set, is prepended to the paths of installed files.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 077
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 2

# Only root may be able to change what runs as root: the directories above this script, and all that is next to it.
# find_shared PATH [-prune]: the first of these that others can change; -prune: without what is in PATH. A user who
# stages files with DESTDIR counts like root.
find_shared() {
    shared_path=$1 shared_depth=${2:-} shared_user=$(id -u)
    set -- "$1"
    while [ -n "${1%/*}" ]; do set -- "${1%/*}" "$@"; done
    # shellcheck disable=SC2086 # no word or one
    shared_lines=$(LC_ALL=C ls -ldn / "$@" && LC_ALL=C find "$shared_path" $shared_depth ! -type l \
        \( ! -user 0 ! -user "$shared_user" -o -perm -020 -o -perm -002 \) -exec ls -ldn {} +) ||
        shared_lines="- - unreadable - - - - - $shared_path"
    printf '%s\n' "$shared_lines" | awk -v user="$shared_user" '
        ($3 != 0 && $3 != user) || substr($1, 6, 1) == "w" || substr($1, 9, 1) == "w" {
            for (i = 1; i < 9; i++) sub(/^[^ ]+ +/, "")
            gsub(/[\001-\037\177]/, "?")
            print
            exit
        }'
}

check_place() {
    shared=$(find_shared "$1")
    [ -n "$shared" ] || return 0
    {
        echo "${0##*/}: others than root can change $shared, and so what this script runs"
        echo "    fix: unpack the tarball as root, with umask 022, in a directory that only root can change, as /root"
        echo "Nothing was changed."
    } >&2
    exit 3
}

check_place "$here"

for part in core/environment core/common core/etcd-alarms transaction/payload core/redact transaction/generations; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done
MAX_BYTES=1048576 # of one file in the tarball

main() {
    parse_options "$@"
    make_work_dir
    load_node
    name=diagnose-$NODE-$(date -u +%Y%m%dT%H%M%SZ)
    output=${output:-$name.tar.gz}
    out=$work/$name
    mkdir -p "$out/units" "$out/files"
    list_secrets
    collect_host
    collect_units
    collect_files
    collect_certificates
    collect_network
    collect_runtime
    collect_etcd
    collect_cluster
    redact_secrets
    { tar -czf "$output.part" -C "$work" "$name" && mv -f "$output.part" "$output"; } || die 1 "cannot write $output"
    say "$output: $(find "$out" -type f | count_lines) files, $(($(wc -c <"$output") / 1024)) KiB." \
        "Check its content before you pass it on."
}

parse_options() {
    output='' lines=500
    while [ $# -gt 0 ]; do
        case $1 in
            -o)
                [ -n "${2:-}" ] || usage_error "-o needs a file"
                output=$2
                shift
                ;;
            --lines)
                case ${2:-} in '' | *[!0-9]*) usage_error "--lines needs a number" ;; esac
                lines=$2
                shift
                ;;
            --help | -h)
                print_help "$here/diagnose.sh"
                exit 0
                ;;
            *) usage_error "unknown option $1" ;;
        esac
        shift
    done
}

# save FILE COMMAND...: write the redacted output of the command, at most MAX_BYTES of it.
save() {
    saved=$1
    shift
    timeout 30 "$@" </dev/null 2>&1 | save_redacted "$saved"
}

# save_redacted FILE: the same with stdin.
save_redacted() {
    [ -d "$out/${1%/*}" ] || [ "${1%/*}" = "$1" ] || mkdir -p "$out/${1%/*}"
    head -c "$MAX_BYTES" | redact >"$out/$1"
}

# $work/paths: the installed files; $work/words: the secrets in those that are for root only.
list_secrets() {
    awk '{ print $2 }' "$store/files" 2>/dev/null | sort -u >"$work/paths"
    {
        sed "s|^|$prefix|" "$work/paths"
        find "$prefix$KUBELET_ROOT/pki" -name '*.pem' 2>/dev/null
    } | xargs -r stat -L -c '%a %n' 2>/dev/null | while read -r mode path; do
        case $mode in 600 | 400) list_secret_words "$path" ;; esac
    done | sort -u >"$work/words"
}

# Redact the secrets of this host in all collected files.
redact_secrets() {
    grep -rlF -f "$work/words" "$out" >"$work/leaks"
    while read -r leak; do redact_words "$leak" "$work/words"; done <"$work/leaks"
}

collect_host() {
    save host.txt sh -c 'date -u; uname -a; cat /etc/os-release; cat /proc/uptime /proc/loadavg
        head -n 5 /proc/meminfo; df -Pk; cat /proc/swaps; systemctl --version'
    save node.env cat "$here/node.env"
    list_generations >"$out/generations.txt"
    for failure in "$store"/failures/*; do
        [ ! -f "$failure" ] || save "failures/${failure##*/}.txt" cat "$failure"
    done
    save users.txt sh -c "echo '$SERVICE_USERS'; ls -lRn /run/bundler; ls -ldn $DATA_PATHS $RUNTIME_PATHS"
    save bundler-journal.txt tail -n "$lines" "$store/journal"
    save packages.txt sh -c 'dpkg-query -W 2>/dev/null || rpm -qa'
    save kernel-log.txt sh -c "dmesg | tail -n $lines"
    for setting in $SYSCTLS $SYSCTLS_WANTED; do
        file=$live/proc/sys/$(printf '%s' "${setting%%[>=]*}" | tr . /)
        printf '%s (is %s)\n' "$setting" "$(cat "$file" 2>/dev/null)"
    done >"$out/settings.txt"
}

collect_units() {
    save failed-units.txt systemctl list-units --failed --no-legend
    for unit in $BOOT_UNITS $UNITS; do
        save "units/$unit.status" systemctl status --no-pager -n 0 "$unit"
        save "units/$unit.journal" journalctl -u "$unit" -n "$lines" --no-pager -o short-iso
    done
}

# files.txt has mode, owner, size and time of all installed files; files/ has those that everybody may read,
# without certificates and keys and without large files.
collect_files() {
    while read -r path; do
        [ -f "$prefix$path" ] || printf 'missing %s\n' "$path"
    done <"$work/paths" >"$out/files.txt"
    sed "s|^|$prefix|" "$work/paths" | xargs -r stat -c '%a %U:%G %s %y %n' >>"$out/files.txt" 2>/dev/null
    awk -v most="$MAX_BYTES" '
        $1 != "missing" && $1 != 600 && $1 != 400 && $3 <= most && !/\.(crt|pub|key)$/ { print $NF }
        ' "$out/files.txt" >"$work/readable"
    while read -r path; do save_redacted "files${path#"$prefix"}" <"$path"; done <"$work/readable"
}

collect_certificates() {
    {
        cat "$work/paths"
        printf '%s\n' "$KUBELET_ROOT/pki/kubelet-client-current.pem" "$KUBELET_ROOT/pki/kubelet-server-current.pem"
    } | while read -r path; do
        case $path in *.crt | *.pem) ;; *) continue ;; esac
        [ -f "$prefix$path" ] || continue
        printf '%s\n' "$path"
        openssl x509 -in "$prefix$path" -noout -subject -issuer -dates 2>&1 | sed 's/^/    /'
    done >"$out/certificates.txt"
}

collect_network() {
    save network.txt sh -c 'ip -d address; ip route show table all; ip neigh
        cat /etc/resolv.conf /etc/hosts; cat /proc/net/tcp /proc/net/tcp6'
    save firewall.txt sh -c 'iptables-save 2>&1; nft list ruleset 2>&1 | head -n 2000
        ipvsadm -ln 2>&1; conntrack -S 2>&1'
}

collect_runtime() {
    case " $UNITS " in
        *' docker.service '*)
            save runtime.txt sh -c 'docker version; docker info; docker ps -a; docker images --digests'
            ;;
        *' containerd.service '*)
            save runtime.txt sh -c 'ctr version; ctr -n k8s.io containers ls; ctr -n k8s.io tasks ls
                ctr -n k8s.io images ls'
            ;;
    esac
}

# On hosts that have a client certificate for etcd.
collect_etcd() {
    [ -f "$prefix/etc/etcd/pki/ca.crt" ] || [ -f "$prefix/etc/kubernetes/pki/etcd-ca.crt" ] || return 0
    for query in 'alarm list' 'member list' 'endpoint health' 'endpoint status -w json'; do
        printf '$ etcdctl %s\n' "$query"
        # shellcheck disable=SC2086 # words
        ask_etcd "$ETCD_ENDPOINTS" $query
    done </dev/null 2>&1 | save_redacted etcd.txt
}

collect_cluster() {
    admin=$prefix/etc/kubernetes/admin.kubeconfig
    [ -f "$admin" ] || return 0
    for query in 'nodes -o wide' 'pods -A -o wide' 'events -A --sort-by=.lastTimestamp' 'csr' \
        'daemonsets,deployments -A -o wide' 'services,endpoints -A -o wide'; do
        # shellcheck disable=SC2086 # words
        save "cluster/${query%%[ ,]*}.txt" kubectl --kubeconfig "$admin" --request-timeout=10s get $query
    done
    save cluster/readyz.txt kubectl --kubeconfig "$admin" --request-timeout=10s get --raw '/readyz?verbose'
}

main "$@"
