# Delete directories of programs, and never what is mounted in them: a volume, or a disk of its own.
# needs: here live prefix
# sets: stays still_mounted
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

# list_mounts PATH: "at|made|other POINT" of what is mounted at or below it (mount-points.awk). Links are resolved,
# since the table has none.
list_mounts() {
    mounts_below=$(readlink -f "$1") || return 0
    mounts_made="$(readlink -f "$prefix$KUBELET_ROOT/pods") $(readlink -f "$prefix$KUBELET_ROOT/plugins")"
    BELOW=$mounts_below MADE=$mounts_made awk -f "$here/lib/transaction/mount-points.awk" "$live/proc/self/mountinfo"
}

# unmount_below PATH: volumes of pods and file systems of containers, the newest first, since it may hide others. A disk
# that somebody else mounted stays. Returns 1 if something is still mounted below the path, and sets still_mounted: then
# nothing may be deleted there.
unmount_below() {
    mounts=$(list_mounts "$1") || {
        still_mounted="unknown, since $live/proc/self/mountinfo cannot be read"
        return 1
    }
    is_staged || printf '%s\n' "$mounts" | sed -n 's/^made //p' | while read -r point; do
        umount -l "$(decode_point "$point")" # detached at once, even if a server does not answer
    done
    mounts=$(list_mounts "$1") || return 1
    still_mounted=$(printf '%s\n' "$mounts" | sed '/^at /d; s/^[a-z]* //' | tr '\n' ' ')
    still_mounted=${still_mounted% }
    [ -z "$still_mounted" ]
}

# printf reads \0040, the table has \040.
decode_point() { printf '%b\n' "$(printf '%s\n' "$1" | sed 's/\\/\\0/g')"; }

# remove_tree PATH: of a link, and of a disk that is mounted there, only the content; then `stays` says so. No other
# file system is entered. Returns 1 if something is mounted below it, or cannot be deleted.
remove_tree() {
    stays=''
    [ -e "$1" ] || [ -L "$1" ] || return 0
    mounts=$(list_mounts "$1") || return 1
    case $mounts in *made* | *other*) return 1 ;; esac
    if [ -d "$1" ]; then
        tree=$(cd -P "$1" && pwd -P) || return 1
        find "$tree/" -xdev -depth ! -type d -exec rm -f {} + && find "$tree/" -xdev -depth -mindepth 1 -type d \
            -exec rmdir {} + || return 1
        if [ -L "$1" ]; then
            stays="; $1 is a link and is kept, its target $tree is empty"
        elif [ -n "$mounts" ]; then
            stays="; $1 is a file system of its own: it is empty, and still mounted"
        else
            rmdir "$tree"
        fi
    else
        rm -f "$1"
    fi
}
