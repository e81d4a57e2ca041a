# Compare the bundle with its MANIFEST, which has "sha256 mode size path" a line; paths have no spaces. Lines that
# begin with # name files that the bundle does not contain: see transaction/payload.sh.
# needs: here work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# Every file of MANIFEST is there and has its digest, and there is no other file. install.sh itself lists what
# is missing or unknown, because check_trust needs that before this part is read.
check_manifest() {
    faults=$(list_irregular_files | sed 's|^\./|    |; s|$|: not a regular file|')
    [ -n "$faults" ] || faults=$(
        list_manifest_differences
        list_bundled_files | awk '{ print $1, $4 }' >"$work/bundled"
        list_damaged_files "$here" "$work/bundled"
    )
    [ -n "$faults" ] || return 0
    {
        echo "${0##*/}: manifest: this bundle is not as it was built:"
        printf '%s\n' "$faults" | awk '!seen[$0]++'
        echo "    fix: copy the tarball again, compare it with SHA256SUMS, and unpack it into an empty directory"
        echo "Nothing was changed."
    } >&2
    return 1
}

# list_damaged_files DIRECTORY LIST: the files that differ from LIST, which has "sha256 path" a line.
list_damaged_files() (
    if ! cd "$1" || ! [ -f "$2" ]; then
        echo "    $1: cannot be read"
        exit
    fi
    awk '{ print $2 }' "$2" | print_file_digests >"$work/found"
    awk 'FILENAME == ARGV[1] { found[$2] = $1; next }
        { digest = found["*" $2] }
        digest != $1 { print "    " $2 (digest == "" ? ": missing" : ": altered or damaged") }' "$work/found" "$2"
)
