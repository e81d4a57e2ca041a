# Packages of the operating system: install those of the bundle that this host does not have.
# needs: here live store wait_limit work
# sets: package_files
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# packages/LIST has a line a package, in the order of installation:
#   file name version arch kilobytes why needs
#     why    wanted | wanted:COMMAND (not installed if the host has that command) | needed
#     needs  groups separated by commas; one of each group: NAME or NAME:OPERATOR:VERSION, separated by |
#
# /var/lib/bundler:
#   packages           names of packages that install.sh installed and that were not installed before
#   packages-pending   exists while an installation is not complete; the units that it masks
#   packages-begun     names of the packages that rpm installs, until it has ended
#   packages.log       output of dpkg or rpm
#   package-files/     copies of the package files, while they are installed
#
# dpkg.sh and rpm.sh have the same functions with the prefixes `dpkg_` and `rpm_`; `packager` calls them.

# packager FUNCTION ARGUMENT...: call the function for the host's package manager.
packager() {
    packager_function=$1
    shift
    "${PACKAGES_MANAGER}_$packager_function" "$@"
}

# Write to $work:
#   packages   the lines of LIST to install
#   unmet      "package group": dependencies that neither the host nor the bundle has
plan_packages() {
    package_files=$here/packages
    : >"$work/packages"
    : >"$work/unmet"
    if is_staged || is_skipped packages || ! has_packages || ! is_own_release; then return 0; fi
    packager read
    awk '{ print $2, $3 }' "$here/packages/LIST" >"$work/offered"
    : >"$work/needed"
    while read -r file name version arch kilobytes why needs; do
        case $(is_broken "$name" && echo broken)$why in
            broken*) echo "$name" >>"$work/needed" ;;
            wanted*) has_wanted "$name" "${why#wanted}" || echo "$name" >>"$work/needed" ;;
        esac
    done <"$here/packages/LIST"
    resolve_dependencies
    awk 'FILENAME == ARGV[1] { needed[$1] = 1; next } $2 in needed' \
        "$work/needed" "$here/packages/LIST" >"$work/packages"
}

has_packages() { [ -n "$PACKAGES_OS" ] && [ -f "$here/packages/LIST" ]; }

# In the form of packages.os in cluster.yaml: debian-12.
host_release() {
    awk -F= '{ gsub(/["'"'"']/, "", $2) } $1 == "ID" { id = $2 } $1 == "VERSION_ID" { version = $2 }
        END { print id "-" version }' "$live/etc/os-release" 2>/dev/null | packager name_release
}
is_own_release() { [ "$(host_release) $(packager machine)" = "$PACKAGES_OS $ARCH" ]; }

is_broken() { grep -qxF "$1" "$work/broken"; }

# has_wanted PACKAGE [:COMMAND]: the host has the package, one that provides it, or the command.
has_wanted() { is_in "$1" "$work/have" || { [ -n "$2" ] && has_command "${2#:}"; }; }

has_command() {
    case $1 in
        nginx-stream) command -v nginx >/dev/null 2>&1 && try_nginx_stream ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# Dependencies have dependencies: the list grows while it is read.
resolve_dependencies() {
    at=1
    while
        name=$(sed -n "${at}p" "$work/needed")
        [ -n "$name" ]
    do
        at=$((at + 1))
        awk -v name="$name" '$2 == name && $7 != "-" { gsub(",", "\n", $7); print $7 }' "$here/packages/LIST" \
            >"$work/dependencies"
        while read -r group; do
            is_met "$group" || add_needed "$group" || echo "$name $group" >>"$work/unmet"
        done <"$work/dependencies"
    done
}

# alternatives GROUP
alternatives() { printf '%s\n' "$1" | tr '|' ' '; }

is_met() {
    for need in $(alternatives "$1"); do is_in "$need" "$work/have" && return 0; done
    return 1
}

# add_needed GROUP: the first one of the group that the bundle has.
add_needed() {
    for need in $(alternatives "$1"); do
        is_in "$need" "$work/offered" || continue
        grep -qxF "${need%%:*}" "$work/needed" || echo "${need%%:*}" >>"$work/needed"
        return 0
    done
    return 1
}

