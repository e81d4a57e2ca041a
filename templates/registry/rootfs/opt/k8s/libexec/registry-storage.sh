# The storage of distribution's registry, for registry-seed.sh and registry-copy.sh: the layout is in its
# registry/storage/paths.go.
# needs: new root, and the functions fail and note_change
# sets: directory
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# put FILE: stdin, under its name only when it is whole.
put() {
    if ! cat >"$new" || ! mv -f "$new" "$1"; then fail "cannot write $1"; fi
}

# find_blob DIGEST: `directory` of the blob, below the first two digits.
find_blob() { directory=$root/blobs/sha256/${1%"${1#??}"}/$1; }

# has_blob DIGEST BYTES: only a rename makes `data`, so a file of the right size is whole; but a power cut may leave it
# empty. BYTES may be - if nobody says them.
has_blob() {
    find_blob "$1"
    case $2 in
        -) [ -s "$directory/data" ] ;;
        *) [ -n "$(find "$directory/data" -size "${2}c" 2>/dev/null)" ] ;;
    esac
}

# save_blob DIGEST: the file $new, which was checked, under its name.
save_blob() {
    find_blob "$1"
    mkdir -p "$directory" || fail "cannot write in $directory"
    mv -f "$new" "$directory/data" || fail "cannot write $directory/data"
}

# digest_of FILE
digest_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

# link DIRECTORY DIGEST
link() {
    [ "$(cat "$1/link" 2>/dev/null)" != "sha256:$2" ] || return 0
    note_change
    mkdir -p "$1" || fail "cannot write in $1"
    printf 'sha256:%s' "$2" | put "$1/link" || exit 1
}

link_layer() { link "$root/repositories/$1/_layers/sha256/$2" "$2"; }

link_manifest() { link "$root/repositories/$1/_manifests/revisions/sha256/$2" "$2"; }

# link_tag REPOSITORY TAG DIGEST
link_tag() {
    link "$root/repositories/$1/_manifests/tags/$2/index/sha256/$3" "$3"
    link "$root/repositories/$1/_manifests/tags/$2/current" "$3"
}
