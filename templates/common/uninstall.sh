#!/bin/sh
# Remove from this host exactly what install.sh installed.
#
# Usage: uninstall.sh [OPTION...]           as root, in the bundle or in /opt/k8s/bundle
#
#   --leave             leave the cluster first: drain and delete the node, remove its etcd member.
#                       Without it the cluster keeps counting with this host
#   --no-drain          with --leave: do not wait until pods are evicted
#   --purge-data        remove data too: of etcd and of the container runtime
#   --remove-packages   remove the packages that install.sh installed (with --purge-data also their
#                       configuration), except those that other packages need
#   --dry-run           show what would be removed; change nothing
#   --yes               do not ask for confirmation
#   --help              show this text
#
# Files that existed before the installation are restored. Data is kept unless --purge-data is given.
# Exit code: 0 done or nothing to do, 1 something could not be removed (run it again), 2 wrong usage, 3 it
# cannot run on this host now; nothing was changed.
# DESTDIR, if set, is prepended to the paths of installed files; then no unit is stopped.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
umask 022
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

for part in core/environment core/common transaction/files transaction/users transaction/generations \
    transaction/mounts \
    coordination/drain coordination/leave packages/packages packages/dpkg packages/rpm; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

# Functions for the container runtime, if the node has one.
# shellcheck disable=SC1091
[ ! -f "$here/lib/runtime.sh" ] || . "$here/lib/runtime.sh"

main() {
    parse_options "$@"
    if [ ! -d "$store" ]; then
        say "nothing to do: $store does not exist, so bundler is not installed"
        exit 0
    fi
    check_host
    list_recorded_files | awk '{ print $2 }' | sort -ru >"$work/files"
    [ "$leaving" = no ] || check_leave
    if [ "$dry_run" = yes ]; then
        print_dry_run
        exit 0
    fi
    confirm
    take_lock
    [ "$leaving" = no ] || leave_cluster
    list_host_units >"$work/host-units"
    list_owned_directories >"$work/owned"
    if ! is_staged; then
        stop_units
        stop_carried_units
    fi
    remove_runtime
    rm -f "$prefix$TEXTFILE_DIR/bundler-certificates.prom"
    remove_temporary_files
    while read -r path; do remove_file "$path" || failed="$failed $path"; done <"$work/files"
    if ! is_staged; then
        systemctl daemon-reload
        # shellcheck disable=SC2086 # a list of units
        systemctl reset-failed $UNITS 2>/dev/null
        restore_sysctls
        restore_swap
        reload_network_manager
        restart_host_units
    fi
    remove_packages
    remove_users || failed="$failed users"
    [ -z "$remaining_users" ] || kept="$kept; users that own data that is kept: $remaining_users"
    remove_directories
    [ -z "$failed" ] || die 1 "cannot remove:$failed; run it again"
    remove_store
    say "$NODE: removed $(count_lines <"$work/files") files$kept"
}

parse_options() {
    dry_run=no leaving=no drain=yes slot_wait=0 skipped=' ' purge=no packages=keep sure=no failed='' kept=''
    for option in "$@"; do
        case $option in
            --dry-run) dry_run=yes ;;
            --leave) leaving=yes ;;
            --no-drain) drain=no ;;
            --purge-data) purge=yes ;;
            --remove-packages) packages=remove ;;
            --yes) sure=yes ;;
            --help | -h)
                print_help "$here/uninstall.sh"
                exit 0
                ;;
            *) usage_error "unknown option $option" ;;
        esac
    done
}

check_host() {
    is_staged || [ "$(id -u)" -eq 0 ] || die 3 "run it as root"
    ! is_locked || die 3 "another install.sh or uninstall.sh is running (process $(lock_owner))"
    make_work_dir
    load_node
    installed=$(text_field "$prefix/opt/k8s/bundle/node.env" NODE)
    [ -z "$installed" ] || [ "$installed" = "$NODE" ] ||
        die 3 "the node $installed is installed on this host, not $NODE: run /opt/k8s/bundle/uninstall.sh"
}

