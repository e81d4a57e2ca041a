#!/bin/sh
# Check that the cluster works: etcd, the control plane, every worker, pods, Services, NodePorts.
#
# Usage: verify.sh [OPTION...]            as root, on any control-plane node
#
# No systemd unit is stopped on any host, except with --failover.
#
#   --timeout SECONDS   how long to retry checks that fail (default 120)
#   --json              print the results as JSON
#   --jobs N            how many checks run at the same time (default: all; fewer suit a slow host)
#   --only CHECK        run only this check (may be given several times)
#   --list              list the checks and what each one proves, then exit
#   --namespace NAME    namespace for the test's pods, created and deleted (default bundler-verify)
#   --node              check this host only; works on any node, without a running cluster
#   --cis               compare this host with the benchmark of cluster.yaml's profile; works on any node; with --json,
#                       --list, and --only ID
#   --failover          stop the controller manager and the scheduler that are leaders, on any host;
#                       check that others become leaders and that the stopped ones come back
#   --keep              keep the test's namespace for inspection; the next run deletes it
#   --help              show this text
#
# Progress goes to stderr, results to stdout.
# Exit code: 0 all checks passed, 1 some failed, 2 wrong usage, 3 not an installed control-plane node, or others than
# root can change this script.
# DESTDIR, if set, is prepended to the paths of installed files.
# shellcheck disable=SC2034 # the parts in lib/ use the variables
set -u
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

for part in core/environment core/https core/etcd-alarms core/certificates overrides/overrides transaction/images \
    coordination/keys verify/table verify/versions verify/run verify/report verify/etcd verify/control-plane \
    verify/ports verify/workers verify/workload verify/pods verify/policy verify/add-ons verify/node verify/failover \
    verify/cis; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done
# shellcheck disable=SC1091 # where the cluster has a registry
[ ! -f "$here/lib/registry.sh" ] || . "$here/lib/registry.sh" || exit 2

main() {
    set_defaults
    parse_options "$@"
    load_node
    [ "$mode" != cis ] || main_cis
    checks=$(print_checks)
    check_only_names
    [ "$listing" = no ] || {
        list_checks
        exit 0
    }
    check_host
    make_work_dir
    [ "$mode" != node ] || verify_host
    verify_cluster
}

main_cis() {
    check_has_profile
    for name in $only; do has_cis_id "$name" || usage_error "--only: there is no check $name (see --cis --list)"; done
    [ "$listing" = no ] || {
        list_cis
        exit 0
    }
    check_host
    make_work_dir
    verify_cis
    exit $?
}

verify_cluster() {
    start=$(now) deadline=$(($(now) + timeout))
    say "verifying the cluster $CLUSTER from $NODE"
    # shellcheck disable=SC2046 # lists of words
    start_checks $(chosen_checks nothing)
    if choose_server; then start_objects; fi
    # shellcheck disable=SC2046
    start_checks $(chosen_checks api namespace)
    await_children
    # shellcheck disable=SC2046
    start_checks $(chosen_checks workload)
    await_children
    print_report $(($(now) - start))
    have_all_passed
}

set_defaults() {
    mode=cluster timeout=120 jobs='' format=table only='' namespace=bundler-verify keep=no secret_name=verify
    children='' namespace_made=no server='' work='' etcd_commas=''
    prefix=${DESTDIR:-}
    kubectl=$prefix/opt/k8s/bin/kubectl etcdctl=$prefix/opt/k8s/bin/etcdctl
    admin=$prefix/etc/kubernetes/admin.kubeconfig pki=$prefix/etc/kubernetes/pki
    kubectl_line="$kubectl --kubeconfig $admin"
    rerun_line="$here/verify.sh --keep --only"
}

parse_options() {
    listing=no
    while [ $# -gt 0 ]; do
        case $1 in
            --timeout | --jobs | --only | --namespace) [ $# -gt 1 ] || usage_error "$1 needs a value" ;;
        esac
        case $1 in
            --timeout)
                case $2 in '' | *[!0-9]* | ???????*) usage_error "--timeout: $2 is not a number of seconds" ;; esac
                timeout=$(printf '%s\n' "$2" | sed 's/^0*\(.\)/\1/') # the shell reads 010 as octal
                shift
                ;;
            --jobs)
                case $2 in '' | *[!0-9]* | 0* | ????*) usage_error "--jobs: $2 is not a number from 1 to 999" ;; esac
                jobs=$2
                shift
                ;;
            --only)
                case $2 in '' | *[!A-Za-z0-9.-]*) usage_error "--only: there is no check $2 (see --list)" ;; esac
                only="$only $2"
                shift
                ;;
            --namespace)
                case $2 in
                    '' | -* | *- | *[!a-z0-9-]*) usage_error "--namespace: $2 is not a valid name of a namespace" ;;
                esac
                namespace=$2
                shift
                ;;
            --node) mode=node ;;
            --cis) mode=cis ;;
            --failover) mode=failover ;;
            --json) format=json ;;
            --keep) keep=yes ;;
            --list) listing=yes ;;
            --help | -h)
                print_help
                exit 0
                ;;
            *) usage_error "unknown option $1" ;;
        esac
        shift
    done
    only=${only# }
}

