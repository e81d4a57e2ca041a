# Kernel modules, kernel settings and swap.
# needs: live store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

has_module() {
    [ -d "$live/sys/module/$1" ] ||
        grep -q "/$1\.ko" "$live/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null
}

load_modules() {
    missing=''
    for module in $MODULES; do
        has_module "$module" || modprobe "$module" 2>/dev/null || missing="$missing $module"
    done
    [ -z "$missing" ] || warn "kernel modules that cannot be loaded (built in, or missing):$missing"
}

sysctl_path() { printf '%s/proc/sys/%s\n' "$live" "$(printf '%s' "$1" | tr . /)"; }

# is_set SETTING: key=value, or key>=value where more is enough too. Sets `value`. A missing key is not set. In a
# setting, + stands for the space between the words of a value; the kernel shows a tab there.
is_set() {
    value=$(cat "$(sysctl_path "${1%%[>=]*}")" 2>/dev/null) || return 1
    case $1 in
        # With awk: older kernels say 2^64-1, which no shell's arithmetic reads.
        *'>='*) awk -v value="$value" -v least="${1##*=}" 'BEGIN { exit !(value + 0 >= least + 0) }' ;;
        *+*) [ "$(printf '%s' "$value" | tr -s ' \t' +)" = "${1##*=}" ] ;;
        *) [ "$value" = "${1##*=}" ] ;;
    esac
}

print_sysctl_value() {
    case $1 in
        *+*) printf '%s\n' "${1##*=}" | tr + ' ' ;;
        *) printf '%s\n' "${1##*=}" ;;
    esac
}

# Settings that are not set, and can be.
list_wrong_sysctls() {
    for setting in $SYSCTLS $SYSCTLS_WANTED; do
        is_set "$setting" || is_unsettable "$setting" || printf '%s\n' "$setting"
    done
}

# An optional setting that this kernel does not have, or did not accept before.
is_unsettable() {
    ! is_required_sysctl "$1" || return 1
    [ ! -f "$(sysctl_path "${1%%[>=]*}")" ] || grep -qxF "${1%%[>=]*}=$value" "$store/sysctls" 2>/dev/null
}

is_required_sysctl() { case " $SYSCTLS " in *" $1 "*) ! is_skipped sysctls ;; *) return 1 ;; esac }

# The previous value is recorded first, for uninstall.sh.
set_sysctls() {
    refused=''
    for setting in $SYSCTLS $SYSCTLS_WANTED; do
        is_set "$setting" && continue
        key=${setting%%[>=]*}
        file=$(sysctl_path "$key")
        if [ -f "$file" ]; then
            grep -q "^$key=" "$store/sysctls" 2>/dev/null || {
                printf '%s=%s\n' "$key" "$value" >>"$store/sysctls"
                sync_record "$store/sysctls"
            }
            print_sysctl_value "$setting" 2>/dev/null >"$file"
        fi
        if is_set "$setting"; then
            note "set $setting"
            continue
        fi
        ! is_required_sysctl "$setting" ||
            die 1 "cannot set $setting, which the node needs: fix that and run install.sh again"
        refused="$refused $setting"
    done
    [ -z "$refused" ] || warn "kernel settings that this kernel does not have or forbids:$refused"
}

check_sysctls() {
    missing=''
    for setting in $SYSCTLS; do
        is_set "$setting" || can_set_sysctl "$setting" || missing="$missing $setting"
    done
    [ -z "$missing" ] || add_failure sysctls "this kernel does not have or forbids$missing" \
        "boot a kernel that has them (net.bridge: br_netfilter); in a container, make /proc/sys writable"
}

# What breaks the node is refused; what may be meant is advice.
check_overrides() {
    list_overrides "$live" >"$work/overrides"
    while IFS='	' read -r level what fix; do
        case $level in must) add_failure overrides "$what" "$fix" ;; *) add_advice overrides "$what" "$fix" ;; esac
    done <"$work/overrides"
}

