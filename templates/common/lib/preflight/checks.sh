# Preflight: check the host before anything is changed. All failures are printed at once, each with its fix.
# What only a person can decide is advice: a warning with the commands to run, which stops nothing.
# needs: LARGE dry_run generations here live manifest new_state prefix skipped store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# name|yes: may be skipped; advice: is only printed|what must hold
print_preflight() {
    cat <<'TABLE'
manifest|no|every file of the bundle is as it was built
root|no|it runs as root
systemd|no|systemd is running
targets|no|only root can change the directories that files are installed to
site-files|yes|the owners and units that `files` of cluster.yaml name exist, and no directory is in the place of a file
users|yes|the users of units are free or as planned, can be created, and can enter the directories of their files
host|no|this host has the bundle's node name or address
other-bundle|no|no bundle of another node or cluster is installed on this host
state|no|the installed bundle was made with the same state directory on the builder (see --new-state)
old-data|yes|data of etcd that is on this host already are of the cluster of this bundle
older-state|advice|the bundle's certificates are not older than the installed ones
lock|no|no other install.sh or uninstall.sh is running
address|yes|the node's address is on one of the host's interfaces
interface|yes|this host has the interface for the endpoint's address
requirements|yes|the host has the cgroup version, the kernel and the systemd that the bundle's versions need
arch|no|the host has the processor architecture of the bundle's programs
cgroups|yes|the kernel has the cgroup controllers that containers need
programs|yes|the bundle's programs run on this host, from where they are installed
packages|yes|the bundle's packages are for this host, and dpkg or rpm can install them (skipped: none is installed)
commands|yes|the programs that the units call are installed, or in the bundle's packages
nginx-stream|yes|nginx has its stream module
space|yes|there is enough free space for the files and images
ports|yes|no other program listens on the units' ports
upgrade|yes|Kubernetes goes up by one minor at most, and never down
etcd-upgrade|yes|etcd goes up by one minor at most, and never down
etcd-alarm|advice|no alarm of etcd is on: with NOSPACE it accepts no write
turn|yes|the cluster can do without what is restarted here: etcd's quorum, an API server, compatible versions
drain|yes|other nodes can take this node's pods while it is upgraded (skipped: the pods stay)
units|yes|no unit of the same name is running that bundler did not install
sysctls|yes|the kernel settings that pods and the kubelet need are set, or can be set
overrides|yes|no file of the host wins over the bundle's: sysctl, drop-ins of units, CNI, modules
swap|yes|swap is off, or can be turned off
clock|yes|the clock is inside the certificates' validity
bootstrap-token|yes|the bootstrap token of a node that has not joined has not ended
time-sync|advice|a service synchronizes the clock
firewall|advice|the host's firewall accepts what the node's units and pods need
apparmor|yes|AppArmor, when the kernel has it on, has the program without which Docker runs no container
seccomp|advice|the kernel filters system calls (seccomp), which the default profile of containers needs
selinux|advice|SELinux, when it is enforcing, has a policy for the directories of programs
resolver|yes|the file of name servers that pods are given is here, and has not only the loopback address
TABLE
}

list_preflight() {
    print_preflight | while IFS='|' read -r row_name row_skip row_text; do
        case $row_skip in yes) row_text="$row_text (may be skipped)" ;; advice) row_text="$row_text (advice)" ;; esac
        printf '%-14s %s\n' "$row_name" "$row_text"
    done
}

may_skip() { [ -n "$1" ] && print_preflight | grep -q -e "^$1|yes|" -e "^$1|advice|"; }
is_skipped() { case $skipped in *" $1 "*) ;; *) return 1 ;; esac }

run_preflight() {
    : >"$work/failures"
    : >"$work/advice"
    check_space
    check_state
    check_older_state
    if ! is_staged; then
        for preflight in root systemd targets site_files users host interface other_bundle old_data lock arch \
            requirements cgroups packages programs commands nginx_stream apparmor ports units sysctls overrides swap \
            clock bootstrap_token upgrade etcd_alarm cut_short turn drain time_sync firewall seccomp selinux \
            resolver; do
            "check_$preflight"
        done
    fi
    [ -s "$work/failures" ] || return 0
    [ "$dry_run" = no ] || ! can_print_diff || return 0
    print_advice
    refuse_host
}