print_dry_run() {
    [ "$leaving" = no ] || print_leave
    for unit in $UNITS; do say "stop     $unit"; done
    list_host_units | sed 's/^restart /restart  /; s/^reload-or-restart /reload   /'
    sed 's/^/remove   /' "$work/files"
    for path in $RUNTIME_PATHS; do [ ! -e "$prefix$path" ] || say "remove   $path"; done
    for path in $DATA_PATHS; do
        [ -e "$prefix$path" ] || continue
        if [ "$purge" = no ]; then
            say "keep     $path"
        elif [ -L "$prefix$path" ] || [ -n "$(list_mounts "$prefix$path" | sed -n '/^at /p')" ]; then
            say "empty    $path (a link, or a file system of its own: it stays)"
        else
            say "purge    $path"
        fi
        list_mounts "$prefix$path" | sed -n 's/^other /stop     somebody mounted /p'
    done
    (cd "$store/replaced" 2>/dev/null && find . ! -type d) | sed 's/^\./restore  /'
    print_users
    installed_packages | sed "s/^/$(printf '%-8s' $packages) package /"
    sed -n 's/^device /swap on  /p; s/^unit /unmask   /p' "$store/swap" 2>/dev/null
    say "Dry run: nothing was changed."
}

# A user stays with its data.
print_users() {
    list_owned_directories >"$work/owned"
    list_created_users | while read -r kind name; do
        fate=remove
        while read -r owner directory; do
            if [ "$owner$purge" != "${name}no" ] || ! has_word "$DATA_PATHS" "$directory"; then continue; fi
            [ ! -e "$prefix$directory" ] || fate=keep
        done <"$work/owned"
        printf '%-8s %s %s\n' "$fate" "$kind" "$name"
    done
}

confirm() {
    [ "$sure" = no ] && [ -t 0 ] || return 0
    data=''
    [ "$purge" = no ] || data=" and its data ($DATA_PATHS)"
    printf 'Remove %s of the cluster %s from this host%s? [y/N] ' "$NODE" "$CLUSTER" "$data"
    read -r answer
    case $answer in y | Y | yes) ;; *) die 3 "not confirmed: nothing was changed" ;; esac
}

# "USER DIRECTORY" of the directories that belong to users of units.
list_owned_directories() {
    awk -F '\t' -v users="$SERVICE_USERS" '
        BEGIN {
            n = split(users, pair, " ")
            for (i = 1; i <= n; i++) { split(pair[i], part, ":"); name[part[2]] = part[1] }
        }
        $3 == "own" { print name[$2], $4 }' "$here/lib/unit-files.tsv" 2>/dev/null
}

# In reverse order; the pods are removed before the container runtime stops.
stop_units() {
    reversed=''
    for unit in $BOOT_UNITS $UNITS; do reversed="$unit $reversed"; done
    for unit in $reversed; do
        [ "$unit" != "${runtime_unit:-}" ] || remove_pods
        systemctl -q disable --now "$unit" 2>/dev/null
        [ "$unit" != kube-proxy.service ] || kube-proxy --cleanup >/dev/null 2>&1
        note "stopped $unit"
    done
    [ -z "${runtime_unit:-}" ] || remove_leftovers
    for link in cni0 kube-ipvs0 flannel.1; do ip link delete "$link" 2>/dev/null; done
    remove_kube_chains
    remove_forward_rules
    remove_kube_cgroups
    case " $UNITS " in *' flannel.service '*) remove_flannel_rules ;; esac
    [ -z "${NETWORK_ADDON:-}" ] ||
        kept="$kept; interfaces and rules that the add-on $NETWORK_ADDON made stay until this host is rebooted"
}

