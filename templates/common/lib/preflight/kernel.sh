# What the running kernel is told: modules, settings, swap.
# needs: live store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

has_module() { [ -d "$live/sys/module/$1" ] || grep -q "/$1\.ko" "$live/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null; }

load_modules() {
    lacking=''
    for module in $MODULES; do
        has_module "$module" || modprobe "$module" 2>/dev/null || lacking="$lacking $module"
    done
    [ -z "$lacking" ] || warn "kernel modules that cannot be loaded (built in, or not there):$lacking"
}

sysctl_path() { printf '%s/proc/sys/%s\n' "$live" "$(printf '%s' "$1" | tr . /)"; }

# holds SETTING: key=value, or key>=value where more is well too. What is not there does not hold.
holds() {
    value=$(cat "$(sysctl_path "${1%%[>=]*}")" 2>/dev/null) || return 1
    case $1 in
        # By awk: older kernels say 2^64-1, which no shell's arithmetic reads.
        *'>='*) awk -v value="$value" -v least="${1##*=}" 'BEGIN { exit !(value + 0 >= least + 0) }' ;;
        *) [ "$value" = "${1##*=}" ] ;;
    esac
}

# Settings that do not hold, and could.
list_wrong_sysctls() {
    for setting in $SYSCTLS $SYSCTLS_WANTED; do
        holds "$setting" || is_unsettable "$setting" || printf '%s\n' "$setting"
    done
}

# This kernel lacks it, or it still is as it was before it was set: that was in vain.
is_unsettable() {
    ! is_required_sysctl "$1" || return 1
    [ ! -f "$(sysctl_path "${1%%[>=]*}")" ] || grep -qxF "${1%%[>=]*}=$value" "$store/sysctls" 2>/dev/null
}

is_required_sysctl() { case " $SYSCTLS " in *" $1 "*) ! is_skipped sysctls ;; *) return 1 ;; esac }

# The value before is recorded first, for uninstall.sh.
set_sysctls() {
    refused=''
    for setting in $SYSCTLS $SYSCTLS_WANTED; do
        holds "$setting" && continue
        key=${setting%%[>=]*}
        file=$(sysctl_path "$key")
        if [ -f "$file" ]; then
            grep -q "^$key=" "$store/sysctls" 2>/dev/null || printf '%s=%s\n' "$key" "$value" >>"$store/sysctls"
            printf '%s\n' "${setting##*=}" 2>/dev/null >"$file"
        fi
        if holds "$setting"; then
            note "set $setting"
            continue
        fi
        ! is_required_sysctl "$setting" || die 1 "cannot set $setting, without which pods' packets go astray: mend that and run install.sh again"
        refused="$refused $setting"
    done
    [ -z "$refused" ] || warn "kernel settings that this kernel lacks or forbids:$refused"
}

check_sysctls() {
    stuck=''
    for setting in $SYSCTLS; do
        holds "$setting" || can_set_sysctl "$setting" || stuck="$stuck $setting"
    done
    [ -z "$stuck" ] || add_failure sysctls "this kernel lacks or forbids$stuck" "boot a kernel with br_netfilter; in a container, make /proc/sys writable"
}

# Opened, and nothing written: busybox's -w says yes to root wherever it is.
can_set_sysctl() {
    file=$(sysctl_path "${1%%=*}")
    if [ -f "$file" ]; then
        (: >>"$file") 2>/dev/null
        return
    fi
    case $1 in net.bridge.*) ! has_module br_netfilter && modprobe -n -q br_netfilter 2>/dev/null ;; *) return 1 ;; esac
}

# Swap that is on and should not be: a device or file a line.
list_unwanted_swaps() { [ -z "$SWAP_OFF" ] || is_skipped swap || list_swaps; }
list_swaps() { awk 'NR > 1 { print $1 }' "$live/proc/swaps" 2>/dev/null; }

# Units that would turn swap on at the next boot: of /etc/fstab, of generators, of packages.
list_swap_units() {
    if [ -z "$SWAP_OFF" ] || is_skipped swap; then return; fi
    systemctl list-units --all --type swap --no-legend 2>/dev/null |
        awk '!/ masked / { for (i = 1; i <= NF; i++) if ($i ~ /\.swap$/) { print $i; break } }' |
        while read -r unit; do
            case $(systemctl show -p FragmentPath "$unit" 2>/dev/null) in
                *=/etc/systemd/system/* | *=) ;; # nothing can be masked there; of /proc/swaps only
                *) printf '%s\n' "$unit" ;;
            esac
        done
    for unit in zramswap.service zram-config.service dphys-swapfile.service swapspace.service; do
        ! systemctl -q is-enabled "$unit" 2>/dev/null || printf '%s\n' "$unit"
    done
}

# The host's files stay as they are; $store/swap says what uninstall.sh must undo.
turn_swap_off() {
    list_unwanted_swaps >"$work/swaps"
    list_swap_units >"$work/swap-units"
    {
        sed 's/^/device /' "$work/swaps"
        sed 's/^/unit /' "$work/swap-units"
    } | while read -r line; do
        grep -qxF "$line" "$store/swap" 2>/dev/null || printf '%s\n' "$line" >>"$store/swap"
    done
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

# What is swapped out must find room in memory.
check_swap() {
    [ -n "$SWAP_OFF" ] || return
    check_own_swap_units
    swaps=$(list_swaps | tr '\n' ' ')
    [ -n "$swaps" ] || return
    used=$(awk 'NR > 1 { sum += $4 } END { printf "%d", sum / 1024 }' "$live/proc/swaps")
    room=$(awk '/^MemAvailable:/ { a = $2 } /^(MemFree|Cached|Buffers):/ { f += $2 } END { printf "%d", (a ? a : f) / 1024 }' "$live/proc/meminfo")
    if is_skipped swap; then
        add_failure swap "it stays on: ${swaps% }" ''
    elif is_container; then
        add_failure swap "it is on outside of this container: ${swaps% }" "turn it off on the machine that this container runs on"
    elif [ "$used" -gt "$room" ]; then
        add_failure swap "$used MiB are swapped out (${swaps% }), and memory has room for $room MiB" "stop programs, or add memory"
    fi
}

# Nothing can be masked where the host has a unit file of its own.
check_own_swap_units() {
    for path in "$live"/etc/systemd/system/*.swap; do
        if [ -L "$path" ] || ! [ -f "$path" ]; then continue; fi
        ! systemctl -q is-enabled "${path##*/}" 2>/dev/null ||
            add_failure swap "${path##*/} turns it on at every boot" "systemctl disable --now ${path##*/}"
    done
}