# A dry run prints the host diff in spite of failures, except of those that make it meaningless.
can_print_diff() {
    ! grep -q -e '^  root:' -e '^  systemd:' -e '^  host:' -e '^  other-bundle:' "$work/failures"
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
        warn "$1: $2 (skipped)"
        return 0
    fi
    printf '  %s: %s\n    fix: %s\n' "$1" "$2" "$3" >>"$work/failures"
}

# add_advice NAME WHAT FIX: a fix of one line or more.
add_advice() {
    if is_skipped "$1"; then return 0; fi
    printf 'warning: %s: %s\n' "$1" "$2" >>"$work/advice"
    printf '%s\n' "$3" | sed '1s/^/    fix: /; 1!s/^/         /' >>"$work/advice"
}

print_advice() { [ ! -s "$work/advice" ] || cat "$work/advice" >&2; }

check_root() {
    [ "$(id -u)" -eq 0 ] || add_failure root "it runs as $(id -un)" "run it as root"
}

# Owners and units may come with the packages: then this waits for them.
check_site_files() {
    [ -f "$here/lib/site-files.tsv" ] || return 0
    if [ -s "$work/packages" ]; then return 0; fi
    while IFS='	' read -r path owner restart reload; do
        case $path in '#'*) continue ;; esac
        [ ! -d "$prefix$path" ] || [ -L "$prefix$path" ] ||
            add_failure site-files "$path is a directory on this host" \
                "choose another path under \`files\`, or remove it"
        : >"$work/owner"
        [ "$(id -u)" -ne 0 ] || chown "$(number_owner "$owner")" "$work/owner" 2>/dev/null ||
            add_failure site-files "this host has no user or group $owner, which is to own $path" \
                "create it, or correct \`owner\` in cluster.yaml"
        for unit in $restart $reload; do
            case "$unit $UNITS " in '- '* | *" $unit "*) continue ;; esac
            ! is_carried_unit "$unit" || continue
            case $(systemctl show -p LoadState "$unit" 2>/dev/null) in
                *=not-found)
                    add_failure site-files "this host has no unit $unit, which is to restart for $path" \
                        "install its package, or correct \`restart\` and \`reload\` in cluster.yaml"
                    ;;
            esac
        done
    done <"$here/lib/site-files.tsv"
    ! grep -qs 'StreamDriver="gtls"' "$here/rootfs/etc/rsyslog.d/60-kubernetes-audit.conf" || has_rsyslog_driver gtls ||
        add_failure site-files "the rsyslog of this host has no gtls driver, which audit.syslog needs" \
            "install the package rsyslog-gnutls, or set another \`protocol\` in cluster.yaml"
}

# Where distributions have rsyslog's modules: /usr/lib64, /usr/lib, /usr/lib/x86_64-linux-gnu.
has_rsyslog_driver() {
    for module in "$prefix"/usr/lib*/rsyslog/"lmnsd_$1.so" "$prefix"/usr/lib/*/rsyslog/"lmnsd_$1.so"; do
        [ ! -f "$module" ] || return 0
    done
    return 1
}

check_site_files_again() {
    [ -s "$work/packages" ] || return 0
    : >"$work/packages"
    check_site_files
    [ ! -s "$work/failures" ] || {
        cat "$work/failures" >&2
        die 3 "nothing but the packages of the operating system was changed"
    }
}

check_systemd() {
    if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then return 0; fi
    add_failure systemd "systemd does not run here" "install on a host whose init is systemd"
}

# Another user who can rename /opt could replace what runs as root after the installation.
check_targets() {
    for target in "$prefix/opt/k8s/bundle" "$store"; do
        shared=$(find_shared "$(cd "$(nearest_directory "$target")" && pwd -P)" -prune)
        [ -z "$shared" ] || add_failure targets "others than root can change $shared, and so what runs in $target" \
            "chown 0 $shared; chmod go-w $shared"
    done
    [ -f "$here/lib/site-files.tsv" ] || return 0
    sed -n 's|^\(/.*\)/[^/]*	.*	.*	.*|\1|p' "$here/lib/site-files.tsv" | sort -u >"$work/site-directories"
    while read -r directory; do
        shared=$(find_shared "$(cd "$(nearest_directory "$prefix$directory")" && pwd -P)" -prune)
        [ -z "$shared" ] || add_failure targets "others than root can change $shared, and so the files in $directory" \
            "chown 0 $shared; chmod go-w $shared; or choose another path under \`files\`"
    done <"$work/site-directories"
}

print_host_name() { cat /proc/sys/kernel/hostname; }
has_address() { list_addresses | grep -qxF "$1"; }

# iproute2 may be one of the packages that are not installed yet.
list_addresses() {
    if command -v ip >/dev/null 2>&1; then
        ip -4 -o address show 2>/dev/null | awk '{ sub(/\/.*/, "", $4); print $4 }'
    else
        awk '/32 host LOCAL/ { print address } { address = $NF }' "$live/proc/net/fib_trie" 2>/dev/null
    fi
}