# Open the file without writing to it: for root busybox's test -w is always true.
can_set_sysctl() {
    file=$(sysctl_path "${1%%=*}")
    if [ -f "$file" ]; then
        (: >>"$file") 2>/dev/null
        return $?
    fi
    case $1 in net.bridge.*) ! has_module br_netfilter && modprobe -n -q br_netfilter 2>/dev/null ;; *) return 1 ;; esac
}

# Devices and files with swap on that should be off, a line each.
list_unwanted_swaps() { [ -z "$SWAP_OFF" ] || is_skipped swap || list_swaps; }
list_swaps() { awk 'NR > 1 { print $1 }' "$live/proc/swaps" 2>/dev/null; }

# Units that would turn swap on at the next boot: from /etc/fstab, generators and packages.
list_swap_units() {
    if [ -z "$SWAP_OFF" ] || is_skipped swap; then return 0; fi
    systemctl list-units --all --type swap --no-legend 2>/dev/null |
        awk '!/ masked / { for (i = 1; i <= NF; i++) if ($i ~ /\.swap$/) { print $i; break } }' |
        while read -r unit; do
            case $(systemctl show -p FragmentPath "$unit" 2>/dev/null) in
                *=/etc/systemd/system/* | *=) ;; # cannot be masked; or no unit file: only in /proc/swaps
                *) printf '%s\n' "$unit" ;;
            esac
        done
    for unit in zramswap.service zram-config.service dphys-swapfile.service swapspace.service; do
        ! systemctl -q is-enabled "$unit" 2>/dev/null || printf '%s\n' "$unit"
    done
}

# No file of the host is changed; $store/swap lists what uninstall.sh must undo.
turn_swap_off() {
    list_unwanted_swaps >"$work/swaps"
    list_swap_units >"$work/swap-units"
    {
        sed 's/^/device /' "$work/swaps"
        sed 's/^/unit /' "$work/swap-units"
    } | while read -r line; do
        grep -qxF "$line" "$store/swap" 2>/dev/null || printf '%s\n' "$line" >>"$store/swap"
    done
    [ ! -f "$store/swap" ] || sync_record "$store/swap"
    while read -r unit; do
        systemctl -q mask "$unit" || die 1 "systemctl mask $unit failed: swap would come back at the next boot"
        case $unit in *.service) systemctl -q stop "$unit" ;; esac
        note "masked $unit"
    done <"$work/swap-units"
    [ -s "$work/swaps" ] || return 0
    say "  turning swap off: $(tr '\n' ' ' <"$work/swaps")"
    swapoff -a || die 1 "swapoff -a failed"
    [ -z "$(list_unwanted_swaps)" ] || die 1 "swap is still on: $(list_unwanted_swaps | tr '\n' ' ')"
    note "turned swap off"
}

# What is swapped out must fit into memory.
check_swap() {
    [ -n "$SWAP_OFF" ] || return 1
    check_own_swap_units
    swaps=$(list_swaps | tr '\n' ' ')
    [ -n "$swaps" ] || return 1
    used=$(awk 'NR > 1 { sum += $4 } END { printf "%d", sum / 1024 }' "$live/proc/swaps")
    room=$(awk '/^MemAvailable:/ { a = $2 } /^(MemFree|Cached|Buffers):/ { f += $2 }
        END { printf "%d", (a ? a : f) / 1024 }' "$live/proc/meminfo")
    if is_skipped swap; then
        add_failure swap "it stays on: ${swaps% }" ''
    elif is_container; then
        add_failure swap "it is on outside of this container: ${swaps% }" \
            "turn it off on the machine that this container runs on"
    elif [ "$used" -gt "$room" ]; then
        add_failure swap "$used MiB are swapped out (${swaps% }), and $room MiB of memory are free" \
            "stop programs, or add memory"
    fi
}

# A unit file in /etc/systemd/system cannot be masked.
check_own_swap_units() {
    for path in "$live"/etc/systemd/system/*.swap; do
        if [ -L "$path" ] || ! [ -f "$path" ]; then continue; fi
        ! systemctl -q is-enabled "${path##*/}" 2>/dev/null ||
            add_failure swap "${path##*/} turns it on at every boot" "systemctl disable --now ${path##*/}"
    done
}
