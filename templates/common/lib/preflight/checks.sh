# The checks before anything is changed. All failures are told at once, each with its fix.
# What only a person can decide is advice: a warning with the commands to run, and no failure.
# needs: LARGE dry_run generations here live prefix skipped work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# name|may be overruled, or advice|what must hold
print_preflight() {
    cat <<'TABLE'
manifest|no|every file of the bundle is as it was built
root|no|it runs as root
systemd|no|systemd is running
host|no|this host has the bundle's node name or address
other-bundle|no|the host carries no bundle of another node or cluster
lock|no|no other install.sh or uninstall.sh is running
address|yes|the node's address is on one of the host's interfaces
arch|no|the processor is the one that the programs are for
cgroups|yes|the kernel has the cgroup controllers that containers need
packages|yes|the bundle's packages are for this host, and dpkg or rpm can install those that are missing (overruled, none is installed)
commands|yes|the programs that the units call are installed, or in the bundle's packages
nginx-stream|yes|nginx has its stream module
space|yes|there is room for the files and images
ports|yes|nobody else listens on the units' ports
upgrade|yes|Kubernetes goes up by one minor at most, and no minor is taken back
etcd-upgrade|yes|so does etcd
turn|yes|others can do without what is restarted here: etcd's quorum, an API server, the versions that go together
drain|yes|other nodes can take this node's pods, where what runs them is replaced (overruled, they stay)
units|yes|no unit of the same name runs that bundler did not install
sysctls|yes|the kernel settings that pods' packets need hold, or can be set
swap|yes|swap is off, or can be turned off
clock|yes|the clock is inside the certificates' validity
time-sync|advice|a service keeps the clock right
firewall|advice|the host's firewall lets in what the node's units and pods need
selinux|advice|SELinux, when it is enforcing, knows where the programs are
resolver|advice|the resolver that pods are given is not the host's loopback
TABLE
}

list_preflight() {
    print_preflight | while IFS='|' read -r row_name row_skip row_text; do
        case $row_skip in yes) row_text="$row_text (may be overruled)" ;; advice) row_text="$row_text (advice)" ;; esac
        printf '%-14s %s\n' "$row_name" "$row_text"
    done
}

may_skip() { [ -n "$1" ] && print_preflight | grep -q -e "^$1|yes|" -e "^$1|advice|"; }
is_skipped() { case $skipped in *" $1 "*) ;; *) return 1 ;; esac }

run_preflight() {
    : >"$work/failures"
    : >"$work/advice"
    check_space
    if ! is_staged; then
        for preflight in root systemd host other_bundle lock arch cgroups packages commands nginx_stream ports units sysctls swap clock \
            upgrade cut_short turn drain time_sync firewall selinux resolver; do
            "check_$preflight"
        done
    fi
    [ -s "$work/failures" ] || return 0
    if [ "$dry_run" = yes ] && ! grep -q -e '^  root:' -e '^  systemd:' -e '^  host:' -e '^  other-bundle:' "$work/failures"; then return 0; fi
    print_advice
    refuse_host
}

refuse_host() {
    {
        echo "install.sh: this host is not ready for $CLUSTER/$NODE:"
        cat "$work/failures"
        echo "Nothing was changed."
    } >&2
    exit 3
}

# add_failure NAME WHAT FIX
add_failure() {
    if is_skipped "$1"; then
        warn "$1: $2 (overruled)"
        return
    fi
    printf '  %s: %s\n    fix: %s\n' "$1" "$2" "$3" >>"$work/failures"
}

# add_advice NAME WHAT FIX: of one line or more
add_advice() {
    if is_skipped "$1"; then return; fi
    printf 'warning: %s: %s\n' "$1" "$2" >>"$work/advice"
    printf '%s\n' "$3" | sed '1s/^/    fix: /; 1!s/^/         /' >>"$work/advice"
}

print_advice() { cat "$work/advice" >&2; }

check_root() {
    [ "$(id -u)" -eq 0 ] || add_failure root "it runs as $(id -un)" "run it as root"
}

check_systemd() {
    if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then return; fi
    add_failure systemd "systemd does not run here" "install on a host whose init is systemd"
}

