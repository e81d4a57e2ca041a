# Files that MANIFEST names and the bundle does not bring: those that the bundle installed here has
# already (a delta: `# from-base`), and those in the payload file of the layout `split`
# (`# from-payload`). Nothing is used before its digest is known to be the one in MANIFEST.
# needs: here prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# header KEY: the value of the line `# KEY VALUE`.
header() { sed -n "s/^# $1 //p" "$here/MANIFEST"; }
print_files() { sed '/^#/d' "$1"; }
find_digest() { awk -v path="$1" '$4 == path { print $1 }' "$here/MANIFEST"; }
size_of() { awk -v path="$1" '$4 == path { print $3 }' "$here/MANIFEST"; }
is_from() { grep -qxF "# from-$1 $2" "$here/MANIFEST"; }

# refuse NAME WHAT FIX: before anything is changed.
refuse() {
    printf '%s: %s: %s\n    fix: %s\nNothing was changed.\n' "${0##*/}" "$1" "$2" "$3" >&2
    exit 3
}

check_public() {
    [ -z "$(header from-state)" ] ||
        refuse public "this bundle was made with --public-only, to be compared with another: it has no keys" "take the whole bundle"
}

# A delta goes onto the bundle that it names; onto its own result, too, since a run may be repeated.
check_base() {
    base=$(header base)
    [ -n "$base" ] && ! is_generation || return 0
    whole="take this node's whole bundle, or build with --since and what this host has (/opt/k8s/bundle/MANIFEST)"
    installed=$prefix/opt/k8s/bundle/MANIFEST
    [ -f "$installed" ] || refuse base "this bundle is a change to another ($(shorten "$base")), and none is installed here" "$whole"
    found=$(print_files "$installed" | print_digest)
    case $found in
        "$base" | "$(print_files "$here/MANIFEST" | print_digest)") ;;
        *) refuse base "this bundle is a change to $(shorten "$base"), and this host has $(shorten "$found")" "$whole" ;;
    esac
    altered=$(list_altered)
    [ -z "$altered" ] || refuse base "this bundle leaves out files that the host should have, and they are not as they were installed:
$(printf '%s\n' "$altered" | sed 's/^/    /')" "take this node's whole bundle: it puts them right"
}

shorten() { printf '%.16s' "$1"; }

list_altered() {
    header from-base | awk -v prefix="$prefix" 'FILENAME == ARGV[1] { kept[$1] = 1; next }
        $4 in kept && $4 ~ /^rootfs\// { print $1, prefix substr($4, 7) }' - "$here/MANIFEST" >"$work/kept"
    awk '{ print $2 }' "$work/kept" | print_file_digests |
        awk -v skip="${#prefix}" 'FILENAME == ARGV[1] { actual[$2] = $1; next }
            actual[$2] == "" { print substr($2, skip + 1) ": missing"; next }
            actual[$2] != $1 { print substr($2, skip + 1) ": altered" }' - "$work/kept"
}

# What this run takes out of the payload is there, and is what MANIFEST says.
check_external_files() {
    if is_generation; then return; fi
    [ -z "$payload" ] || open_payload
    awk '{ print $5 }' "$work/changes" >"$work/needed"
    header from-payload | grep -xF -f "$work/needed" >"$work/from-payload"
    [ -s "$work/from-payload" ] || return 0
    [ -n "$payload" ] || refuse payload "$(count_lines <"$work/from-payload") files of this bundle are in $(payload_name).tar" \
        "run install.sh --payload $(payload_name).tar (or the directory that it was unpacked to)"
    check_payload_files
}

payload_name() { printf 'payload-%.16s' "$(header payload)"; }

# Finds the file or the directory, and proves it to be the payload that MANIFEST names.
open_payload() {
    name=$(payload_name) wanted=$(header payload)
    if [ -z "$wanted" ]; then payload=''; warn "--payload is not needed: this bundle brings everything itself"; return; fi
    for place in "$payload/$name.tar" "$payload/$name"; do
        [ ! -e "$place" ] || payload=$place
    done
    read_payload_file SHA256SUMS >"$work/payload.sums" 2>/dev/null
    [ "$(print_digest <"$work/payload.sums")" != "$wanted" ] || return 0
    found=no
    if [ -d "$payload" ]; then
        [ ! -f "$payload/SHA256SUMS" ] || found=payload-$(print_digest <"$payload/SHA256SUMS" | cut -c1-16)
    else
        found=$(tar -tf "$payload" 2>/dev/null | sed -n '1s/\/SHA256SUMS$//p')
    fi
    case $found in
        "$name") refuse payload "$payload is damaged" "copy $name.tar again, compare it with SHA256SUMS" ;;
        payload-*) refuse payload "$payload is $found, and this bundle needs $name" "give $name.tar, of the same build" ;;
        *) refuse payload "$payload is no payload (or a volume of one)" "give $name.tar; volumes are joined with join.sh" ;;
    esac
}

# read_payload_file NAME: out of the payload, as it lies there.
read_payload_file() {
    if [ -d "$payload" ]; then cat "$payload/$1"; else tar -xOf "$payload" "$(payload_name)/$1"; fi
}

check_payload_files() {
    bad=$(
        while read -r source; do
            member=$(find_digest "$source").tar.gz
            listed=$(awk -v name="$member" '$2 == name { print $1 }' "$work/payload.sums")
            [ "$(read_payload_file "$member" 2>/dev/null | print_digest)" = "${listed:-none}" ] || printf '%s ' "$source"
        done <"$work/from-payload"
    )
    [ -z "$bad" ] || refuse payload "$payload is damaged or cut off; in it are bad or missing: $bad" "copy $(payload_name).tar again, compare it with SHA256SUMS"
}

# provide SOURCE TARGET: a file of the bundle, from wherever it is. What came is looked at once it is
# there (check_copies): the source may change at any moment.
provide() {
    if [ "$1" = MANIFEST ]; then cp "$work/MANIFEST" "$2"; return; fi
    if [ -f "$here/$1" ]; then cp "$here/$1" "$2"; return; fi
    if is_from base "$1"; then
        cp "$prefix${1#rootfs}" "$2"
    else
        wanted=$(find_digest "$1")
        read_payload_file "$wanted.tar.gz" | gzip -dc | tar -xOf - "$wanted" >"$2"
    fi
}