# The kubelet's chains, for IPv6 too, and what kube-proxy --cleanup leaves: KUBE-FIREWALL drops packets, and the
# canaries and hints say that a kubelet is there.
remove_kube_chains() {
    for program in iptables ip6tables; do
        command -v "$program" >/dev/null 2>&1 || continue
        for table in mangle nat filter; do
            "$program" -w -t "$table" -S 2>/dev/null | grep -e '^-N KUBE-' -e '^-A .* -j KUBE-' >"$work/rules"
            sed -n '/^-A KUBE-/d; s/^-A/-D/p' "$work/rules" | xargs -r -L 1 "$program" -w -t "$table" 2>/dev/null
            # no chain may be named by another one that still has rules
            for how in F X; do
                sed -n "s/^-N/-$how/p" "$work/rules" | xargs -r -L 1 "$program" -w -t "$table" 2>/dev/null
            done
        done
    done
}

# Those of docker.service.
remove_forward_rules() {
    case " $UNITS " in *' docker.service '*) ;; *) return 0 ;; esac
    for end in -s -d; do
        while iptables -w -D FORWARD "$end" "$POD_CIDR" -j ACCEPT 2>/dev/null; do :; done
    done
}

# The cgroups of pods; the kernel refuses to remove one that still has processes.
remove_kube_cgroups() {
    systemctl -q stop kubepods.slice 2>/dev/null
    find "$live/sys/fs/cgroup" -depth -type d \( -path '*/kubepods' -o -path '*/kubepods/*' -o \
        -path '*/kubepods.slice' -o -path '*/kubepods.slice/*' \) -exec rmdir {} + 2>/dev/null
}

# flannel's chains and routes, and the rules of older versions, which have no chains of their own.
remove_flannel_rules() {
    for table in filter nat; do
        iptables -w -t "$table" -S 2>/dev/null | grep -e FLANNEL -e " $POD_CIDR " >"$work/rules"
        sed -n 's/^-A/-D/p' "$work/rules" | xargs -r -L 1 iptables -w -t "$table" 2>/dev/null
        sed -n 's/^-N \(FLANNEL[^ ]*\)/-X \1/p' "$work/rules" | xargs -r -L 1 iptables -w -t "$table" 2>/dev/null
    done
    ip -4 route flush root "$POD_CIDR" 2>/dev/null
}

remove_runtime() {
    paths=''
    for path in $RUNTIME_PATHS; do
        grep -qxF "$path" "$store/existed" 2>/dev/null || paths="$paths $path"
    done
    if [ "$purge" = yes ]; then
        paths="$paths $DATA_PATHS"
    else
        for path in $DATA_PATHS; do
            [ ! -e "$prefix$path" ] || kept="$kept; $path is kept (--purge-data removes it)"
        done
    fi
    # first all of them: the installed files stay until nothing is mounted there any more
    for path in $paths; do
        unmount_below "$prefix$path" || die 1 "cannot remove $path: still mounted there: $still_mounted." \
            "Nothing of it was deleted. Fix: umount that, and run uninstall.sh again"
    done
    for path in $paths; do
        case $path in /?*/?*) remove_tree "$prefix$path" || failed="$failed $path" ;; esac
        kept="$kept$stays"
    done
}

restore_sysctls() {
    [ -f "$store/sysctls" ] || return 0
    while IFS='=' read -r key value; do
        printf '%s\n' "$value" 2>/dev/null >"$live/proc/sys/$(printf '%s' "$key" | tr . /)"
    done <"$store/sysctls"
}

# Swap units come first, since they have priorities and options. If no device is listed, swap was already off.
restore_swap() {
    [ -f "$store/swap" ] || return 0
    sed -n 's/^unit //p' "$store/swap" >"$work/swap-units"
    sed -n 's/^device //p' "$store/swap" >"$work/swaps"
    while read -r unit; do systemctl -q unmask "$unit"; done <"$work/swap-units"
    [ -s "$work/swaps" ] || return 0
    systemctl daemon-reload
    while read -r unit; do systemctl -q start "$unit"; done <"$work/swap-units"
    while read -r device; do
        awk -v device="$device" '$1 == device { found = 1 } END { exit !found }' "$live/proc/swaps" ||
            swapon "$device" || warn "cannot turn swap on $device on again: swapon $device"
    done <"$work/swaps"
}

