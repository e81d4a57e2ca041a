#!/bin/sh
# Publish which keys the API server of this host has loaded, so that other hosts can tell before they use another key.
#
# Usage: loaded-keys.sh note       before the API server starts: remember the ids of the keys in the files
#        loaded-keys.sh publish    when it has started: write them to etcd. May be run again at any time
#
# kube-apiserver.service runs both. lib/coordination/keys.sh has the format. If the files change in between, nothing is
# published: install.sh is then about to restart the API server.
# Exit code: 0 done, 1 it failed, 2 wrong usage.
# MAINPID    the process of the API server (default: systemd says)
# DESTDIR    prepended to the paths of installed files
set -u
umask 077
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
here=$prefix/opt/k8s/bundle run=$prefix/run/kube-apiserver
for part in core/environment core/common coordination/keys; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 1
done

main() {
    # shellcheck disable=SC1091 # rendered for each node
    . "$here/node.env" || exit 1
    case ${1:-} in
        note) note_keys ;;
        publish) publish_keys ;;
        *)
            echo "usage: loaded-keys.sh note|publish" >&2
            exit 2
            ;;
    esac
}

note_keys() {
    rm -f "$run/keys"
    print_key_ids "$prefix/etc/kubernetes" >"$run/keys.new" || die 1 "the keys in $prefix/etc/kubernetes cannot be read"
    mv -f "$run/keys.new" "$run/keys" || exit 1
}

publish_keys() {
    [ "$(print_key_ids "$prefix/etc/kubernetes")" = "$(cat "$run/keys" 2>/dev/null)" ] ||
        die 1 "the API server does not run with the keys in its files: systemctl restart kube-apiserver"
    pid=${MAINPID:-$(systemctl show -p MainPID kube-apiserver.service | sed 's/.*=//')}
    ticks=$(process_start "$pid")
    [ -n "$ticks" ] || die 1 "the API server does not run"
    # As the process itself reports it in its metrics, where a second has 100 ticks on every machine.
    start=$(awk -v ticks="$ticks" '$1 == "btime" { printf "%.2f", $2 + ticks / 100 }' /proc/stat)
    signs=$(text_field "$run/keys" TOKENS_SIGNED_WITH) since=$start
    for try in 1 2 3; do
        if former=$(run_etcdctl get "bundler/keys/$NODE" --print-value-only); then
            # shellcheck disable=SC2086 # words
            set -- $former
            [ "${3:-}" != "$signs" ] || since=$2
            run_etcdctl put "bundler/keys/$NODE" "$start $since $signs $(print_list TOKENS_ACCEPTED) $(
                text_field "$run/keys" SECRETS_WRITTEN_WITH
            ) $(print_list SECRETS_READ_WITH)" >/dev/null && return 0
        fi
        sleep "$try"
    done
    die 1 "etcd does not answer, so the keys of the API server are not published"
}

print_list() { text_field "$run/keys" "$1" | tr ' ' ','; }

main "$@"
