#!/bin/sh
# Collect what somebody needs who is to find out from afar what this host lacks, in one tarball.
#
# Usage: diagnose.sh [OPTION...]            as root; in /opt/k8s/bundle or in the unpacked bundle
#
#   -o FILE          where to write it (default ./diagnose-NODE-TIME.tar.gz)
#   --lines N        how many lines of each unit's journal (default 500)
#   --help
#
# Units, journals, files as they are installed, kernel, network, packages, certificates' dates and
# generations; on a control plane nodes, pods and events too. Nothing is changed. Files with secrets
# are left out but for mode and size, and whatever looks like a key, token or password is masked.
# Exit code: 0 written, 1 it could not be, 2 wrong usage.
# DESTDIR, when set, is where files were put.
# shellcheck disable=SC2034,SC2153,SC2154 # the parts in lib/ share the variables
set -u
umask 077
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2
for part in core/common transaction/payload core/redact transaction/generations; do
    # shellcheck disable=SC1090 # the files beside this one
    . "$here/lib/$part.sh" || exit 2
done
MOST=1048576 # bytes of one file in the tarball

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
    collect_cluster
    { tar -czf "$output.part" -C "$work" "$name" && mv -f "$output.part" "$output"; } || die 1 "cannot write $output"
    say "$output: $(find "$out" -type f | count_lines) files, $(($(wc -c <"$output") / 1024)) KiB. Look through it before you hand it on."
}

parse_options() {
    output='' lines=500
    while [ $# -gt 0 ]; do
        case $1 in
            -o) [ -n "${2:-}" ] || usage_error "-o needs a file"; output=$2; shift ;;
            --lines) case ${2:-} in '' | *[!0-9]*) usage_error "--lines needs a number" ;; esac; lines=$2; shift ;;
            --help | -h) print_help "$here/diagnose.sh"; exit 0 ;;
            *) usage_error "unknown option $1" ;;
        esac
        shift
    done
}

# keep FILE COMMAND...: what the command says, masked, and never too much of it.
keep() {
    kept=$out/$1
    shift
    mkdir -p "${kept%/*}"
    timeout 30 "$@" </dev/null 2>&1 | head -c "$MOST" | redact >"$kept"
    redact_words "$kept" "$work/words"
}

# The secrets of this host, by which they are known wherever they were printed.
list_secrets() {
    awk '{ print $2 }' "$store/files" 2>/dev/null | sort -u >"$work/paths"
    {
        sed "s|^|$prefix|" "$work/paths"
        find "$prefix$KUBELET_ROOT/pki" -name '*.pem' 2>/dev/null
    } | while read -r path; do
        case $(stat -L -c %a "$path" 2>/dev/null) in 600 | 400) list_secret_words "$path" ;; esac
    done | sort -u >"$work/words"
}

collect_host() {
    keep host.txt sh -c 'date -u; uname -a; cat /etc/os-release; cat /proc/uptime /proc/loadavg; head -n 5 /proc/meminfo; df -Pk; cat /proc/swaps; systemctl --version'
    keep node.env cat "$here/node.env"
    list_generations >"$out/generations.txt"
    keep bundler-journal.txt tail -n "$lines" "$store/journal"
    keep packages.txt sh -c 'dpkg-query -W 2>/dev/null || rpm -qa'
    keep kernel-log.txt sh -c "dmesg | tail -n $lines"
    for setting in $SYSCTLS $SYSCTLS_WANTED; do
        printf '%s (is %s)\n' "$setting" "$(cat "$live/proc/sys/$(printf '%s' "${setting%%[>=]*}" | tr . /)" 2>/dev/null)"
    done >"$out/settings.txt"
}

collect_units() {
    keep failed-units.txt systemctl list-units --failed --no-legend
    for unit in $BOOT_UNITS $UNITS; do
        keep "units/$unit.status" systemctl status --no-pager -n 0 "$unit"
        keep "units/$unit.journal" journalctl -u "$unit" -n "$lines" --no-pager -o short-iso
    done
}

# Of the installed files those that are for everybody, and short; of all of them what they are.
collect_files() {
    while read -r path; do
        [ -f "$prefix$path" ] || { printf 'missing %s\n' "$path"; continue; }
        stat -c '%a %U:%G %s %y %n' "$prefix$path"
        case $(stat -c %a "$prefix$path") in 600 | 400) continue ;; esac
        [ "$(wc -c <"$prefix$path")" -gt "$MOST" ] || case $path in *.crt | *.pub | *.key) ;; *) keep "files$path" cat "$prefix$path" ;; esac
    done <"$work/paths" >"$out/files.txt"
}

collect_certificates() {
    { cat "$work/paths"; echo "$KUBELET_ROOT/pki/kubelet-client-current.pem"; echo "$KUBELET_ROOT/pki/kubelet-server-current.pem"; } |
        while read -r path; do
            case $path in *.crt | *.pem) ;; *) continue ;; esac
            [ -f "$prefix$path" ] || continue
            printf '%s\n' "$path"
            openssl x509 -in "$prefix$path" -noout -subject -issuer -dates 2>&1 | sed 's/^/    /'
        done >"$out/certificates.txt"
}

collect_network() {
    keep network.txt sh -c 'ip -d address; ip route show table all; ip neigh; cat /etc/resolv.conf /etc/hosts; cat /proc/net/tcp /proc/net/tcp6'
    keep firewall.txt sh -c 'iptables-save 2>&1; nft list ruleset 2>&1 | head -n 2000; ipvsadm -ln 2>&1; conntrack -S 2>&1'
}

collect_runtime() {
    case " $UNITS " in
        *' docker.service '*) keep runtime.txt sh -c 'docker version; docker info; docker ps -a; docker images --digests' ;;
        *' containerd.service '*) keep runtime.txt sh -c 'ctr version; ctr -n k8s.io containers ls; ctr -n k8s.io tasks ls; ctr -n k8s.io images ls' ;;
    esac
}

collect_cluster() {
    admin=$prefix/etc/kubernetes/admin.kubeconfig
    [ -f "$admin" ] || return 0
    for what in 'nodes -o wide' 'pods -A -o wide' 'events -A --sort-by=.lastTimestamp' 'csr' 'daemonsets,deployments -A -o wide' 'services,endpoints -A -o wide'; do
        # shellcheck disable=SC2086 # words
        keep "cluster/${what%%[ ,]*}.txt" kubectl --kubeconfig "$admin" --request-timeout=10s get $what
    done
    keep cluster/readyz.txt kubectl --kubeconfig "$admin" --request-timeout=10s get --raw '/readyz?verbose'
}

main "$@"
