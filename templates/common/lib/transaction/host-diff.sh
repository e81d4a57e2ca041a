# What would change: the bundle's files against what is installed.
# needs: here packages_only prefix store work
# sets: host_state
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# Makes in $work:
#   entries   sha256 mode size source path     what should be installed
#   changes   new|changed sha256 mode size source path
#   removed   path                             installed by an earlier bundle, and in this one no more
#   touched   path                             of changes and of removed
#   restarts  unit                             units that a change or removal concerns, NetworkManager's included
#   packages  lines of packages/LIST           what is to be installed of them (packages.sh)
make_host_diff() {
    host_state=$(print_host_state)
    list_entries >"$work/entries"
    awk '{ print $5 }' "$work/entries" | read_installed >"$work/installed"
    owner=0:0
    ! is_staged || owner=$(id -u):$(id -g)
    awk -v prefix="$prefix" -v owner="$owner" '
        FILENAME == ARGV[1] { sha[$1] = $2; state[$1] = $3 " " $4; next }
        {
            path = prefix $5
            kind = !(path in sha) ? "new" : sha[path] != $1 || state[path] != ($2 + 0) " " owner ? "changed" : ""
            if (kind != "") print kind, $1, $2, $3, $4, $5
        }' "$work/installed" "$work/entries" >"$work/changes"
    list_recorded_files | awk 'FILENAME == ARGV[1] { wanted[$5] = 1; next } !($2 in wanted) && !seen[$2]++ { print $2 }' "$work/entries" - >"$work/removed"
    list_restarts >"$work/restarts"
    plan_packages
}

# What every run leaves behind.
print_host_state() { cat "$store/current" "$store/switch" "$store/files" "$store/journal" 2>/dev/null | print_digest; }

# With --packages-only nothing else of the plan stands.
limit_to_packages() {
    for list in changes removed restarts; do : >"$work/$list"; done
    UNITS='' BOOT_UNITS='' COMMANDS='' COMMANDS_WANTED='' PORTS='' OPEN_PORTS='' SYSCTLS='' SYSCTLS_WANTED='' MODULES='' CGROUPS=''
    SWAP_OFF='' IMAGES='' RESOLV_CONF=''
}

# The scripts stay on the host, so that they can be run when the unpacked bundle is gone. MANIFEST is
# installed as that of a whole bundle, and last: what it names is then in place.
list_entries() {
    awk '$4 ~ /^rootfs\// { print $1, $2, $3, $4, substr($4, 7) }
        $4 == "install.sh" || $4 == "uninstall.sh" || $4 == "verify.sh" || $4 == "diagnose.sh" || $4 == "backup.sh" || $4 == "restore.sh" || $4 == "node.env" || $4 == "state.env" || $4 ~ /^lib\// { print $1, $2, $3, $4, "/opt/k8s/bundle/" $4 }' "$here/MANIFEST"
    print_files "$here/MANIFEST" >"$work/MANIFEST"
    printf '%s 0644 %s MANIFEST /opt/k8s/bundle/MANIFEST\n' \
        "$(print_digest <"$work/MANIFEST")" "$(wc -c <"$work/MANIFEST" | tr -d ' ')"
}

# Paths on stdin → "path sha256 mode owner" of those that are there.
read_installed() {
    while read -r path; do
        [ ! -f "$prefix$path" ] || [ -L "$prefix$path" ] || printf '%s\n' "$prefix$path"
    done >"$work/present"
    print_file_digests <"$work/present" >"$work/digests"
    xargs -r stat -c '%n %a %u:%g' <"$work/present" |
        awk 'FILENAME == ARGV[1] { sha[$2] = $1; next } { print $1, sha[$1], $2, $3 }' "$work/digests" -
}

# unit_field UNIT KEY: out of the section [X-Bundler] of the bundle's unit file.
unit_field() {
    awk -F= -v key="$2" '/^\[/ { on = ($0 == "[X-Bundler]") } on && $1 == key { print substr($0, length(key) + 2) }' \
        "$here/rootfs/etc/systemd/system/$1" 2>/dev/null
}

list_restarts() {
    { awk '{ print $6 }' "$work/changes"; cat "$work/removed"; } >"$work/touched"
    for unit in $UNITS; do
        [ -z "$(list_causes "$unit")" ] || printf '%s\n' "$unit"
    done
    ! grep -q '^/etc/NetworkManager/' "$work/touched" || echo NetworkManager.service
}

# list_changes_below PATH...: what changes or goes, and begins with one of these.
list_changes_below() {
    awk -v list="$*" 'BEGIN { n = split(list, start, " ") }
        { for (i = 1; i <= n; i++) if (index($0, start[i]) == 1) { print; next } }' "$work/touched"
}

# shellcheck disable=SC2046 # a list of paths
list_causes() { list_changes_below "/etc/systemd/system/$1" $(unit_field "$1" RestartOn); }

is_reload_due() {
    grep -qxF NetworkManager.service "$work/restarts" || is_pending NetworkManager.service || return 1
    is_active NetworkManager.service
}

is_pending() { [ -f "$store/restart-pending/$1" ]; }

has_nothing_to_do() {
    [ ! -s "$work/changes" ] && [ ! -s "$work/removed" ] && [ ! -f "$store/unfinished" ] && [ ! -f "$store/cordoned" ] && [ ! -f "$store/ticket" ] || return 1
    is_staged && return 0
    [ "$packages_only" = yes ] || { [ ! -f "$store/switch" ] && [ -n "$(current_generation)" ]; } || return 1
    [ ! -s "$work/packages" ] && [ ! -f "$store/packages-pending" ] || return 1
    [ -z "$(list_inactive_units)$(list_disabled_units)$(list_missing_images)$(list_wrong_sysctls)$(list_unwanted_swaps)$(list_swap_units)" ]
}
