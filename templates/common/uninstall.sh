#!/bin/sh
# Take away from this host exactly what install.sh put there.
#
# Usage: uninstall.sh [OPTION...]           as root; in the bundle or in /opt/k8s/bundle
#
#   --leave             leave the cluster first: the node is drained and deleted, its member of etcd
#                       taken out. Without it the others go on counting with this host
#   --no-drain          with --leave: do not wait until pods have gone to other nodes
#   --purge-data        remove data too: etcd's, the container runtime's
#   --remove-packages   remove the packages that install.sh installed (with --purge-data their
#                       configuration too), but for those that others need by now
#   --dry-run           say what would be removed, and change nothing
#   --yes               do not ask
#   --help
#
# Files that were there before come back. Data stay unless --purge-data is given.
# Exit code: 0 done or nothing to do, 1 something could not be removed (run it again), 2 wrong
# usage, 3 it cannot begin.
# DESTDIR, when set, is where files were put; no unit is stopped then.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
umask 022
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=$(cd "$(dirname "$0")" && pwd -P) || exit 2
for part in core/common core/https core/manifest transaction/payload transaction/host-diff coordination/rollout-order coordination/drain transaction/generations transaction/ready transaction/files coordination/leave packages/packages packages/dpkg packages/rpm; do
    # shellcheck disable=SC1090 # the files beside this one
    . "$here/lib/$part.sh" || exit 2
done

# How to talk to the container runtime, where the node has one.
# shellcheck disable=SC1091
[ ! -f "$here/lib/runtime.sh" ] || . "$here/lib/runtime.sh"

main() {
    parse_options "$@"
    [ -d "$store" ] || { say "nothing to do: $store is not there, so bundler installed nothing"; exit 0; }
    check_start
    list_recorded_files | awk '{ print $2 }' | sort -ru >"$work/files"
    [ "$leaving" = no ] || check_leave
    if [ "$dry_run" = yes ]; then print_plan; exit 0; fi
    confirm
    take_lock
    [ "$leaving" = no ] || leave_cluster
    if ! is_staged; then stop_units; fi
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
    fi
    remove_packages
    remove_directories
    [ -z "$failed" ] || die 1 "could not remove:$failed"
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
            --help | -h) print_help "$here/uninstall.sh"; exit 0 ;;
            *) usage_error "unknown option $option" ;;
        esac
    done
}

check_start() {
    is_staged || [ "$(id -u)" -eq 0 ] || die 3 "run it as root"
    ! is_locked || die 3 "another install.sh or uninstall.sh is running (process $(lock_owner))"
    make_work_dir
    load_node
    installed=$(sed -n "s/^NODE='\(.*\)'$/\1/p" "$prefix/opt/k8s/bundle/node.env" 2>/dev/null)
    [ -z "$installed" ] || [ "$installed" = "$NODE" ] || die 3 "the host carries $installed, not $NODE: run /opt/k8s/bundle/uninstall.sh"
}

print_plan() {
    [ "$leaving" = no ] || print_leave
    for unit in $UNITS; do say "stop     $unit"; done
    sed 's/^/remove   /' "$work/files"
    for path in $RUNTIME_PATHS; do [ ! -e "$prefix$path" ] || say "remove   $path"; done
    for path in $DATA_PATHS; do
        [ ! -e "$prefix$path" ] || if [ "$purge" = yes ]; then say "purge    $path"; else say "keep     $path"; fi
    done
    (cd "$store/replaced" 2>/dev/null && find . ! -type d) | sed 's/^\./restore  /'
    installed_packages | sed "s/^/$(printf '%-8s' $packages) package /"
    sed -n 's/^device /swap on  /p; s/^unit /unmask   /p' "$store/swap" 2>/dev/null
    say "Dry run: nothing was changed."
}

confirm() {
    [ "$sure" = no ] && [ -t 0 ] || return 0
    data=''
    [ "$purge" = no ] || data=" and its data ($DATA_PATHS)"
    printf 'Remove %s of the cluster %s from this host%s? [y/N] ' "$NODE" "$CLUSTER" "$data"
    read -r answer
    case $answer in y | Y | yes) ;; *) die 3 "not confirmed: nothing was changed" ;; esac
}

