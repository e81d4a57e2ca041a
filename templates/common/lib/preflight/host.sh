# What else a host may have that bears on a node: time, SELinux, NetworkManager, its resolver.
# needs: live prefix store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

is_container() { systemd-detect-virt -q -c 2>/dev/null; }
is_active() { systemctl -q is-active "$1" 2>/dev/null; }

# A container has the clock of its machine.
check_time_sync() {
    if is_container; then return; fi
    for service in systemd-timesyncd chronyd chrony ntpd ntp ntpsec openntpd ptp4l vmtoolsd; do
        is_active "$service.service" || continue
        case $(timedatectl show -p NTPSynchronized 2>/dev/null || timedatectl status 2>/dev/null) in
            *=no* | *'ynchronized: no'*) ;;
            *) return ;;
        esac
        add_advice time-sync "$service runs, and the clock is not synchronized yet" "see whether $service reaches its time servers"
        return
    done
    add_advice time-sync "nothing keeps the clock right, and certificates and etcd need that" \
        "name your time servers in /etc/chrony.conf or /etc/systemd/timesyncd.conf
systemctl enable --now chronyd          # or systemd-timesyncd"
}

has_selinux() { [ -f "$live/sys/fs/selinux/enforce" ]; }

# Directories of the bundle with programs in them.
list_program_directories() { awk '$2 == "0755" { sub(/\/[^\/]*$/, "", $5); print $5 }' "$work/entries" | sort -u; }

check_selinux() {
    has_selinux && [ "$(cat "$live/sys/fs/selinux/enforce")" = 1 ] || return
    directories=''
    for directory in $(list_program_directories); do
        case $(matchpathcon -n "$directory/x" 2>/dev/null) in *:bin_t:*) ;; *) directories="$directories $directory" ;; esac
    done
    [ -z "$directories" ] || add_advice selinux "SELinux is enforcing, and its policy has no programs in$directories" "$(
        for directory in $directories; do echo "semanage fcontext -a -t bin_t '$directory(/.*)?'"; done
        echo "restorecon -RF$directories     # install.sh does this too"
    )"
}

# As the host's policy has it: cp gives new files the context of their directory.
label_files() {
    has_selinux && command -v restorecon >/dev/null 2>&1 || return 0
    {
        awk '{ print $5 }' "$work/entries"
        cat "$store/dirs" 2>/dev/null
    } | sed "s|^|$prefix|" | xargs -r restorecon -F ||
        warn "restorecon could not label every file"
}

# NetworkManager reads what it is to leave alone when it is told to; the mark outlives a kill.
reload_network_manager() {
    is_pending NetworkManager.service || return 0
    ! is_active NetworkManager.service || systemctl reload NetworkManager.service || warn "systemctl reload NetworkManager.service failed"
    rm -f "$store/restart-pending/NetworkManager.service"
}

# Pods with the node's resolver, CoreDNS above all, would ask themselves.
check_resolver() {
    [ -n "$RESOLV_CONF" ] && is_loopback_only "$RESOLV_CONF" || return
    better=/run/systemd/resolve/resolv.conf
    [ -f "$live$better" ] && ! is_loopback_only "$better" || better="a file with your site's name servers"
    add_advice resolver "$RESOLV_CONF names this host's loopback only, which is another one inside of pods" \
        "in cluster.yaml, extra: {kubelet: {config: {resolvConf: $better}}}; then build again"
}

is_loopback_only() {
    awk '$1 == "nameserver" { n++; own += $2 ~ /^(127\.|::1$)/ } END { exit !(n && n == own) }' "$live$1" 2>/dev/null
}
