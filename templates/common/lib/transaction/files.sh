# Files into place, so that a kill at any moment leaves something that the next run finishes.
# needs: LARGE generations here prefix store to work
# sets: noted_at writing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# /var/lib/bundler (0700):
#   files             "sha256 path" of what is installed, written before the first file moves
#   dirs              directories that install.sh made, written before each is made
#   existed           paths that programs make while they run, and that were there before
#   replaced/PATH     a file that was there before bundler's
#   modified/PATH.*   a file of bundler's that somebody had changed
#   restart-pending/  a mark for each unit that must be restarted, made before its files move
#   reload-pending    systemd must read its unit files again
#   sysctls           "key=value" of kernel settings, as they were before
#   swap              "device PATH" and "unit NAME": swap that was turned off, units that were masked
#   etcd-member       etcd was ready here once: an empty data directory means that the data are lost
#   unfinished        a run that did not come to its end
#   journal           what was done, and when

install_files() {
    writing=yes
    : >"$store/unfinished"
    [ -f "$store/existed" ] || list_existing >"$store/existed"
    list_recorded_files >"$work/files.before"
    back_up_unknown_files
    record_files
    : >"$work/copies"
    each_change put_beside
    set_modes || die 1 "cannot set modes and owners of the new files: mend that and run install.sh again"
    check_copies "$prefix/"
    back_up_modified_files
    if ! is_staged; then start_switch; stop_former_runtime; fi
    mark_restarts
    noted_at=$(print_time)
    each_change move_into_place
    noted_at=''
    remove_stale_files
    remove_temporary_files
    # Programs make the rest of these paths by themselves; what is above must go with them.
    for path in $DATA_PATHS $RUNTIME_PATHS; do
        ensure_directory "$prefix${path%/*}" || die 1 "cannot make ${path%/*}"
    done
    sync
    awk '{ print $1, $5 }' "$work/entries" >"$store/files.new" || die 1 "cannot write $store/files.new"
    mv -f "$store/files.new" "$store/files" || die 1 "cannot write $store/files"
    if is_staged; then rm -rf "$store/unfinished" "$store/restart-pending" "$store/reload-pending"; fi
}

each_change() {
    while read -r kind sha mode size source path; do
        target=$prefix$path
        "$1" || die 1 "cannot write $path: mend that and run install.sh again"
    done <"$work/changes"
}

# Of the paths that programs make while they run: those that are there already, and so not ours.
list_existing() {
    for path in $RUNTIME_PATHS; do [ ! -e "$prefix$path" ] || printf '%s\n' "$path"; done
}

mark_restarts() {
    mkdir -p "$store/restart-pending"
    while read -r unit; do : >"$store/restart-pending/$unit"; done <"$work/restarts"
    grep -q '/etc/systemd/system/' "$work/touched" && : >"$store/reload-pending"
    return 0
}

# Old and new together: what a crash leaves half done is all known, to uninstall.sh too.
record_files() {
    awk '{ print $1, $5 }' "$work/entries" | sort -u "$work/files.before" - >"$store/files.new" || die 1 "cannot write $store/files.new"
    mv -f "$store/files.new" "$store/files" || die 1 "cannot write $store/files"
}

# All files are beside their places before the first is moved: the moment between is short.
put_beside() {
    ensure_directory "${target%/*}" || return 1
    if [ -e "$target.bundler-new" ] || [ -L "$target.bundler-new" ]; then # of a run that was killed
        wipe_secrets "$target.bundler-new"
        rm -f "$target.bundler-new"
    fi
    if ! share_blocks; then
        (umask 077 && provide "$source" "$target.bundler-new") || return 1
        printf '%s %s\n' "$sha" ".$path.bundler-new" >>"$work/copies" || return 1
    fi
}

# Of all files beside their places, a program for each mode and not for each file.
set_modes() {
    (
        cd "$prefix/" || exit 1
        is_staged || awk '{ print "." $6 ".bundler-new" }' "$work/changes" | xargs -r chown 0:0 || exit 1
        awk '{ print $3 }' "$work/changes" | sort -u | while read -r mode; do
            awk -v mode="$mode" '$3 == mode { print "." $6 ".bundler-new" }' "$work/changes" | xargs -r chmod "$mode" || exit 1
        done
    )
}

