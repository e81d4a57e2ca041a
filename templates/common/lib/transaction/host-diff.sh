# The host diff: what install.sh would change on this host.
# needs: here manifest packages_only prefix store work
# sets: host_state
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# Write to $work:
#   entries   sha256 mode size source path                what is to be installed
#   changes   new|changed sha256 mode size source path    the entries that are missing or differ
#   removed   path                                        installed by an earlier bundle, and not in this one
#   touched   path                                        of changes and of removed
#   restarts  unit                                        units that depend on touched, NetworkManager's included
#   site-files  path owner restart reload                 files of cluster.yaml, of this bundle and of the installed one
#   host-units  restart|reload unit                       units of the host that touched files of cluster.yaml name
#   users     lines of service-users.awk                  users of units that are missing or wrong
#   packages  lines of packages/LIST                      packages to install (packages.sh)
make_host_diff() {
    host_state=$(print_host_state)
    list_entries >"$work/entries"
    list_installed >"$work/installed"
    owner=0:0
    ! is_staged || owner=$(id -u):$(id -g)
    list_site_files >"$work/site-files"
    awk -v owner="$owner" -v table="$(site_table)" -f "$here/lib/transaction/compare-installed.awk" \
        "$work/installed" "$work/entries" >"$work/changes"
    list_recorded_files | awk 'FILENAME == ARGV[1] { wanted[$5] = 1; next }
        !($2 in wanted) && !seen[$2]++ { print $2 }' "$work/entries" - >"$work/removed"
    awk 'NF > 1 { print $6; next } { print }' "$work/changes" "$work/removed" >"$work/touched"
    list_restarts >"$work/restarts"
    list_host_units >"$work/host-units"
    if is_staged; then : >"$work/users"; else list_user_faults >"$work/users"; fi
    plan_packages
}

# The table of the files of cluster.yaml; their owners only where install.sh sets any.
site_table() {
    if is_staged || [ ! -f "$here/lib/site-files.tsv" ]; then echo /dev/null; else echo "$here/lib/site-files.tsv"; fi
}

# The rows of this bundle and of the installed one, whose files may be removed: "PATH OWNER RESTART RELOAD".
list_site_files() {
    for table in "$here/lib/site-files.tsv" "$prefix/opt/k8s/bundle/lib/site-files.tsv"; do
        [ ! -f "$table" ] || sed '/^#/d' "$table"
    done
}

# is_carried_unit UNIT: its file is one of cluster.yaml.
is_carried_unit() { grep -qs "^/etc/systemd/system/$1	" "$here/lib/site-files.tsv"; }

# list_site_causes UNIT: the changed files of cluster.yaml that name the unit.
list_site_causes() {
    [ -s "$work/site-files" ] || return 0
    awk -F '\t' -v unit="$1" 'FILENAME == ARGV[1] {
            if (index(" " $3 " " $4 " ", " " unit " ")) named[$1] = 1
            next
        }
        $0 in named' "$work/site-files" "$work/touched"
}

# The unit was a file of cluster.yaml and goes with this change, and the host had none of that name before.
leaves_with_its_file() {
    grep -qxF "/etc/systemd/system/$1" "$work/removed" && [ ! -e "$store/replaced/etc/systemd/system/$1" ]
}

# "restart|reload UNIT" of units that are not bundler's, which changed files of cluster.yaml name.
list_host_units() {
    [ -s "$work/site-files" ] || return 0
    awk -F '\t' -v own=" $UNITS " 'FILENAME == ARGV[1] { touched[$0] = 1; next }
        $1 in touched { add("restart", $3); add("reload", $4) }
        function add(step, units,    n, unit, i) {
            n = split(units, unit, " ")
            for (i = 1; i <= n; i++) {
                if (unit[i] == "-" || index(own, " " unit[i] " ") || (unit[i] in step_of)) {
                    if (step == "restart" && (unit[i] in step_of)) step_of[unit[i]] = step
                    continue
                }
                step_of[unit[i]] = step
                order[++found] = unit[i]
            }
        }
        END { for (i = 1; i <= found; i++) print step_of[order[i]], order[i] }' "$work/touched" "$work/site-files" |
        while read -r step unit; do
            leaves_with_its_file "$unit" || echo "$step $unit"
        done
}

# A digest of the state files that every run changes.
print_host_state() { cat "$store/current" "$store/switch" "$store/files" "$store/journal" 2>/dev/null | print_digest; }