print_host_name() { cat /proc/sys/kernel/hostname; }
has_address() { list_addresses | grep -qxF "$1"; }
# iproute2 may be among the packages that are still to be installed.
list_addresses() {
    if command -v ip >/dev/null 2>&1; then
        ip -4 -o address show 2>/dev/null | awk '{ sub(/\/.*/, "", $4); print $4 }'
    else
        awk '/32 host LOCAL/ { print address } { address = $NF }' "$live/proc/net/fib_trie" 2>/dev/null
    fi
}

check_host() {
    name=$(print_host_name)
    if has_address "$ADDRESS"; then return; fi
    if [ "${name%%.*}" = "$NODE" ] || [ "$name" = "$NODE" ]; then
        add_failure address "no interface has the node's address $ADDRESS" "configure $ADDRESS, or correct cluster.yaml and build again"
    else
        add_failure host "this host is $name, the bundle is for $NODE ($ADDRESS)" "take the tarball that is for this host"
    fi
}

check_other_bundle() {
    other=$(sed -n "s/^CLUSTER='\(.*\)'$/\1/p; s/^NODE='\(.*\)'$/\1/p" "$prefix/opt/k8s/bundle/node.env" 2>/dev/null | tr '\n' '/')
    case $other in
        '' | "$CLUSTER/$NODE/") ;;
        *) add_failure other-bundle "the host carries the bundle of ${other%/}" "run /opt/k8s/bundle/uninstall.sh first" ;;
    esac
}

check_lock() {
    ! is_locked || is_own_lock || add_failure lock "another install.sh or uninstall.sh is running (process $(lock_owner))" "wait until it has ended"
}

check_arch() {
    case $(uname -m) in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; *) machine=$(uname -m) ;; esac
    [ "$machine" = "$ARCH" ] || add_failure arch "the host is $machine, the programs are for $ARCH" "set the node's arch in cluster.yaml and build again"
}

# cgroup v1 lists its controllers in /proc/cgroups; v2 has those of devices and freezer built in.
check_cgroups() {
    missing=''
    for controller in $CGROUPS; do
        if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
            case $controller in cpuacct | devices | freezer) continue ;; esac
            grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || missing="$missing $controller"
        else
            awk -v name="$controller" '$1 == name && $4 == 1 { found = 1 } END { exit !found }' /proc/cgroups || missing="$missing $controller"
        fi
    done
    [ -z "$missing" ] || add_failure cgroups "the kernel has no cgroup controller$missing" "boot with cgroup_enable=... on the kernel's command line"
}

check_commands() {
    packages='' missing=''
    for pair in $COMMANDS; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || brings "${pair%%:*}" || missing="$missing ${pair%%:*}" packages="$packages ${pair#*:}"
    done
    [ -z "$missing" ] || add_failure commands "missing:$missing" "install (Debian's names):$packages"
    for pair in $COMMANDS_WANTED; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || brings "${pair%%:*}" || warn "there is no ${pair%%:*} (package ${pair#*:}): verify.sh's probes and kubectl port-forward want it"
    done
}

check_nginx_stream() {
    case " $UNITS " in *" kube-nginx.service "*) ;; *) return ;; esac
    command -v nginx >/dev/null 2>&1 && ! brings nginx-stream || return
    try_nginx_stream || add_failure nginx-stream "nginx cannot proxy TCP: $(printf '%s\n' "$answer" | sed -n '/emerg/{p;q;}')" "install nginx's stream module (Debian: libnginx-mod-stream)"
}

try_nginx_stream() {
    {
        sed -n '/^include .*modules/p' "$here/rootfs/etc/kube-nginx/nginx.conf"
        echo "pid $work/nginx.pid; error_log stderr; events {} stream {}"
    } >"$work/nginx.conf"
    answer=$(nginx -t -c "$work/nginx.conf" 2>&1)
}

