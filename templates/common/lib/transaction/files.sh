# Install files so that a kill at any moment leaves a state that the next run completes.
# needs: LARGE generations here prefix store to work
# sets: noted_at writing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# Each changed file is copied to DIRECTORY/.bundler-new/NAME, and renamed to DIRECTORY/NAME when all copies are
# complete: one cp and one mv for all files of a directory. A replaced secret stays in DIRECTORY/.bundler-old until it
# is overwritten. Bundler before this version wrote NAME.bundler-new and NAME.bundler-old.
#
# State files in /var/lib/bundler (0700):
#   files             "sha256 path" of the installed files, written before the first file is renamed
#   dirs              directories that install.sh created, written before they are created
#   existed           paths that programs create while they run, and that were there before
#   replaced/PATH     a file that was there before bundler's
#   modified/PATH.*   a file of bundler's that somebody changed
#   restart-pending/  a file for each unit that must be restarted, created before its files are renamed
#   host-units/       the same for units of the host that files of cluster.yaml name: restart or reload
#   reload-pending    systemd must read its unit files again
#   sysctls           "key=value" of kernel settings, as they were before
#   swap              "device PATH" and "unit NAME": swap that was turned off, units that were masked
#   etcd-member       etcd was ready here once: an empty data directory means that the data are lost
#   users             users and groups that install.sh created (users.sh)
#   unfinished        a run did not complete
#   journal           what was done, and when

install_files() {
    writing=yes
    : >"$store/unfinished"
    [ -f "$store/existed" ] || record_existing
    list_recorded_files >"$work/files.before"
    back_up_unknown_files
    record_files
    remove_temporary_files # of a killed run
    group_changes
    ensure_directories
    write_new_files || die 1 "cannot write the new files: fix that and run install.sh again"
    set_modes || die 1 "cannot set modes and owners of the new files: fix that and run install.sh again"
    check_new_files
    back_up_modified_files
    if ! is_staged; then
        start_switch
        stop_former_runtime
    fi
    mark_restarts
    move_new_files
    remove_stale_files
    remove_temporary_files
    sync
    awk '{ print $1, $5 }' "$work/entries" >"$store/files.new" || die 1 "cannot write $store/files.new"
    replace_record "$store/files"
    ! is_staged ||
        rm -rf "$store/unfinished" "$store/restart-pending" "$store/host-units" "$store/reload-pending"
}

# Paths that programs create while they run, and that exist already: uninstall.sh keeps them.
record_existing() {
    for path in $RUNTIME_PATHS; do [ ! -e "$prefix$path" ] || printf '%s\n' "$path"; done >"$store/existed.new"
    replace_record "$store/existed"
}

# Old and new files: after a kill uninstall.sh too knows every file.
record_files() {
    awk '{ print $1, $5 }' "$work/entries" | sort -u "$work/files.before" - >"$store/files.new" ||
        die 1 "cannot write $store/files.new"
    replace_record "$store/files"
}

group_changes() {
    large=$LARGE
    if is_staged; then large=0; fi
    awk -v large="$large" -v work="$work" -f "$here/lib/transaction/group-by-directory.awk" \
        "$work/changes" >"$work/groups"
}

# each_group FUNCTION: FUNCTION NAME..., with the variables number, how, directory and source.
each_group() {
    while read -r number how directory source names; do
        # shellcheck disable=SC2086 # names have no spaces
        "$1" $names || return 1
    done <"$work/groups"
}

# Create missing directories. Those above the paths that programs create themselves are included.
ensure_directories() {
    {
        while read -r _ _ parent _; do list_missing_directories "$parent"; done <"$work/groups"
        for path in $DATA_PATHS $RUNTIME_PATHS; do list_missing_directories "${path%/*}"; done
    } | sort -u >"$work/directories" # parents before what is in them
    [ -s "$work/directories" ] || return 0
    # each once: a run that was killed here has recorded them already
    set -- "$work/directories"
    [ ! -f "$store/dirs" ] || set -- "$@" "$store/dirs"
    sort -u "$@" >"$store/dirs.new" || die 1 "cannot write $store/dirs.new"
    replace_record "$store/dirs"
    (cd "$prefix/" && sed 's/^/./' "$work/directories" | xargs mkdir -m 0755) || die 1 "cannot create directories"
}