# With --packages-only nothing but packages is installed.
limit_to_packages() {
    for list in changes removed restarts host-units users; do : >"$work/$list"; done
    UNITS='' SERVICE_USERS='' UNIT_USERS='' BOOT_UNITS='' COMMANDS='' COMMANDS_WANTED='' PORTS='' OPEN_PORTS=''
    ADDON_PORTS='' SYSCTLS='' SYSCTLS_WANTED='' MODULES='' CGROUPS='' SWAP_OFF='' IMAGES='' RESOLV_CONF=''
    VIP_INTERFACE=''
}

# The scripts are installed too, for use without the unpacked bundle. MANIFEST is installed as that of a
# complete bundle, and last: then every file that it names is installed.
list_entries() {
    awk '$4 ~ /^rootfs\// { print $1, $2, $3, $4, substr($4, 7) }
        $4 ~ /^(install|uninstall|verify|diagnose|backup|restore)\.sh$/ || $4 ~ /^(node|state)\.env$/ || $4 ~ /^lib\// {
            print $1, $2, $3, $4, "/opt/k8s/bundle/" $4 }' "$manifest"
    print_files "$manifest" >"$work/MANIFEST"
    size=$(wc -c <"$work/MANIFEST")
    printf '%s 0644 %d MANIFEST /opt/k8s/bundle/MANIFEST\n' "$(print_digest <"$work/MANIFEST")" $((size))
}

# "path sha256 mode uid:gid user:group" of the entries that are regular files on this host.
list_installed() (
    cd "$prefix/" 2>/dev/null || exit 0 # DESTDIR may not exist yet
    while read -r sha mode size source path; do
        [ ! -f ".$path" ] || [ -L ".$path" ] || printf '.%s\n' "$path"
    done <"$work/entries" >"$work/present"
    [ -s "$work/present" ] || exit 0
    print_file_digests <"$work/present" >"$work/digests"
    xargs -r stat -c '%n %a %u:%g %U:%G' <"$work/present" |
        awk 'FILENAME == ARGV[1] { sha[substr($2, 2)] = $1; next }
            { print substr($1, 2), sha[$1], $2, $3, $4 }' "$work/digests" -
)

# unit_field UNIT KEY: a value of the section [X-Bundler] of the bundle's unit file.
unit_field() {
    unit_section=''
    while read -r unit_line; do
        case $unit_line in
            '['*) unit_section=$unit_line ;;
            "$2="*) [ "$unit_section" != '[X-Bundler]' ] || printf '%s\n' "${unit_line#*=}" ;;
        esac
    done 2>/dev/null <"$here/rootfs/etc/systemd/system/$1"
}

list_restarts() {
    for unit in $UNITS; do
        [ -z "$(list_causes "$unit")" ] || printf '%s\n' "$unit"
    done
    [ -z "$(list_changes_below /etc/NetworkManager/)" ] || echo NetworkManager.service
}

# list_changes_below PATH...: files to be changed or removed whose path begins with one of these.
list_changes_below() {
    while read -r changed_path; do
        for changed_below; do
            case $changed_path in
                "$changed_below"*)
                    printf '%s\n' "$changed_path"
                    break
                    ;;
            esac
        done
    done <"$work/touched"
}

# list_causes UNIT: the changes because of which it is restarted.
# shellcheck disable=SC2046 # a list of paths
list_causes() {
    list_changes_below "/etc/systemd/system/$1" $(unit_field "$1" RestartOn)
    list_site_causes "$1"
}

is_reload_due() {
    has_line "$work/restarts" NetworkManager.service || is_pending NetworkManager.service || return 1
    is_active NetworkManager.service
}

is_pending() { [ -f "$store/restart-pending/$1" ]; }

has_nothing_to_do() {
    [ ! -s "$work/changes" ] && [ ! -s "$work/removed" ] || return 1
    [ ! -d "$store/host-units" ] && [ ! -f "$store/unfinished" ] || return 1
    [ ! -f "$store/cordoned" ] && [ ! -f "$store/ticket" ] || return 1
    is_staged && return 0
    [ "$packages_only" = yes ] || { [ ! -f "$store/switch" ] && [ -n "$(current_generation)" ]; } || return 1
    [ ! -s "$work/packages" ] && [ ! -f "$store/packages-pending" ] && [ ! -s "$work/users" ] || return 1
    [ -z "$(list_inactive_units)$(list_disabled_units)$(list_missing_images)" ] || return 1
    [ -z "$(list_wrong_sysctls)$(list_unwanted_swaps)$(list_swap_units)" ]
}