# In reverse order; before the runtime goes, the pods.
stop_units() {
    backwards=''
    for unit in $BOOT_UNITS $UNITS; do backwards="$unit $backwards"; done
    for unit in $backwards; do
        [ "$unit" != "${runtime_unit:-}" ] || remove_pods
        systemctl -q disable --now "$unit" 2>/dev/null
        [ "$unit" != kube-proxy.service ] || kube-proxy --cleanup >/dev/null 2>&1
        note "stopped $unit"
    done
    [ -z "${runtime_unit:-}" ] || remove_leftovers
    for link in cni0 kube-ipvs0 flannel.1; do ip link delete "$link" 2>/dev/null; done
    case " $UNITS " in *' flannel.service '*) remove_flannel_rules ;; esac
}

# flannel's chains and routes, and the rules without chains of its own that older versions make.
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
    if [ "$purge" = yes ]; then paths="$paths $DATA_PATHS"; else
        for path in $DATA_PATHS; do [ ! -e "$prefix$path" ] || kept="$kept; $path is kept (--purge-data removes it)"; done
    fi
    for path in $paths; do
        is_staged || awk -v path="$path" '$2 == path || index($2, path "/") == 1 { print $2 }' "$live/proc/self/mounts" | sort -r |
            while read -r mount; do umount -l "$mount"; done
        case $path in /?*/?*) rm -rf "$prefix$path" || failed="$failed $path" ;; esac
    done
}

restore_sysctls() {
    [ -f "$store/sysctls" ] || return 0
    while IFS='=' read -r key value; do
        printf '%s\n' "$value" 2>/dev/null >"$live/proc/sys/$(printf '%s' "$key" | tr . /)"
    done <"$store/sysctls"
}

# Units first: they know priorities and options. Without a device, swap was off already.
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
            swapon "$device" || warn "swap on $device could not be turned on again"
    done <"$work/swaps"
}

reload_network_manager() {
    grep -q '^/etc/NetworkManager/' "$work/files" && systemctl -q is-active NetworkManager.service 2>/dev/null || return 0
    systemctl reload NetworkManager.service
}

# Of the packages that install.sh brought, those that are there.
installed_packages() {
    ! is_staged && [ -f "$store/packages" ] || return 0
    # the installed bundle may be one that carries none any more
    [ -n "$PACKAGES_MANAGER" ] || { command -v dpkg >/dev/null 2>&1 && PACKAGES_MANAGER=dpkg; } || PACKAGES_MANAGER=rpm
    packager keep_installed <"$store/packages"
}

# What others need stays.
remove_packages() {
    installed_packages >"$work/packages"
    if [ ! -s "$work/packages" ]; then rm -f "$store/packages"; return; fi
    if [ "$packages" = keep ]; then
        kept="$kept; $(count_lines <"$work/packages") packages that it installed are kept (listed in $store/packages; --remove-packages removes them)"
        return
    fi
    how=keep
    [ "$purge" = no ] || how=purge
    packager remove "$work/packages" "$how" >"$work/packages.log" 2>&1
    remove_code=$?
    note "removed packages: $(tr '\n' ' ' <"$work/packages")"
    installed_packages >"$work/packages.left"
    if [ ! -s "$work/packages.left" ]; then rm -f "$store/packages"; return; fi
    kept="$kept; packages that others need, or that $PACKAGES_MANAGER could not remove, are kept: $(tr '\n' ' ' <"$work/packages.left")"
    grep -q 'dependency problems\|depends on\|is needed by' "$work/packages.log" || [ "$remove_code" -eq 0 ] || { tail -n 5 "$work/packages.log" >&2; failed="$failed packages"; }
}

# Only directories that install.sh made, and only when nothing is left in them.
remove_directories() {
    sort -ru "$store/dirs" 2>/dev/null | while read -r path; do rmdir "$prefix$path" 2>/dev/null; done
}

remove_store() {
    lock_taken=no
    [ ! -d "$store/modified" ] || kept="$kept; files changed by hand are kept in $store/modified"
    wipe_secrets "$store/generations"
    find "$store/" -mindepth 1 -maxdepth 1 ! -name modified ! -name packages -exec rm -rf {} +
    rmdir "$store" 2>/dev/null || true
}

main "$@"