# list_missing_directories PATH: it and those above it.
list_missing_directories() {
    missing=$1
    while [ -n "$missing" ] && [ ! -d "$prefix$missing" ]; do
        printf '%s\n' "$missing"
        missing=${missing%/*}
    done
}

# Nobody but root can read the new files until their modes are set.
write_new_files() {
    : >"$work/linked"
    awk '{ print "." $3 "/.bundler-new" }' "$work/groups" | sort -u >"$work/new-directories"
    (cd "$prefix/" && xargs -r mkdir -m 0700 <"$work/new-directories") || return 1
    umask 077
    each_group write_group
    written=$?
    umask 022
    return "$written"
}

write_group() {
    new=$prefix$directory/.bundler-new source=${source#./}
    if [ "$how" = link ]; then link_group "$@"; fi
    for name; do
        shift
        if [ -e "$new/$name" ]; then
            printf '%s\n' "$directory/$name" >>"$work/linked" || return 1
        elif [ "$how" != last ] && [ -f "$here/$source$name" ]; then
            set -- "$@" "$here/$source$name"
        else
            copy_bundle_file "$source$name" "$new/$name" || return 1
        fi
    done
    [ $# -eq 0 ] || cp "$@" "$new/"
}

# A large file shares its blocks with the generation's, unless that is on another file system: then it is copied.
link_group() {
    for name; do
        shift
        set -- "$@" "$generations/$to/$source$name"
    done
    ln "$@" "$new/" 2>/dev/null || :
}

# One program for all files of a mode. mode.MODE lists them.
set_modes() (
    cd "$prefix/" || exit 1
    awk -v work="$work" '{ path = $6; sub(/[^\/]*$/, ".bundler-new/&", path); print "." path >(work "/mode." $3) }' \
        "$work/changes"
    for list in "$work"/mode.*; do
        [ -f "$list" ] || continue
        is_staged || xargs chown 0:0 <"$list" || exit 1
        xargs chmod "${list##*.}" <"$list" || exit 1
    done
    awk -F '[ \t]' 'FILENAME == ARGV[1] { owner[$1] = $2; next }
        $6 in owner && owner[$6] != "root:root" {
            path = $6
            sub(/[^\/]*$/, ".bundler-new/&", path)
            print owner[$6], "." path
        }' "$(site_table)" "$work/changes" | while read -r owner path; do chown "$owner" "$path" || exit 1; done
)

check_new_files() {
    awk 'FILENAME == ARGV[1] { linked[$1] = 1; next }
        !($6 in linked) { path = $6; sub(/[^\/]*$/, ".bundler-new/&", path); print $2, "." path }' \
        "$work/linked" "$work/changes" >"$work/copies"
    check_copies "$prefix/"
}

# check_copies DIRECTORY: the copies have the digests of MANIFEST, even if the bundle changed since it was checked.
check_copies() {
    faults=$(list_damaged_files "$1" "$work/copies")
    [ -z "$faults" ] || die 1 "these copies differ from MANIFEST, and were not installed:
$(printf '%s\n' "$faults" | sed 's|/\.bundler-new/|/|')
    fix: find out what else writes to $here, or whether the disk fails, and run install.sh again"
}

mark_restarts() {
    mkdir -p "$store/restart-pending"
    while read -r unit; do : >"$store/restart-pending/$unit"; done <"$work/restarts"
    while read -r step unit; do
        mkdir -p "$store/host-units" && printf '%s\n' "$step" >"$store/host-units/$unit"
    done <"$work/host-units"
    [ -z "$(list_changes_below /etc/systemd/system/)" ] || : >"$store/reload-pending"
}

# A program that reads a file finds the old or the new one, complete.
move_new_files() {
    noted_at=$(print_time)
    link_old_secrets
    each_group move_group || die 1 "cannot move the new files to $directory: fix that and run install.sh again"
    noted_at=''
}

move_group() {
    for name; do
        shift
        set -- "$@" "$prefix$directory/.bundler-new/$name"
    done
    mv -f "$@" "$prefix$directory/" || return 1
    while read -r line; do note "$line"; done <"$work/group.$number"
}

# A second name for each secret that is replaced, so that it can be overwritten afterwards.
link_old_secrets() {
    set --
    while read -r _ _ _ _ _ path; do set -- "$@" "$prefix$path"; done <"$work/changes"
    find_secrets "$@" >"$work/old-secrets"
    while read -r secret; do
        old=${secret%/*}/.bundler-old
        [ -d "$old" ] || mkdir -m 0700 "$old" || die 1 "cannot create $old"
        ln -f "$secret" "$old/" 2>/dev/null
    done <"$work/old-secrets"
}

# Copies that are not installed hold secrets and take up space.
remove_temporary_files() {
    list_temporary_files | sort -u >"$work/temporary"
    set --
    while read -r each; do set -- "$@" "$each"; done <"$work/temporary"
    [ $# -gt 0 ] || return 0
    wipe_secrets "$@"
    rm -rf "$@"
}

list_temporary_files() {
    list_recorded_files | while read -r _ path; do
        path=$prefix$path
        for each in "${path%/*}/.bundler-new" "${path%/*}/.bundler-old" "$path.bundler-new" "$path.bundler-old"; do
            if [ -e "$each" ] || [ -L "$each" ]; then printf '%s\n' "$each"; fi
        done
    done
}

# Of a run that failed.
remove_partial_copies() {
    remove_temporary_files
    for each in "$generations"/*.part; do
        [ -e "$each" ] || continue
        wipe_secrets "$each"
        rm -rf "$each"
    done
}

# Back up the host's own files before bundler's path is recorded: uninstall.sh restores them.
back_up_unknown_files() {
    awk 'FILENAME == ARGV[1] { known[$2] = 1; next }
        !($6 in known) { print $6 }' "$work/files.before" "$work/changes" >"$work/unknown"
    while read -r path; do
        target=$prefix$path
        [ ! -e "$target" ] && [ ! -L "$target" ] || back_up_file "$store/replaced$path" || die 1 "cannot back up $path"
    done <"$work/unknown"
}

# Back up a file of bundler's that somebody changed.
back_up_modified_files() {
    [ -s "$work/files.before" ] || return 0
    (cd "$prefix/" && awk '{ print "." $6 }' "$work/changes" | print_file_digests) |
        awk -f "$here/lib/transaction/modified-files.awk" "$work/files.before" "$work/changes" - >"$work/modified"
    while read -r path; do
        target=$prefix$path
        say "  $path was changed by hand; that version is backed up in $store/modified"
        back_up_file "$store/modified$path.$(date -u +%Y%m%dT%H%M%SZ)" || die 1 "cannot back up $path"
    done <"$work/modified"
}

# back_up_file COPY: of the file `target`.
back_up_file() {
    [ ! -e "$1" ] || return 0
    mkdir -p "${1%/*}" && cp -Pp "$target" "$1.part" && mv -f "$1.part" "$1"
}

remove_stale_files() {
    while read -r path; do
        case $path in
            /etc/systemd/system/*) is_staged || systemctl -q disable --now "${path##*/}" 2>/dev/null ;;
        esac
        remove_file "$path" || die 1 "cannot remove $path"
        note "removed $path"
    done <"$work/removed"
}

# find_secrets PATH...: files that only root can read, and that have no second name by which they stay.
find_secrets() {
    for each; do
        shift
        [ ! -e "$each" ] || set -- "$@" "$each"
    done
    [ $# -eq 0 ] || find "$@" -type f -perm 0600 -links 1 2>/dev/null
}

# wipe_secrets PATH...: overwrite and remove them, as far as the file system writes in place.
wipe_secrets() {
    find_secrets "$@" >"$work/secrets"
    set --
    while read -r secret; do set -- "$@" "$secret"; done <"$work/secrets"
    [ $# -eq 0 ] || shred -u "$@" 2>/dev/null || for secret; do overwrite_secret "$secret"; done
}

overwrite_secret() {
    [ -f "$1" ] || return 0
    head -c "$(wc -c <"$1")" /dev/zero >"$1.zero" && cat "$1.zero" 1<>"$1"
    rm -f "$1" "$1.zero"
}

# remove_file PATH: a file that was there before bundler's is restored.
remove_file() {
    wipe_secrets "$prefix$1"
    rm -f "$prefix$1" || return 1
    if [ -e "$store/replaced$1" ] || [ -L "$store/replaced$1" ]; then
        mv -f "$store/replaced$1" "$prefix$1"
    fi
}