check_host() {
    name=$(print_host_name)
    if has_address "$ADDRESS"; then return 0; fi
    if [ "${name%%.*}" = "$NODE" ] || [ "$name" = "$NODE" ]; then
        add_failure address "no interface has the node's address $ADDRESS" \
            "configure $ADDRESS, or correct cluster.yaml and build again"
    else
        add_failure host "this host is $name, the bundle is for $NODE ($ADDRESS)" "use the tarball for this host"
    fi
}

# Without a name in cluster.yaml it is the interface that has the node's address (keepalived-start.sh).
check_interface() {
    has_word "$UNITS" kube-keepalived.service || return 0
    if [ -z "$VIP_INTERFACE" ]; then
        holders=$(ip -4 -o address show 2>/dev/null | awk -v own="$ADDRESS" '
            { sub(/\/.*/, "", $4) }
            $4 == own { print $2 }')
        [ "$holders" != lo ] || add_failure interface \
            "$ADDRESS is on lo only, and the endpoint's address needs an interface to other hosts" \
            "set interface of this node in cluster.yaml; build again"
    elif [ ! -e "$live/sys/class/net/$VIP_INTERFACE" ]; then
        add_failure interface "this host has no interface $VIP_INTERFACE for the endpoint's address" \
            "remove interface in cluster.yaml (then the one with $ADDRESS is used), or set this node's own; build again"
    fi
}

check_other_bundle() {
    installed_env=$prefix/opt/k8s/bundle/node.env
    [ -f "$installed_env" ] || return 0
    other=$(text_field "$installed_env" CLUSTER)/$(text_field "$installed_env" NODE)
    [ "$other" = / ] || [ "$other" = "$CLUSTER/$NODE" ] ||
        add_failure other-bundle "the bundle of $other is installed on this host" \
            "run /opt/k8s/bundle/uninstall.sh first"
}

# A bundle of another state has keys that the other hosts of this cluster do not trust. To a generation of its own the
# host may always go back.
check_state() {
    installed_state=$prefix/opt/k8s/bundle/state.env
    [ "$new_state" = no ] && ! is_generation && [ -f "$prefix/opt/k8s/bundle/node.env" ] || return 0
    state_id=$(text_field "$here/state.env" STATE_ID) installed_id=$(find_installed_state)
    if [ -z "$installed_id" ]; then
        echo "note: state: the installed bundle does not name its state; this host now has state $state_id" >&2
    elif [ "$installed_id" != "$state_id" ]; then
        add_failure state "the installed bundle was made with state $(shorten "$installed_id"), this one with state \
$(shorten "$state_id"): with the keys of another state this host cannot be in its cluster" \
            "restore the state on the builder (bundler state import FILE) and build again; \
if this host is to leave its cluster for another: --new-state"
    fi
}

# The id of the installed bundle's state. Bundles from before state.env had it name it on control planes only: it is the
# digest of this key.
find_installed_state() {
    installed_id=$(text_field "$installed_state" STATE_ID)
    key=$prefix/etc/kubernetes/pki/sa.pub
    if [ -n "$installed_id" ]; then
        printf '%s\n' "$installed_id"
    elif [ -f "$key" ]; then
        print_digest <"$key"
    fi
}

check_older_state() {
    ! is_generation || return 0
    installed_start=$(text_field "$prefix/opt/k8s/bundle/state.env" NOT_BEFORE)
    start=$(text_field "$here/state.env" NOT_BEFORE)
    [ "${installed_start:-0}" -gt "$start" ] || return 0
    add_advice older-state "the newest certificate here is $(((installed_start - start + 3599) / 3600)) hours newer \
than that of this bundle" "nothing, if an earlier build is wanted; otherwise the state on the builder was
restored from an older export: restore the newest one, and build again"
}

check_lock() {
    ! is_locked || is_own_lock || add_failure lock \
        "another install.sh or uninstall.sh is running (process $(lock_owner))" "wait until it has ended"
}

check_arch() {
    case $(uname -m) in x86_64) host_arch=amd64 ;; aarch64) host_arch=arm64 ;; *) host_arch=$(uname -m) ;; esac
    [ "$host_arch" = "$ARCH" ] || add_failure arch "the host is $host_arch, the programs are for $ARCH" \
        "set the node's arch in cluster.yaml and build again"
}