reload_network_manager() {
    grep -q '^/etc/NetworkManager/' "$work/files" || return 0
    ! systemctl -q is-active NetworkManager.service 2>/dev/null ||
        systemctl reload NetworkManager.service
}

# "restart|reload UNIT" of units of the host that files of cluster.yaml name; only those that run.
list_host_units() {
    table=$prefix/opt/k8s/bundle/lib/site-files.tsv
    [ -f "$table" ] || return 0
    while IFS='	' read -r path _ restart reload; do
        case $path in '#'*) continue ;; esac
        for unit in $restart; do echo "restart $unit"; done
        for unit in $reload; do echo "reload-or-restart $unit"; done
    done <"$table" | awk -v own=" $UNITS - " '!index(own, " " $2 " ") && !seen[$2]++'
}

# Units that the bundle brought as files of cluster.yaml.
stop_carried_units() {
    sed -n 's|^/etc/systemd/system/\([^/	]*\)	.*|\1|p' "$prefix/opt/k8s/bundle/lib/site-files.tsv" 2>/dev/null |
        while read -r unit; do
            systemctl -q disable --now "$unit" 2>/dev/null
            note "stopped $unit"
        done
}

# Their files are gone, or are what they were before.
restart_host_units() {
    while read -r step unit; do
        systemctl -q is-active "$unit" 2>/dev/null || continue
        systemctl "$step" "$unit" || warn "systemctl $step $unit failed: its file of the bundle was removed"
    done <"$work/host-units"
}

# The packages that install.sh installed and that are still installed.
installed_packages() {
    ! is_staged && [ -f "$store/packages" ] || return 0
    # the installed bundle may be a later one without packages
    if [ -z "$PACKAGES_MANAGER" ]; then
        PACKAGES_MANAGER=rpm
        ! command -v dpkg >/dev/null 2>&1 || PACKAGES_MANAGER=dpkg
    fi
    packager keep_installed <"$store/packages"
}

# Packages that other packages need are kept.
remove_packages() {
    installed_packages >"$work/packages"
    if [ ! -s "$work/packages" ]; then
        rm -f "$store/packages"
        return 0
    fi
    if [ "$packages" = keep ]; then
        kept="$kept; $(count_lines <"$work/packages") packages that it installed are kept"
        kept="$kept (listed in $store/packages; --remove-packages removes them)"
        return 0
    fi
    how=keep
    [ "$purge" = no ] || how=purge
    packager remove "$work/packages" "$how" >"$work/packages.log" 2>&1
    remove_code=$?
    note "removed packages: $(tr '\n' ' ' <"$work/packages")"
    installed_packages >"$work/packages.left"
    if [ ! -s "$work/packages.left" ]; then
        rm -f "$store/packages"
        return 0
    fi
    kept="$kept; packages that others need, or that $PACKAGES_MANAGER could not remove, are kept:"
    kept="$kept $(tr '\n' ' ' <"$work/packages.left")"
    if [ "$remove_code" -ne 0 ] &&
        ! grep -q 'dependency problems\|depends on\|is needed by' "$work/packages.log"; then
        tail -n 5 "$work/packages.log" >&2
        failed="$failed packages"
    fi
}

# Only directories that install.sh created, and only if they are empty. A killed one leaves programs that it was trying.
remove_directories() {
    [ ! -f "$store/trying" ] || while read -r path; do
        rm -rf "$path"/.bundler-try.*
        rmdir "$path" 2>/dev/null
    done <"$store/trying"
    sort -ru "$store/dirs" 2>/dev/null | while read -r path; do rmdir "$prefix$path" 2>/dev/null; done
}

remove_store() {
    remove_stale_secrets
    [ ! -d "$store/modified" ] || kept="$kept; files changed by hand are kept in $store/modified"
    wipe_secrets "$store/generations"
    # the lock goes last: another script may start then
    find "$store/" -mindepth 1 -maxdepth 1 ! -name modified ! -name packages ! -name users ! -name lock \
        -exec rm -rf {} +
    lock_taken=no
    rm -rf "$store/lock"
    rmdir "$store" 2>/dev/null || true
}

main "$@"
