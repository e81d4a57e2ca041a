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
    list_recorded_transitions >"$work/transitions"
    faults=''
    [ -z "$directories" ] || faults="its policy has no programs in$directories"
    [ ! -s "$work/transitions" ] ||
        faults="${faults:+$faults; }it records as denied that programs stay in the domain of the unit that starts them"
    [ -n "$faults" ] || return 0
    add_advice selinux "SELinux is enforcing: $faults" "$(
        [ -z "$directories" ] || has_command_soon semanage ||
            echo "dnf install policycoreutils-python-utils     # Debian: apt-get install"
        for directory in $directories; do echo "semanage fcontext -a -t bin_t '$directory(/.*)?'"; done
        for directory in $directories; do
            # install.sh labels what it makes
            [ ! -d "$prefix$directory" ] || echo "restorecon -RF $directory"
        done
        [ ! -s "$work/transitions" ] || {
            rule='(dontaudit %s %s (process2 (nnp_transition)))\n'
            printf '%s\n' "printf '$rule' $(paste -sd ' ' "$work/transitions") >/root/kubernetes.cil"
            echo "semodule -i /root/kubernetes.cil"
        }
    )"
}

# list_selinux_paths: what units start, and the probes of verify.sh; where a package is yet to bring it, both places.
list_selinux_paths() {
    for program in nginx ip iptables ip6tables ipset ipvsadm conntrack modprobe mount ping curl; do
        readlink -f "$(command -v "$program")" 2>/dev/null || printf '%s\n' "/usr/sbin/$program" "/usr/bin/$program"
    done
}

# list_recorded_transitions: "DOMAIN OTHER" of programs that would go from a unit's domain to another one. They cannot,
# because units have NoNewPrivileges, and a policy may write a record each time.
list_recorded_transitions() {
    classes=$live/sys/fs/selinux/class
    [ -f "$classes/process2/perms/nnp_transition" ] || return 0
    bit=$(($(cat "$classes/process2/perms/nnp_transition") - 1))
    process=$(cat "$classes/process/index")
    first=$(tr -d '\000\n' <"$live/proc/1/attr/current")
    unit=$(ask_policy create "$first $(matchpathcon -n /opt/k8s/bin/kubelet) $process") || return 0
    for path in $(list_selinux_paths); do
        other=$(ask_policy create "$unit $(matchpathcon -n "$path") $process") || continue
        [ "$other" != "$unit" ] || continue
        # shellcheck disable=SC2046 # allowed, decided, audited if allowed, audited if denied, …
        set -- $(ask_policy access "$unit $other $(cat "$classes/process2/index")")
        if [ $# -lt 4 ] || [ $((0x$1 >> bit & 1)) = 1 ] || [ $((0x$4 >> bit & 1)) = 0 ]; then continue; fi
        printf '%s %s\n' "$(echo "$unit" | cut -d: -f3)" "$(echo "$other" | cut -d: -f3)"
    done | sort -u
}

# ask_policy FILE QUESTION: the kernel's answer, out of the policy that is loaded.
ask_policy() {
    {
        printf '%s' "$2" >&3 && tr -d '\000' <&3
    } 3<>"$live/sys/fs/selinux/$1" 2>/dev/null
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

# What NetworkManager took while the file was missing it gives back only when it restarts, not by a reload and not by
# `nmcli device set`. Of a bridge that it took it has detached the pods. What is "(externally)" connected is not taken.
release_interfaces() {
    nmcli -t -f DEVICE,STATE device >"$work/interfaces" 2>/dev/null || {
        warn "nmcli cannot tell which interfaces NetworkManager manages"
        printf '    fix: systemctl restart NetworkManager     # it then leaves the interfaces of pods alone\n' >&2
        return 0
    }
    taken=''
    while IFS=: read -r interface state; do
        case $state in unmanaged | *externally*) continue ;; esac
        ! is_left_alone "$interface" || taken="$taken $interface"
    done <"$work/interfaces"
    [ -n "$taken" ] || return 0
    systemctl restart NetworkManager.service || warn "systemctl restart NetworkManager.service failed"
    warn "NetworkManager had taken$taken: pods that ran on this host may be cut off"
    printf '    fix: kubectl delete pods --all-namespaces --field-selector spec.nodeName=%s\n' "$NODE" >&2
}

# is_left_alone INTERFACE: the bundle's file says that NetworkManager must not manage it.
is_left_alone() {
    left_alone=$prefix/etc/NetworkManager/conf.d/90-bundler-kubernetes.conf
    sed -n 's/^unmanaged-devices+=//p' "$left_alone" | tr ';' '\n' |
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