# cgroup v1 lists its controllers in /proc/cgroups; in v2 those of devices and freezer are built in.
check_cgroups() {
    missing=''
    v2=/sys/fs/cgroup/cgroup.controllers
    for controller in $CGROUPS; do
        if [ -f $v2 ]; then
            case $controller in cpuacct | devices | freezer) continue ;; esac
            grep -qw "$controller" $v2 || missing="$missing $controller"
        else
            awk -v name="$controller" '$1 == name && $4 == 1 { found = 1 } END { exit !found }' /proc/cgroups ||
                missing="$missing $controller"
        fi
    done
    [ -z "$missing" ] || add_failure cgroups "the kernel has no cgroup controller$missing" \
        "boot with cgroup_enable=... on the kernel's command line"
}

# COMMANDS has "command:package" words.
check_commands() {
    packages='' missing=''
    for pair in $COMMANDS; do
        if has_command_soon "${pair%%:*}"; then continue; fi
        missing="$missing ${pair%%:*}" packages="$packages ${pair#*:}"
    done
    [ -z "$missing" ] || add_failure commands "missing:$missing" "install (Debian's names):$packages"
    for pair in $COMMANDS_WANTED; do
        has_command_soon "${pair%%:*}" ||
            warn "${pair%%:*} (package ${pair#*:}) is missing: verify.sh's probes and kubectl port-forward need it"
    done
    for pair in ${HANDLERS:-}; do
        command -v "${pair#*:}" >/dev/null 2>&1 ||
            warn "${pair#*:} is missing: no pod with the runtime handler ${pair%%:*} starts before it is installed"
    done
}

has_command_soon() { command -v "$1" >/dev/null 2>&1 || brings "$1"; }

check_nginx_stream() {
    has_word "$UNITS" kube-nginx.service || return 0
    command -v nginx >/dev/null 2>&1 && ! brings nginx-stream || return 0
    try_nginx_stream || add_failure nginx-stream \
        "nginx cannot proxy TCP: $(printf '%s\n' "$answer" | sed -n '/emerg/{p;q;}')" \
        "install nginx's stream module (Debian: libnginx-mod-stream)"
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
            add_failure space "$mount has $((free / 1024)) MiB free, $((need / 1024)) MiB are needed" \
                "free some space there"
    done <"$work/space"
}

# "kilobytes path [1|kept]", a line each: see sum-space.awk.
list_needed_space() {
    large=$LARGE
    if is_staged; then large=0; else sum_generation_size; fi
    awk -v large="$large" '
        { path = $6; sub(/\/[^\/]*$/, "", path); sum[path " " (large && $4 >= large)] += $4 }
        END { for (path in sum) printf "%d %s\n", sum[path] / 1024 + 1, path }' "$work/changes"
    [ ! -s "$work/packages" ] || awk '
        FILENAME == ARGV[1] { sum += $5; wanted["packages/" $1] = 1; next }
        $4 in wanted { copies += $3 }
        END { if (sum) printf "%d /usr\n%d /var/lib/bundler\n", sum, copies / 1024 + 1 }' \
        "$work/packages" "$work/MANIFEST"
    is_staged || [ ! -f "$here/lib/registry.tsv" ] || sum_registry_size
    is_staged || list_missing_images | while IFS='|' read -r _ ref _; do
        awk -F '\t' -v ref="$ref" -v path="${DATA_PATHS##* }" '$2 == ref { print $4, path }' "$here/lib/images.tsv"
    done
}