# New files are written before the old ones go, so their whole size is needed, and that of the generation. Large
# files need no space of their own where the generation, or another one, has them on the same file system.
check_space() {
    list_needed_space >"$work/needs"
    set --
    while read -r _ path _; do set -- "$@" "$(nearest_directory "$prefix$path")/"; done <"$work/needs"
    [ $# -gt 0 ] || return 0
    df -Pk "$@" >"$work/df"
    awk -f "$here/lib/preflight/sum-space.awk" "$work/needs" "$work/df" >"$work/space" ||
        add_failure space "df does not report the free space of every directory" "find out why: df -Pk $*"
    while read -r mount free need; do
        [ "$free" -ge "$need" ] ||
            add_failure space "$mount has $((free / 1024)) MiB free, $((need / 1024)) MiB are needed" "free some space there"
    done <"$work/space"
}

# "kilobytes path [1|kept]", a line each: see sum-space.awk.
list_needed_space() {
    large=$LARGE
    if is_staged; then large=0; else sum_generation_size; fi
    awk -v large="$large" '
        { path = $6; sub(/\/[^\/]*$/, "", path); sum[path " " (large && $4 >= large)] += $4 }
        END { for (path in sum) printf "%d %s\n", sum[path] / 1024 + 1, path }' "$work/changes"
    [ ! -s "$work/packages" ] || awk '{ sum += $5 } END { if (sum) printf "%d /usr\n", sum }' "$work/packages"
    is_staged || list_missing_images | while IFS='|' read -r name _; do
        awk -F '\t' -v name="$name" -v path="${DATA_PATHS##* }" '$1 == name { print $4, path }' "$here/lib/images.tsv"
    done
}

# "kilobytes path kept" of the generation that this bundle becomes, without the files that it shares with others.
sum_generation_size() {
    for number in $(list_numbers); do
        awk -v large="$LARGE" '!/^#/ && $3 >= large { print $1 }' "$generations/$number/MANIFEST"
        [ "$(identity_of "$generations/$number")" != "$(identity_of "$here")" ] ||
            awk '!/^#/ { print $1 }' "$here/MANIFEST"
    done >"$work/shared"
    awk -v path=/var/lib/bundler 'FILENAME == ARGV[1] { shared[$1] = 1; next }
        !/^#/ && !($1 in shared) && $4 !~ /^packages\// { sum += $3 }
        END { printf "%d %s kept\n", sum / 1024, path }' "$work/shared" "$here/MANIFEST"
}

# The path, or the closest existing directory above it; DESTDIR may not exist yet.
nearest_directory() {
    place=$1
    while [ ! -d "$place" ]; do
        case $place in */*) place=${place%/*} ;; *) place=. ;; esac
        place=${place:-/}
    done
    printf '%s\n' "$place"
}

# Listening sockets out of /proc: "port inode" a line.
list_listening_ports() { awk '$4 == "0A" { n = split($2, part, ":"); print part[n], $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }

check_ports() {
    list_listening_ports >"$work/listening"
    for pair in $PORTS; do
        inode=$(awk -v port="$(printf '%04X' "${pair%%:*}")" '$1 == port { print $2; exit }' "$work/listening")
        [ -n "$inode" ] || continue
        systemctl -q is-active "${pair#*:}" 2>/dev/null && continue
        process=$(owner_of_socket "$inode")
        grep -q "/${pair#*:}" "/proc/${process:-0}/cgroup" 2>/dev/null && continue
        add_failure ports "port ${pair%%:*} (for ${pair#*:}) is taken${process:+ by $(cat "/proc/$process/comm") (process $process)}" \
            "stop that program, or move it to another port"
    done
}

# The process that has a socket open, by the socket's inode.
owner_of_socket() {
    for descriptor in /proc/[0-9]*/fd/*; do
        [ "$(readlink "$descriptor" 2>/dev/null)" = "socket:[$1]" ] || continue
        descriptor=${descriptor#/proc/}
        printf '%s\n' "${descriptor%%/*}"
        return
    done
}

is_ours() { list_recorded_files | grep -q " /etc/systemd/system/$1\$"; }

check_units() {
    strangers=''
    for unit in $UNITS; do
        is_ours "$unit" || ! systemctl -q is-active "$unit" 2>/dev/null || strangers="$strangers $unit"
    done
    [ -z "$strangers" ] || add_failure units "running, and not installed by bundler:$strangers" "stop and remove what they belong to"
}

state_field() { sed -n "s/^$1='\([0-9]*\)'\$/\1/p" "$here/state.env"; }

check_clock() {
    at=$(now) begin=$(state_field NOT_BEFORE) end=$(state_field NOT_AFTER)
    if [ "$at" -lt "$begin" ]; then
        add_failure clock "the clock says $(date -u), $(((begin - at + 59) / 60)) minutes before the certificates begin" "set the clock (chronyc makestep, or date -s)"
    elif [ "$at" -ge "$end" ]; then
        add_failure clock "the clock says $(date -u), after the end of a certificate" "correct the clock, or renew the certificates and build again"
    fi
}
