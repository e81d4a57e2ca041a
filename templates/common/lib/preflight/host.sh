# Time synchronization, SELinux, NetworkManager and the resolver of the host.
# needs: live prefix store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

is_container() { systemd-detect-virt -q -c 2>/dev/null; }
is_active() { systemctl -q is-active "$1" 2>/dev/null; }

# A container has its machine's clock.
check_time_sync() {
    if is_container; then return 0; fi
    for service in systemd-timesyncd chronyd chrony ntpd ntp ntpsec openntpd ptp4l vmtoolsd; do
        is_active "$service.service" || continue
        case $(timedatectl show -p NTPSynchronized 2>/dev/null || timedatectl status 2>/dev/null) in
            *=no* | *'ynchronized: no'*) ;;
            *) return 0 ;;
        esac
        add_advice time-sync "$service runs, and the clock is not synchronized yet" \
            "check whether $service reaches its time servers"
        return 0
    done
    add_advice time-sync "no service synchronizes the clock, and certificates and etcd need that" \
        "set your time servers in /etc/chrony.conf or /etc/systemd/timesyncd.conf
systemctl enable --now chronyd          # or systemd-timesyncd"
}

# Docker loads a profile for containers wherever the kernel has AppArmor on.
check_apparmor() {
    has_word "$UNITS" docker.service || return 0
    [ "$(cat "$live/sys/module/apparmor/parameters/enabled" 2>/dev/null)" = Y ] &&
        [ -d "$live/sys/kernel/security/apparmor" ] || return 0
    has_command_soon apparmor_parser || add_failure apparmor \
        "the kernel has AppArmor on, and without apparmor_parser Docker runs no container" \
        "apt-get install apparmor; or add it to packages in cluster.yaml; or boot with apparmor=0"
}

check_seccomp() {
    has_word "$UNITS" kubelet.service || return 0
    grep -q '^Seccomp:' "$live/proc/self/status" 2>/dev/null || add_advice seccomp \
        "the kernel has no seccomp: pods that ask for the profile RuntimeDefault do not start, others run without it" \
        "boot a kernel with CONFIG_SECCOMP_FILTER"
}

has_selinux() { [ -f "$live/sys/fs/selinux/enforce" ]; }

list_program_directories() {
    awk '$2 == "0755" { sub(/\/[^\/]*$/, "", $5); print $5 }' "$work/entries" | sort -u
}

check_selinux() {
    has_selinux && [ "$(cat "$live/sys/fs/selinux/enforce")" = 1 ] || return 1
    directories=''
    for directory in $(list_program_directories); do
        case $(matchpathcon -n "$directory/x" 2>/dev/null) in
            *:bin_t:*) ;;
            *) directories="$directories $directory" ;;
        esac
    done
    [ -n "$directories" ] || return 0
    add_advice selinux "SELinux is enforcing, and its policy has no programs in$directories" "$(
        has_command_soon semanage || echo "dnf install policycoreutils-python-utils     # Debian: apt-get install"
        for directory in $directories; do echo "semanage fcontext -a -t bin_t '$directory(/.*)?'"; done
        for directory in $directories; do
            # install.sh labels what it makes
            [ ! -d "$prefix$directory" ] || echo "restorecon -RF $directory"
        done
    )"
}

# Apply the host's policy: a copied file has the context of its directory.
label_files() {
    has_selinux && command -v restorecon >/dev/null 2>&1 || return 0
    {
        awk '{ print $5 }' "$work/entries"
        cat "$store/dirs" 2>/dev/null
    } | sed "s|^|$prefix|" | xargs -r restorecon -F ||
        warn "restorecon could not label every file"
}

# NetworkManager reads its configuration when it is reloaded. restart-pending/ remembers that after a kill.
reload_network_manager() {
    is_pending NetworkManager.service || return 0
    if is_active NetworkManager.service; then
        systemctl reload NetworkManager.service || warn "systemctl reload NetworkManager.service failed"
        release_interfaces
    fi
    rm -f "$store/restart-pending/NetworkManager.service"
}

# A reload alone leaves what NetworkManager took while the file was missing. Where it took a bridge, it detached its pods.
release_interfaces() {
    nmcli -t -f DEVICE,STATE device >"$work/interfaces" 2>/dev/null || {
        warn_of_interfaces "nmcli cannot tell which interfaces NetworkManager manages"
        return 0
    }
    while IFS=: read -r interface state; do
        if [ "$state" = unmanaged ] || ! is_left_alone "$interface"; then continue; fi
        nmcli device set "$interface" managed no </dev/null ||
            warn_of_interfaces "nmcli device set $interface managed no failed"
        case $state in *externally*) continue ;; esac
        warn "NetworkManager had taken $interface: pods that ran on this host may be cut off"
        printf '    fix: kubectl delete pods --all-namespaces --field-selector spec.nodeName=%s\n' "$NODE" >&2
    done <"$work/interfaces"
}

warn_of_interfaces() {
    warn "$1"
    printf '    fix: systemctl restart NetworkManager     # it then leaves the interfaces of pods alone\n' >&2
}

# is_left_alone INTERFACE: the bundle's file says that NetworkManager must not manage it.
is_left_alone() {
    sed -n 's/^unmanaged-devices+=//p' "$prefix/etc/NetworkManager/conf.d/90-bundler-kubernetes.conf" | tr ';' '\n' |
        while read -r pattern; do
            # shellcheck disable=SC2254 # a pattern
            case interface-name:$1 in $pattern) echo left-alone ;; esac
        done | grep -q .
}

# Pods with the node's resolver, above all CoreDNS, would send queries to their own loopback address. Without
# extra.kubelet.config.resolvConf the file is chosen on the host (lib/core/resolver.sh).
check_resolver() {
    [ -n "$RESOLV_CONF" ] || return 0
    resolver=$RESOLV_CONF
    [ "$resolver" != /run/kubelet-join/resolv.conf ] || resolver=$(choose_resolver "$live")
    fix="in cluster.yaml, extra: {kubelet: {config: {resolvConf: a file with your site's name servers}}}; build again"
    if [ ! -f "$live$resolver" ]; then
        add_failure resolver "$resolver is not on this host, and without it no pod starts" "make the file, or $fix"
    elif is_loopback_only "$live$resolver"; then
        add_advice resolver \
            "$resolver has only this host's loopback address, which is the pod's own inside a pod" "$fix"
    fi
}