# The list of checks depends on the node, so this runs after node.env is loaded.
check_only_names() {
    for name in $only; do
        read_row "$name" || usage_error "--only: there is no check $name (see --list)"
    done
}

usage_error() {
    say "verify.sh: $1 (see --help)"
    exit 2
}

print_help() { sed -n '2,/^# DESTDIR/s/^# \{0,1\}//p' "$here/verify.sh"; }

# node.env is run as shell, so its digest is checked where a MANIFEST exists.
load_node() {
    [ -f "$here/node.env" ] ||
        usage_error "$here/node.env is missing: run verify.sh in the unpacked bundle or in /opt/k8s/bundle"
    if [ -f "$here/MANIFEST" ]; then
        digest=$(sha256sum "$here/node.env" | cut -d' ' -f1)
        grep -q "^$digest .* node\.env\$" "$here/MANIFEST" ||
            usage_error "$here/node.env does not match its digest in MANIFEST: unpack the bundle again"
    fi
    # shellcheck disable=SC1091 # rendered for each node
    . "$here/node.env"
    # shellcheck disable=SC2086 # a list of endpoints
    etcd_commas=$(join_words , $ETCD_ENDPOINTS)
    endpoint_host=${ENDPOINT#https://} endpoint_port=${ENDPOINT##*:}
    endpoint_host=${endpoint_host%:*}
    api_port=${API_LOCAL##*:}
}

check_host() {
    [ "$(id -u)" -eq 0 ] || usage_error "run it as root: it reads private keys"
    case $mode in node | cis) return 0 ;; esac
    case " $ROLES " in
        *" control-plane "*) ;;
        *)
            say "verify.sh: $NODE is not a control-plane node: run it on one of: $(node_names control-plane)"
            exit 3
            ;;
    esac
    for file in "$kubectl" "$etcdctl" "$admin" "$pki/ca.crt"; do
        [ -r "$file" ] || {
            say "verify.sh: $file is missing: install this node's bundle first (install.sh)"
            exit 3
        }
    done
}

# The directory holds private keys and the value of the test's Secret; finish removes it in any case.
make_work_dir() {
    umask 077
    work=$(mktemp -d) || exit 2
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    results=$work/results
    mkdir "$results" "$work/tmp"
    make_slots
    export HOME="$work" TMPDIR="$work/tmp" # so that kubectl's cache is removed too
    case $mode in node | cis) return 0 ;; esac
    extract_identity "$admin" admin
    extract_identity "$prefix/etc/kubernetes/controller-manager.kubeconfig" wrong
}

finish() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    # shellcheck disable=SC2086 # a list of process ids
    [ -z "$children" ] || kill $children 2>/dev/null
    if [ "$namespace_made" = yes ] && [ "$keep" = no ]; then
        say "deleting the namespace $namespace"
        remove_namespace
    fi
    rm -rf "$work"
    exit "$code"
}

# Sets server: the API server of this node if it is ready, else the endpoint, else another API server.
choose_server() {
    [ -n "$(chosen_checks api namespace workload)" ] || return 1
    while :; do
        for candidate in "$API_LOCAL" "$ENDPOINT" $(node_addresses control-plane); do
            case $candidate in https://*) ;; *) candidate=https://$candidate:$api_port ;; esac
            server=$candidate server_host=${candidate#https://} server_port=${candidate##*:}
            server_host=${server_host%:*}
            [ "$(ready_status "$server_host" "$server_port")" != 200 ] || return 0
        done
        is_time_left || break
        sleep 1
    done
    block_checks api "an API server that is ready" \
        "no API server is ready: neither $API_LOCAL nor $ENDPOINT nor another control-plane node"
    return 1
}

# Creates the test's objects, and collects in the background what its pods report.
start_objects() {
    [ -n "$(chosen_checks namespace workload)" ] || return 0
    claim_namespace || return 0
    create_objects
    [ -n "$(chosen_checks workload)" ] || return 0
    [ ! -f "$work/no-namespace" ] && [ ! -f "$work/no-workload" ] || return 0
    collect_from_pods &
    children="$children $!"
}

main "$@"
