# Files that MANIFEST names and the bundle does not contain: `# from-base` files of a delta are installed on this
# host already; `# from-payload` files of the layout `split` are in the payload file. No file is used before its
# digest is the one in MANIFEST.
# needs: here manifest prefix secrets work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# header KEY: the values of the lines `# KEY VALUE` of MANIFEST.
header() {
    while read -r header_mark header_key header_value; do
        [ "$header_mark $header_key" != "# $1" ] || printf '%s\n' "$header_value"
    done <"$here/MANIFEST"
}
print_files() { sed '/^#/d' "$1"; }
print_public_files() { awk '!/^#/ && $2 != "0600"' "$1"; }
find_digest() { awk -v path="$1" '$4 == path { print $1 }' "$manifest"; }
is_from() { grep -qxF "# from-$1 $2" "$here/MANIFEST"; }

# refuse NAME WHAT FIX: before anything is changed.
refuse() {
    printf '%s: %s: %s\n    fix: %s\nNothing was changed.\n' "${0##*/}" "$1" "$2" "$3" >&2
    exit 3
}

check_public() {
    [ -z "$(header from-state)" ] ||
        refuse public "this bundle was built with --public-only, to be compared with another: it has no keys" \
            "take the complete bundle"
}

# The lines of MANIFEST that begin with # name the base or the payload of the files that they leave out: without the
# name nothing compares these files before they are copied.
check_sources() {
    fault=$(awk '
        /^# (base|payload|seal|seal-key|sealed-to) [0-9a-f]+$/ { named[$2] = 1; next }
        /^# from-(base (rootfs|packages)|payload rootfs|seal rootfs)\// { used[substr($2, 6)] = 1; next }
        /^#/ { print "line " NR " of MANIFEST is not as bundler writes it" }
        END {
            for (source in used)
                if (!(source in named)) print "MANIFEST has `# from-" source "`, and no `# " source "`"
        }
    ' "$here/MANIFEST")
    [ -z "$fault" ] || refuse manifest "this bundle is not as it was built: $fault" \
        "copy the tarball again, compare it with SHA256SUMS, and unpack it into an empty directory"
}

# A delta needs the bundle that it names, or its own result: a run may be repeated. The name leaves out secret files,
# which every bundle has: a sealed one must not tell anything about them.
check_base() {
    base=$(header base)
    [ -n "$base" ] && ! is_generation || return 0
    fix="take this node's complete bundle, or build with --since and what this host has (/opt/k8s/bundle/MANIFEST)"
    installed=$prefix/opt/k8s/bundle/MANIFEST
    [ -f "$installed" ] || refuse base \
        "this bundle is a change to another ($(shorten "$base")), and no bundle is installed here" "$fix"
    found=$(print_public_files "$installed" | print_digest)
    case $found in
        "$base" | "$(print_public_files "$here/MANIFEST" | print_digest)") ;;
        *) refuse base "this bundle is a change to $(shorten "$base"), and this host has $(shorten "$found")" "$fix" ;;
    esac
    altered=$(list_altered)
    [ -z "$altered" ] || refuse base "this bundle leaves out files that are not on this host as they were installed:
$(printf '%s\n' "$altered" | sed 's/^/    /')" "take this node's complete bundle: it restores them"
}

shorten() { printf '%.16s' "$1"; }

# Files that the delta takes from this host, and that are not as they were installed.
list_altered() (
    header from-base | awk 'FILENAME == ARGV[1] { kept[$1] = 1; next }
        $4 in kept && $4 ~ /^rootfs\// { print $1, "." substr($4, 7) }' - "$here/MANIFEST" >"$work/kept"
    cd "$prefix/" || exit
    awk '{ print $2 }' "$work/kept" | print_file_digests |
        awk 'FILENAME == ARGV[1] { actual[$2] = $1; next }
            { digest = actual["*" $2] }
            digest != $1 { print substr($2, 2) (digest == "" ? ": missing" : ": altered") }' - "$work/kept"
)

# Every file that this run needs from the payload is there and is the one in MANIFEST.
check_external_files() {
    if is_generation; then return 0; fi
    [ -z "$payload" ] || open_payload
    awk 'FILENAME == ARGV[1] { needed[$5] = 1; next }
        /^# from-payload / && $3 in needed { print $3 }' "$work/changes" "$manifest" >"$work/from-payload"
    [ -s "$work/from-payload" ] || return 0
    [ -n "$payload" ] || refuse payload \
        "$(count_lines <"$work/from-payload") files of this bundle are in $(payload_name).tar" \
        "run install.sh --payload $(payload_name).tar (or the directory that it was unpacked to)"
    check_payload_files
}

payload_name() { printf 'payload-%.16s' "$(header payload)"; }

# Set `payload` to the file or directory, which must be the payload that MANIFEST names.
open_payload() {
    name=$(payload_name) wanted=$(header payload)
    if [ -z "$wanted" ]; then
        payload=''
        warn "--payload is not needed: this bundle contains all its files"
        return 0
    fi
    for place in "$payload/$name.tar" "$payload/$name"; do
        [ ! -e "$place" ] || payload=$place
    done
    read_payload_file SHA256SUMS >"$work/payload.sums" 2>/dev/null
    [ "$(print_digest <"$work/payload.sums")" != "$wanted" ] || return 0
    found=no
    if [ -d "$payload" ]; then
        [ ! -f "$payload/SHA256SUMS" ] || found=payload-$(shorten "$(print_digest <"$payload/SHA256SUMS")")
    else
        found=$(tar -tf "$payload" 2>/dev/null | sed -n '1s/\/SHA256SUMS$//p')
    fi
    case $found in
        "$name") refuse payload "$payload is damaged" "copy $name.tar again, compare it with SHA256SUMS" ;;
        payload-*)
            refuse payload "$payload is $found, and this bundle needs $name" "give $name.tar, of the same build"
            ;;
        *)
            refuse payload "$payload is not a payload (or it is one volume of it)" \
                "give $name.tar; join volumes with join.sh"
            ;;
    esac
}

# read_payload_file NAME
read_payload_file() {
    if [ -d "$payload" ]; then cat "$payload/$1"; else tar -xOf "$payload" "$(payload_name)/$1"; fi
}

check_payload_files() {
    bad=$(
        while read -r source; do
            member=$(find_digest "$source").tar.gz
            listed=$(awk -v name="$member" '$2 == name { print $1 }' "$work/payload.sums")
            found=$(read_payload_file "$member" 2>/dev/null | print_digest)
            [ "$found" = "${listed:-none}" ] || printf '%s ' "$source"
        done <"$work/from-payload"
    )
    [ -z "$bad" ] || refuse payload "$payload is damaged or truncated; bad or missing files in it: $bad" \
        "copy $(payload_name).tar again, compare it with SHA256SUMS"
}

# copy_bundle_file SOURCE TARGET: from the bundle, its seal, the installed files or the payload. The copy is checked
# later (check_copies), because the source may change at any moment.
copy_bundle_file() {
    if [ "$1" = MANIFEST ]; then
        cp "$work/MANIFEST" "$2"
    elif [ -f "$here/$1" ]; then
        cp "$here/$1" "$2"
    elif [ -n "$secrets" ] && [ -f "$secrets/$1" ]; then
        cp "$secrets/$1" "$2"
    elif is_from base "$1"; then
        cp "$prefix${1#rootfs}" "$2"
    else
        wanted=$(find_digest "$1")
        read_payload_file "$wanted.tar.gz" | gzip -dc | tar -xOf - "$wanted" >"$2"
    fi
}