# check_copies DIRECTORY: they are what MANIFEST says, whatever became of the bundle since it was looked at.
check_copies() {
    faults=$(list_faults_below "$1" <"$work/copies")
    [ -z "$faults" ] || die 1 "what was copied is not what MANIFEST says any more, and was not put in its place:
$faults
    fix: look who else writes to $here, or what is wrong with the disk, and run install.sh again"
}

# A large file need not be on the disk twice; it cannot be shared between file systems.
share_blocks() { ! is_staged && [ "$size" -ge "$LARGE" ] && ln "$generations/$to/$source" "$target.bundler-new" 2>/dev/null; }

# A reader sees the old file or the new one, whole. A secret that goes is overwritten afterwards.
move_into_place() {
    [ ! -f "$target" ] || [ -z "$(find_secrets "$target")" ] || ln -f "$target" "$target.bundler-old" 2>/dev/null
    mv -f "$target.bundler-new" "$target" || return 1
    [ ! -f "$target.bundler-old" ] || wipe_secrets "$target.bundler-old"
    note "$kind $path $sha"
}

# Of a run that was killed.
remove_temporary_files() {
    list_recorded_files | awk -v prefix="$prefix" '{ print prefix $2 ".bundler-new"; print prefix $2 ".bundler-old" }' | sort -u >"$work/beside"
    while read -r beside; do [ ! -f "$beside" ] || wipe_secrets "$beside"; done <"$work/beside"
    xargs -r rm -f <"$work/beside"
}

# Of a run that failed: they take room, and hold secrets.
remove_partial_copies() {
    remove_temporary_files
    for each in "$generations"/*.part; do wipe_secrets "$each"; rm -rf "$each"; done
}

# What is above /data is the empty name, and there.
ensure_directory() {
    [ -z "$1" ] || [ -d "$1" ] && return 0
    ensure_directory "${1%/*}" || return 1
    printf '%s\n' "${1#"$prefix"}" >>"$store/dirs"
    mkdir -m 0755 "$1"
}

# What was there before bundler's file; kept before the path is recorded as bundler's.
back_up_unknown_files() {
    awk 'FILENAME == ARGV[1] { known[$2] = 1; next } !($6 in known) { print $6 }' "$work/files.before" "$work/changes" >"$work/strangers"
    while read -r path; do
        target=$prefix$path
        [ ! -e "$target" ] && [ ! -L "$target" ] || back_up_file "$store/replaced$path" || die 1 "cannot keep $path"
    done <"$work/strangers"
}

# A file of bundler's that somebody changed is kept too.
back_up_modified_files() {
    (cd "$prefix/" && awk '{ print "." $6 }' "$work/changes" | print_file_digests) | awk '
        FILENAME == ARGV[1] { known[$2] = 1; ours[$1 " " $2] = 1; next }
        FILENAME == ARGV[2] { ours[$2 " " $6] = 1; next }
        { path = substr($2, 2) }
        path in known && !(($1 " " path) in ours) { print path }' "$work/files.before" "$work/changes" - >"$work/modified"
    while read -r path; do
        target=$prefix$path
        say "  $path had been changed by hand; that version is kept in $store/modified"
        back_up_file "$store/modified$path.$(date -u +%Y%m%dT%H%M%SZ)" || die 1 "cannot keep $path"
    done <"$work/modified"
}

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

# find_secrets PATH: files of root's alone in it; not those whose content is to stay elsewhere.
find_secrets() { [ ! -e "$1" ] || find "$1" -type f -perm 0600 -links 1 2>/dev/null; }

# wipe_secrets PATH: overwritten before they go, as far as the file system writes in place.
wipe_secrets() {
    find_secrets "$1" | while read -r secret; do
        shred -u "$secret" 2>/dev/null || { head -c "$(wc -c <"$secret")" /dev/zero >"$secret.zero" && cat "$secret.zero" 1<>"$secret"; rm -f "$secret" "$secret.zero"; }
    done
}

# remove_file PATH: and what was there before bundler's comes back.
remove_file() {
    for each in "$prefix$1" "$prefix$1.bundler-new" "$prefix$1.bundler-old"; do
        wipe_secrets "$each"
        rm -f "$each" || return 1
    done
    if [ -e "$store/replaced$1" ] || [ -L "$store/replaced$1" ]; then
        mv -f "$store/replaced$1" "$prefix$1"
    fi
}
