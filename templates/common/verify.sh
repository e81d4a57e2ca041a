#!/bin/sh
# Verify that the cluster works: etcd, the control plane, every worker, pods, Services, NodePorts.
#
# Usage: verify.sh [OPTION...]            on any control-plane node, as root
#
# Without --failover no unit on any host is stopped.
#
#   --timeout SECONDS   how long to wait for what is not yet so (default 120)
#   --json              print the results as JSON
#   --only CHECK        run only this check (may be given several times)
#   --list              list the checks and what each proves, then end
#   --namespace NAME    where the test's pods go while it runs (default bundler-verify)
#   --node              check this host alone, by itself; on any node, no cluster needed
#   --failover          stop the controller manager and the scheduler that lead, wherever they run,
#                       watch others take over, and see the stopped ones come back
#   --keep              leave the test's namespace for a look; the next run removes it
#   --help              this text
#
# Progress goes to stderr, the results to stdout.
# Exit code: 0 all checks hold, 1 some do not, 2 wrong usage, 3 this is no control-plane node.
# DESTDIR, when set, is put before the paths of installed files.
# shellcheck disable=SC2034 # the parts in lib/ use the variables
set -u
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2
for part in core/https core/json core/certificates verify/table verify/run verify/report verify/control-plane verify/workers verify/workload verify/network verify/node verify/failover; do
    # shellcheck disable=SC1090 # the files beside this one
    . "$here/lib/$part.sh" || exit 2
done

main() {
    set_defaults
    parse_options "$@"
    load_node
    check_only
    [ "$listing" = no ] || { list_checks; exit 0; }
    check_place
    make_work_dir
    [ "$mode" != node ] || check_node
    begun=$(now) deadline=$(($(now) + timeout))
    say "verifying the cluster $CLUSTER from $NODE"
    # shellcheck disable=SC2046 # lists of words
    start_checks $(chosen_checks nothing)
    if choose_server; then start_objects; fi
    # shellcheck disable=SC2046
    start_checks $(chosen_checks api namespace)
    await_started
    # shellcheck disable=SC2046
    start_checks $(chosen_checks workload)
    await_started
    "report_$format" $(($(now) - begun))
    have_all_held
}

set_defaults() {
    mode=cluster timeout=120 format=table only='' namespace=bundler-verify keep=no secret_name=verify
    started='' namespace_made=no server='' work='' etcd_commas=''
    prefix=${DESTDIR:-}
    kubectl=$prefix/opt/k8s/bin/kubectl etcdctl=$prefix/opt/k8s/bin/etcdctl
    admin=$prefix/etc/kubernetes/admin.kubeconfig pki=$prefix/etc/kubernetes/pki
    kubectl_line="$kubectl --kubeconfig $admin"
    again="$here/verify.sh --keep --only"
    # A proxy stands in the way of every address in question.
    unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
}

parse_options() {
    listing=no
    while [ $# -gt 0 ]; do
        case $1 in
            --timeout | --only | --namespace) [ $# -gt 1 ] || usage_error "$1 needs a value" ;;
        esac
        case $1 in
            --timeout)
                case $2 in '' | *[!0-9]* | ???????*) usage_error "--timeout: $2 is not a number of seconds" ;; esac
                timeout=$(printf '%s\n' "$2" | sed 's/^0*\(.\)/\1/'); shift ;; # 08 would be octal
            --only)
                case $2 in '' | *[!a-z-]*) usage_error "--only: there is no check $2 (see --list)" ;; esac
                only="$only $2"; shift ;;
            --namespace)
                case $2 in '' | -* | *- | *[!a-z0-9-]*) usage_error "--namespace: $2 cannot name a namespace" ;; esac
                namespace=$2; shift ;;
            --node) mode=node ;;
            --failover) mode=failover ;;
            --json) format=json ;;
            --keep) keep=yes ;;
            --list) listing=yes ;;
            --help | -h) print_help; exit 0 ;;
            *) usage_error "unknown option $1" ;;
        esac
        shift
    done
    only=${only# }
}