# is_in NEED FILE: whether a line "name version" of the file meets NAME or NAME:OPERATOR:VERSION.
is_in() {
    wanted_name=${1%%:*}
    found_versions=$(awk -v name="$wanted_name" '$1 == name { print $2 == "" ? "-" : $2 }' "$2")
    [ -n "$found_versions" ] || return 1
    [ "$1" != "$wanted_name" ] || return 0
    wanted_version=${1#*:}
    operator=${wanted_version%%:*}
    wanted_version=${wanted_version#*:}
    for found_version in $found_versions; do
        [ "$found_version" != - ] && packager compare "$found_version" "$operator" "$wanted_version" && return 0
    done
    return 1
}

# brings COMMAND: whether this run installs the package for it.
brings() { awk -v why="wanted:$1" '$6 == why { found = 1 } END { exit !found }' "$work/packages"; }

check_packages() {
    if ! has_packages || is_skipped packages; then return 0; fi
    if ! is_own_release; then
        add_failure packages \
            "the bundle's packages are for $PACKAGES_OS on $ARCH, this host is $(host_release) on $(packager machine)" \
            "set packages.os in cluster.yaml and build again"
        return 0
    fi
    while read -r name group; do
        add_failure packages "$name needs $(describe "$group"), and neither this host nor the bundle has it" \
            "update the host; or add it to packages.add in cluster.yaml, and build again"
    done <"$work/unmet"
    missing=$(while read -r file name _; do
        [ -f "$here/packages/$file" ] || printf '%s ' "$name"
    done <"$work/packages")
    [ -z "$missing" ] || add_failure packages \
        "this host needs packages that are not in this bundle, which is a change to one that had them: ${missing% }" \
        "take this node's complete bundle"
    if [ ! -s "$work/packages" ] || [ -s "$work/unmet" ] || [ -n "$missing" ]; then return 0; fi
    answer=$(packager try 2>&1) && return 0
    reason=$(printf '%s\n' "$answer" | packager explain | sed -n '1,3p' | tr -s '\n ' ' ')
    add_failure packages "$PACKAGES_MANAGER would refuse the bundle's packages: $reason" \
        "resolve the conflict on this host"
}

# describe GROUP: libc6:ge:2.36|other → libc6 >= 2.36 or other
describe() {
    printf '%s\n' "$1" | sed 's/|/ or /g; s/:ge:/ >= /g; s/:gt:/ >> /g; s/:eq:/ = /g; s/:le:/ <= /g; s/:lt:/ << /g'
}

print_packages() {
    [ -s "$work/packages" ] || return 0
    awk 'FILENAME == ARGV[1] { have[$1] = $2; next }
        { printf "package  %s %s%s\n", $2, $3, $2 in have ? " (instead of " have[$2] ")" : "" }' \
        "$work/have" "$work/packages"
}

install_packages() {
    ! is_staged || return 0
    [ -s "$work/packages" ] || [ -f "$store/packages-pending" ] || return 0
    was_pending=no
    [ ! -f "$store/packages-pending" ] || was_pending=yes
    say "  installing $(count_lines <"$work/packages") packages of $PACKAGES_OS"
    [ ! -s "$work/packages" ] || copy_packages
    record_packages
    mask_quiet_units
    [ ! -s "$work/packages" ] || run_packager install
    [ "$was_pending" = no ] || run_packager finish
    unmask_quiet_units
    rm -rf "$store/packages-pending" "$store/package-files"
    while read -r file name version arch kilobytes why needs; do
        note "package $name $version"
        case $why in
            wanted:*)
                has_command "${why#wanted:}" ||
                    die 1 "the package $name is installed, but this host still has no ${why#wanted:}"
                ;;
        esac
    done <"$work/packages"
}

# What is installed are copies that only root can change, after their digests are compared.
copy_packages() {
    package_files=$store/package-files
    rm -rf "$package_files"
    # shellcheck disable=SC2046 # names of files without spaces
    (umask 077 && mkdir "$package_files" && cd "$here/packages" &&
        cp $(awk '{ print $1 }' "$work/packages") "$package_files/") || die 1 "cannot copy packages to $package_files"
    awk 'FILENAME == ARGV[1] { wanted[$1] = "none"; next }
        $4 ~ /^packages\// && substr($4, 10) in wanted { wanted[substr($4, 10)] = $1 }
        END { for (name in wanted) print wanted[name], name }' \
        "$work/packages" "$work/MANIFEST" >"$work/package-digests"
    faults=$(list_damaged_files "$package_files" "$work/package-digests")
    [ -n "$faults" ] || return 0
    rm -rf "$package_files"
    refuse packages "these packages changed while this ran:
$faults" "find out what else writes to $here, or whether the disk fails, and run install.sh again"
}

# Before the first one is unpacked: what was not installed before, for uninstall.sh.
record_packages() {
    touch "$store/packages" "$store/packages-pending" || die 1 "cannot write $store/packages"
    awk '{ print $2 }' "$work/packages" | while read -r name; do
        if is_in "$name" "$work/have" || grep -qxF "$name" "$store/packages"; then continue; fi
        echo "$name" >>"$store/packages"
    done
    sync_record "$store/packages"
}

# Packages enable and start their services. Services whose programs bundler's own units run are masked during the
# installation, then disabled. Units that the host had before are not touched.
mask_quiet_units() {
    for unit in $QUIET_UNITS; do
        grep -qxF "$unit" "$store/packages-pending" || ! systemctl cat "$unit" >/dev/null 2>&1 || continue
        echo "$unit" >>"$store/packages-pending"
        systemctl -q mask --runtime "$unit" 2>/dev/null || die 1 "systemctl mask --runtime $unit failed"
    done
}

unmask_quiet_units() {
    sort -u "$store/packages-pending" >"$work/quiet"
    while read -r unit; do
        systemctl -q unmask --runtime "$unit" 2>/dev/null
        ! systemctl -q is-enabled "$unit" 2>/dev/null || systemctl -q disable "$unit" 2>/dev/null ||
            warn "$unit could not be disabled"
    done <"$work/quiet"
}

# Wait while another dpkg or rpm runs: an upgrade, or one that a killed install.sh started.
run_packager() {
    tried=0
    until packager "$1" >"$work/packages.log" 2>&1; do
        cat "$work/packages.log" >>"$store/packages.log"
        if [ "$tried" -ge "$wait_limit" ] || ! packager is_locked <"$work/packages.log"; then
            packager explain <"$work/packages.log" | tail -n 12 >&2
            die 1 "$PACKAGES_MANAGER failed (log: $store/packages.log): fix that and run install.sh again"
        fi
        [ $((tried % 15)) -ne 0 ] || say "  waiting until another $PACKAGES_MANAGER has ended ($tried s)"
        sleep 1
        tried=$((tried + 1))
    done
    cat "$work/packages.log" >>"$store/packages.log"
}
