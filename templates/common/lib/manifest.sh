# The bundle against its MANIFEST: "sha256 mode size path" a line, paths without spaces. Lines with
# a # say what the bundle does not bring itself; lib/absent.sh knows where that comes from.
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

# Every listed file is what the list says, and nothing lies in the bundle's folders beyond it.
check_manifest() {
    if is_generation; then
        print_files "$here/MANIFEST" | awk '$4 ~ /^packages\// { print $4 }'
    else
        awk '/^# from-/ { print $3 }' "$here/MANIFEST"
    fi >"$work/absent"
    awk 'FILENAME == ARGV[1] { absent[$1] = 1; next } !/^#/ && !($4 in absent)' "$work/absent" "$here/MANIFEST" >"$work/carried"
    (cd "$here" && awk '{ print $4 }' "$work/carried" | print_digests) >"$work/actual"
    faults=$(
        awk 'FILENAME == ARGV[1] { actual[$2] = $1; next }
            !($4 in actual) { print $4 ": missing"; next }
            actual[$4] != $1 { print $4 ": altered or damaged" }' "$work/actual" "$work/carried"
        (cd "$here" && find rootfs images packages lib -type f 2>/dev/null; find rootfs images packages lib -type l 2>/dev/null) |
            awk 'FILENAME == ARGV[1] { listed[$4] = 1; next } !($0 in listed) { print $0 ": not in the manifest" }' "$work/carried" -
    )
    [ -z "$faults" ] && return 0
    {
        echo "${0##*/}: manifest: this bundle is not as it was built:"
        printf '%s\n' "$faults" | sed 's/^/    /'
        echo "    fix: copy the tarball again, compare it with SHA256SUMS, and unpack it into an empty directory"
        echo "Nothing was changed."
    } >&2
    return 1
}