# Which checks there are depends on the node.
check_only() {
    for name in $only; do
        is_check "$name" || usage_error "--only: there is no check $name (see --list)"
    done
}

usage_error() {
    say "verify.sh: $1 (see --help)"
    exit 2
}

print_help() { sed -n '2,/^# DESTDIR/s/^# \{0,1\}//p' "$here/verify.sh"; }

# node.env is the only data that is read; where the manifest lies beside it, it must agree.
load_node() {
    [ -f "$here/node.env" ] || usage_error "$here/node.env is missing: run verify.sh inside the bundle or in /opt/k8s/bundle"
    if [ -f "$here/MANIFEST" ]; then
        digest=$(sha256sum "$here/node.env" | cut -d' ' -f1)
        grep -q "^$digest .* node\.env\$" "$here/MANIFEST" || usage_error "$here/node.env is not the file that MANIFEST names"
    fi
    # shellcheck disable=SC1091 # rendered for each node
    . "$here/node.env"
    etcd_commas=$(printf '%s' "$ETCD_ENDPOINTS" | tr ' ' ',')
    endpoint_host=${ENDPOINT#https://} endpoint_port=${ENDPOINT##*:}
    endpoint_host=${endpoint_host%:*}
    api_port=${API_LOCAL##*:}
}

check_place() {
    [ "$(id -u)" -eq 0 ] || usage_error "run it as root: it reads keys"
    [ "$mode" != node ] || return 0
    case " $ROLES " in
        *" control-plane "*) ;;
        *)
            say "verify.sh: $NODE is no control-plane node; run it on one of: $(planned_names control-plane | tr '\n' ' ')"
            exit 3
            ;;
    esac
    for file in "$kubectl" "$etcdctl" "$admin" "$pki/ca.crt"; do
        [ -r "$file" ] || { say "verify.sh: $file is missing: install this node's bundle first (install.sh)"; exit 3; }
    done
}

# Keys and the test Secret's value lie here; everything goes when the script ends, however it does.
make_work_dir() {
    umask 077
    work=$(mktemp -d) || exit 2
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    results=$work/results
    mkdir "$results" "$work/tmp"
    export HOME="$work" TMPDIR="$work/tmp" # kubectl's cache and temporary files go too
    [ "$mode" != node ] || return 0
    extract_identity "$admin" admin
    extract_identity "$prefix/etc/kubernetes/controller-manager.kubeconfig" wrong
}

finish() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    # shellcheck disable=SC2086 # a list of process ids
    [ -z "$started" ] || kill $started 2>/dev/null
    if [ "$namespace_made" = yes ] && [ "$keep" = no ]; then
        say "removing the namespace $namespace"
        remove_namespace
    fi
    rm -rf "$work"
    exit "$code"
}

# The API server of this node where it answers, else the common endpoint, else any other.
choose_server() {
    [ -n "$(chosen_checks api namespace workload)" ] || return 1
    while :; do
        for candidate in "$API_LOCAL" "$ENDPOINT" $(planned_addresses control-plane | sed "s|.*|https://&:$api_port|"); do
            server=$candidate server_host=${candidate#https://} server_port=${candidate##*:}
            server_host=${server_host%:*}
            [ "$(ready_status "$server_host" "$server_port")" != 200 ] || return 0
        done
        is_time_left || break
        sleep 1
    done
    lack api "an API server that answers" "none of $API_LOCAL, $ENDPOINT and the other control-plane nodes is ready"
    return 1
}

# The objects of the test, and in the background what their pods show.
start_objects() {
    [ -n "$(chosen_checks namespace workload)" ] || return 0
    claim_namespace || return 0
    create_objects
    [ -n "$(chosen_checks workload)" ] || return 0
    [ ! -f "$work/no-namespace" ] && [ ! -f "$work/no-workload" ] || return 0
    gather_workload &
    started="$started $!"
}

main "$@"