# "kilobytes path" of the blobs that the registry does not have yet.
sum_registry_size() {
    registry_blobs=$prefix$REGISTRY_STORAGE/docker/registry/v2/blobs/sha256
    while IFS='	' read -r kind _ digest size; do
        [ "$kind" != blob ] || [ -f "$registry_blobs/${digest%"${digest#??}"}/$digest/data" ] ||
            printf '%d %s\n' "$((size / 1024 + 1))" "$REGISTRY_STORAGE"
    done <"$here/lib/registry.tsv"
}

# "kilobytes path kept" of the generation that this bundle becomes, without the files that it shares with others.
sum_generation_size() {
    for number in $(list_numbers); do
        awk -v large="$LARGE" '!/^#/ && $3 >= large { print $1 }' "$generations/$number/MANIFEST"
        [ "$(identity_of "$generations/$number/MANIFEST")" != "$(identity_of "$manifest")" ] ||
            awk '!/^#/ { print $1 }' "$manifest"
    done >"$work/shared"
    awk -v path=/var/lib/bundler 'FILENAME == ARGV[1] { shared[$1] = 1; next }
        !/^#/ && !($1 in shared) && $4 !~ /^packages\// { sum += $3 }
        END { printf "%d %s kept\n", sum / 1024, path }' "$work/shared" "$manifest"
}

# The path, or the closest existing directory above it; DESTDIR may not exist yet.
nearest_directory() {
    place=$1
    while [ ! -d "$place" ]; do
        place=${place%/*}
        place=${place:-/}
    done
    printf '%s\n' "$place"
}

# "port inode" of listening sockets; ports are hexadecimal.
list_listening_ports() {
    awk '$4 == "0A" { n = split($2, part, ":"); print part[n], $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# PORTS has "port:unit" words.
check_ports() {
    list_listening_ports >"$work/listening"
    for pair in $PORTS; do
        port=${pair%%:*} unit=${pair#*:}
        inode=$(awk -v port="$(printf '%04X' "$port")" '$1 == port { print $2; exit }' "$work/listening")
        [ -n "$inode" ] || continue
        systemctl -q is-active "$unit" 2>/dev/null && continue
        process=$(find_socket_owner "$inode")
        grep -q "/$unit" "/proc/${process:-0}/cgroup" 2>/dev/null && continue
        owner=''
        [ -z "$process" ] || owner=" by $(cat "/proc/$process/comm") (process $process)"
        add_failure ports "port $port (for $unit) is in use$owner" "stop that program, or change its port"
    done
}

# find_socket_owner INODE: the process that has the socket open.
find_socket_owner() {
    for descriptor in /proc/[0-9]*/fd/*; do
        [ "$(readlink "$descriptor" 2>/dev/null)" = "socket:[$1]" ] || continue
        descriptor=${descriptor#/proc/}
        printf '%s\n' "${descriptor%%/*}"
        return 0
    done
}

is_installed_unit() { list_recorded_files | grep -q " /etc/systemd/system/$1\$"; }

check_units() {
    unknown=''
    for unit in $UNITS; do
        is_installed_unit "$unit" || ! systemctl -q is-active "$unit" 2>/dev/null || unknown="$unknown $unit"
    done
    [ -z "$unknown" ] || add_failure units "running, and not installed by bundler:$unknown" \
        "stop them, and remove the software that they belong to"
}

check_clock() {
    time=$(now) start=$(text_field "$here/state.env" NOT_BEFORE) end=$(text_field "$here/state.env" NOT_AFTER)
    if [ "$time" -lt "$start" ]; then
        early=$(((start - time + 59) / 60))
        add_failure clock "the clock says $(date -u), $early minutes before the certificates become valid" \
            "set the clock (chronyc makestep, or date -s)"
    elif [ "$time" -ge "$end" ]; then
        add_failure clock "the clock says $(date -u), after a certificate expired" \
            "correct the clock, or renew the certificates and build again"
    fi
}

# A node that has joined has a certificate, and needs its token no more.
check_bootstrap_token() {
    expires=$(text_field "$here/state.env" TOKEN_EXPIRES)
    [ -n "$expires" ] && [ "$expires" -le "$(now)" ] || return 0
    ! openssl x509 -checkend 0 -noout -in "$prefix$KUBELET_ROOT/pki/kubelet-client-current.pem" >/dev/null 2>&1 ||
        return 0
    days=$((($(now) - expires) / 86400))
    add_failure bootstrap-token "this bundle's bootstrap token ended $days days ago, and this node has not joined" \
        "bundler build replaces it: install a control plane's new bundle, then this host's"
}
