# What wins over the bundle's files on a host, now or at the next boot: later sysctl files, drop-ins of units, an
# earlier CNI file, modules that may not be loaded, systemd's defaults.
# needs: here
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

UNIT_PLACES='etc/systemd/system.control run/systemd/system.control run/systemd/transient etc/systemd/system
    run/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system lib/systemd/system'
CONF_PLACES='etc run usr/local/lib usr/lib lib'

# list_overrides ROOT: "must|advice", what, and the fix, with tabs between; "must" breaks the node.
list_overrides() {
    list_sysctl_overrides "$1"
    list_forwarding_overrides "$1"
    list_unit_overrides "$1"
    list_default_overrides "$1"
    list_cni_overrides "$1"
    list_module_overrides "$1"
}

# print_override LEVEL WHAT FIX
print_override() { printf '%s\t%s\t%s\n' "$@"; }

# list_conf_files ROOT FOLDER: "name path" of the files that systemd reads, in its order; of one name the first place
# wins.
list_conf_files() {
    for conf_place in $CONF_PLACES; do
        for conf_file in "$1/$conf_place/$2"/*.conf; do
            [ ! -e "$conf_file" ] || printf '%s\t%s\n' "${conf_file##*/}" "$conf_file"
        done
    done | awk -F '\t' '!seen[$1]++' | LC_ALL=C sort -t '	' -k 1,1
}

# list_daemon_files ROOT DAEMON: "name path" of the configuration of a daemon of systemd.
list_daemon_files() {
    printf -- '-\t%s\n' "$1/etc/systemd/$2.conf"
    list_conf_files "$1" "systemd/$2.conf.d"
}

# At boot systemd-sysctl reads sysctl.d; Debian and others link sysctl.conf to its end, and `sysctl --system` reads it
# last. ufw sets its own file later.
list_sysctl_overrides() {
    {
        {
            list_conf_files "$1" sysctl.d | grep -v '^\(00-kubernetes-limits\|99-kubernetes\)\.conf	'
            printf '00-kubernetes-limits.conf\t%%limits\n99-kubernetes.conf\t%%settings\n'
        } | LC_ALL=C sort -t '	' -k 1,1
        [ ! -f "$1/etc/sysctl.conf" ] || printf -- '-\t%s\n' "$1/etc/sysctl.conf"
        ! grep -qi '^ENABLED=yes' "$1/etc/ufw/ufw.conf" 2>/dev/null || printf -- '-\t%s\n' "$1/etc/ufw/sysctl.conf"
    } | awk -F '\t' -v root="$1" -v must="$SYSCTLS" -v wanted="$SYSCTLS_WANTED" \
        -f "$here/lib/overrides/sysctl-overrides.awk"
}

# From 256 on systemd-networkd sets forwarding itself, after systemd-sysctl.
list_forwarding_overrides() {
    list_daemon_files "$1" networkd | while IFS='	' read -r name path; do
        ! grep -qi '^[[:space:]]*IPv4Forwarding[[:space:]]*=[[:space:]]*\(no\|0\|off\|false\)' "$path" 2>/dev/null ||
            print_override must "${path#"$1"} turns net.ipv4.ip_forward off when systemd-networkd starts" \
                "set IPv4Forwarding=yes there"
    done
}

# list_drop_in_folders UNIT: of the unit, of the parts of its name that end in a dash, and of its type.
list_drop_in_folders() {
    echo "$1.d"
    stem=${1%.*}
    while :; do
        case $stem in *-*) stem=${stem%-*} ;; *) break ;; esac
        echo "$stem-.${1##*.}.d"
    done
    echo "${1##*.}.d"
}

# A mask in /etc is a link in place of the unit file.
list_unit_overrides() {
    for unit in $UNITS $BOOT_UNITS; do
        masked=$1/etc/systemd/system/$unit
        [ ! -L "$masked" ] || [ -s "$masked" ] ||
            print_override advice "$unit is masked on this host, and the bundle's file replaces the mask" \
                "nothing, if the bundle is to run it; otherwise do not install on this host"
    done
    for unit in $UNITS $BOOT_UNITS; do
        for folder in $(list_drop_in_folders "$unit"); do
            for place in $UNIT_PLACES; do
                for drop_in in "$1/$place/$folder"/*.conf; do
                    [ ! -e "$drop_in" ] || printf '%s\t%s\t%s\n' "$unit" "${drop_in##*/}" "$drop_in"
                done
            done
        done
    done | awk -v root="$1" -f "$here/lib/overrides/drop-ins.awk"
}

# Variables for every unit: a proxy there is used by the kubelet, the API server and the others, for the API too.
list_default_overrides() {
    list_daemon_files "$1" system | while IFS='	' read -r name path; do
        ! grep -q '^[[:space:]]*DefaultEnvironment[[:space:]]*=[[:space:]]*[^[:space:]]' "$path" 2>/dev/null ||
            print_override advice "${path#"$1"} sets variables for every unit (DefaultEnvironment)" \
                "set them in drop-ins of the units that need them, with the cluster's addresses in NO_PROXY"
    done
}

# The runtime takes the first file by name. multus comes first on purpose, and calls the next one.
list_cni_overrides() {
    case " $ROLES/$FEATURES " in *worker*/*' cni '* | *worker*'/cni '*) ;; *) return 0 ;; esac
    if [ -n "${NETWORK_ADDON:-}" ]; then
        list_former_networks "$1"
        return 0
    fi
    case " $FEATURES " in *' flannel '*) own=10-flannel.conflist ;; *) own=10-bridge.conflist ;; esac
    first=$(
        for network in "$1"/etc/cni/net.d/*.conf "$1"/etc/cni/net.d/*.conflist "$1"/etc/cni/net.d/*.json; do
            [ ! -e "$network" ] || printf '%s\n' "${network##*/}"
        done | {
            cat
            echo "$own"
        } | LC_ALL=C sort | sed -n 1p
    )
    [ "$first" != "$own" ] && ! grep -q '"multus' "$1/etc/cni/net.d/$first" || return 0
    print_override must "/etc/cni/net.d/$first comes before $own: pods would get its network" \
        "mv /etc/cni/net.d/$first /etc/cni/net.d/$first.disabled"
}

# Before the first installation no add-on has made a network: what is there is left from something else, and a node
# would be Ready with it.
list_former_networks() {
    [ ! -d "$1/opt/k8s/bundle" ] || return 0
    for network in "$1"/etc/cni/net.d/*.conf "$1"/etc/cni/net.d/*.conflist "$1"/etc/cni/net.d/*.json; do
        [ ! -e "$network" ] ||
            print_override must \
                "${network#"$1"} is there before $NETWORK_ADDON has made a network: pods would get that one" \
                "mv ${network#"$1"} ${network#"$1"}.disabled"
    done
}

# systemd-modules-load skips modules that are blacklisted, although modprobe NAME loads them.
list_module_overrides() {
    [ -n "$MODULES" ] || return 0
    list_conf_files "$1" modprobe.d | awk -v root="$1" -v modules="$MODULES" -f "$here/lib/overrides/modules.awk"
    boot_line=''
    read -r boot_line 2>/dev/null <"$1/proc/cmdline"
    for word in $boot_line; do
        case $word in module_blacklist=* | modprobe.blacklist=*) ;; *) continue ;; esac
        for module in $MODULES; do
            case ",${word#*=}," in *",$module,"*)
                print_override must "the kernel's command line keeps the module $module from being loaded" \
                    "remove it from ${word%%=*} in the boot loader's configuration"
                ;;
            esac
        done
    done
}
