# The bundle against its MANIFEST: "sha256 mode size path" a line, paths without spaces. Lines with
# a # say what the bundle does not bring itself; lib/transaction/payload.sh knows where that comes from.
# needs: here work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

# Every listed file is what the list says, and nothing else lies here. What lies where it should not
# install.sh lists itself: check_trust asks before this file is read.
check_manifest() {
    faults=$(list_irregular_files | sed 's|^\./|    |; s|$|: no plain file|')
    [ -n "$faults" ] || faults=$({ list_manifest_differences; list_bundled_files | awk '{ print $1, $4 }' | list_faults_below "$here"; } | awk '!seen[$0]++')
    [ -n "$faults" ] || return 0
    {
        echo "${0##*/}: manifest: this bundle is not as it was built:"
        printf '%s\n' "$faults"
        echo "    fix: copy the tarball again, compare it with SHA256SUMS, and unpack it into an empty directory"
        echo "Nothing was changed."
    } >&2
    return 1
}

# list_faults_below DIRECTORY: "sha256 path" on stdin → what is not so there.
list_faults_below() (
    if ! cat >"$work/wanted" || ! cd "$1"; then echo "    $1: cannot be looked at"; exit; fi
    awk '{ print $2 }' "$work/wanted" | print_file_digests >"$work/found"
    awk 'FILENAME == ARGV[1] { found[$2] = $1; next }
        found[$2] != $1 { print "    " $2 (found[$2] == "" ? ": missing" : ": altered or damaged") }' "$work/found" "$work/wanted"
)
