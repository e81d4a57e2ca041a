#!/bin/sh
# Copy the images of the bundle that go to the registry into its storage, as files: no program that speaks the
# registry's protocol is needed, and a run that is killed is continued by the next one.
#
# Usage: registry-seed.sh STORAGE         run by kube-registry-seed.service, as the registry's user
#
# lib/registry.tsv of the bundle names blobs, and the links by which a repository has them (the layout is in
# distribution's registry/storage/paths.go). A blob is checked before it gets its name, and a link is written after what
# it names, so that a client finds an image whole or not at all. Links of images that the bundle no longer has are
# removed; garbage collection frees their space.
#
# STORAGE/.bundler-seeded     the links that this script made, or was about to make
# STORAGE/.bundler-complete   the digest of the list whose images are all there
#
# Exit code: 0 all images are there, 1 it failed, 2 wrong usage.
# DESTDIR    prepended to all paths
set -u
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
prefix=${DESTDIR:-}
list=$prefix/opt/k8s/bundle/lib/registry.tsv
sources=$prefix/opt/k8s/images/blobs/sha256
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
# shellcheck source=/dev/null # next to this script
. "$here/registry-storage.sh" || exit 1

main() {
    [ $# -eq 1 ] || {
        echo "usage: registry-seed.sh STORAGE" >&2
        exit 2
    }
    storage=$prefix$1 root=$prefix$1/docker/registry/v2
    seeded=$storage/.bundler-seeded complete=$storage/.bundler-complete new=$storage/.bundler-new
    umask 077
    rm -f "$new"
    mkdir -p "$root/blobs/sha256" "$root/repositories" || fail "cannot write in $root"
    [ -r "$list" ] || fail "cannot read $list: run install.sh of the bundle"
    written=0
    record_links
    copy_blobs
    write_links
    remove_links
    digest_of "$list" | put "$complete" || exit 1
    echo "images in the registry: $(grep -c '^tag' "$list"), files written: $written"
}

fail() {
    echo "registry-seed.sh: $*" >&2
    exit 1
}

# note_change: from now until the end the images are not complete.
note_change() {
    [ "$written" -gt 0 ] || rm -f "$complete"
    written=$((written + 1))
}

# A run that is killed may have made any of these links.
record_links() {
    {
        [ ! -f "$seeded" ] || cat "$seeded"
        list_links
    } | sort -u | put "$seeded" || exit 1
}

list_links() { grep -e '^manifest	' -e '^tag	' "$list"; }

copy_blobs() {
    while IFS='	' read -r kind _ digest size; do
        [ "$kind" = blob ] || continue
        ! has_blob "$digest" "$size" || continue
        note_change
        cp "$sources/$digest" "$new" || fail "cannot copy $sources/$digest: run install.sh of the bundle"
        [ "$(digest_of "$new")" = "$digest" ] ||
            fail "$sources/$digest is damaged: run install.sh of the bundle"
        save_blob "$digest"
    done <"$list"
    [ "$written" -eq 0 ] || sync
}

# Layers, then manifests, then tags, as they are in the list.
write_links() {
    while IFS='	' read -r kind repository digest tag; do
        case $kind in
            layer) link_layer "$repository" "$digest" ;;
            manifest) link_manifest "$repository" "$digest" ;;
            tag) link_tag "$repository" "$tag" "$digest" ;;
        esac
    done <"$list"
}

# Of images that an earlier bundle had: those of pushed images are in no list.
remove_links() {
    list_links | sort >"$new"
    sort "$seeded" | comm -23 - "$new" >"$storage/.bundler-old" || fail "cannot compare $seeded with $list"
    while IFS='	' read -r kind repository digest tag; do
        at=$root/repositories/$repository/_manifests
        case $kind in
            tag)
                # the tag may have moved to a newer image
                if [ "$(cat "$at/tags/$tag/current/link" 2>/dev/null)" = "sha256:$digest" ]; then
                    rm -rf "$at/tags/$tag"
                else
                    rm -rf "$at/tags/$tag/index/sha256/$digest"
                fi
                ;;
            manifest) rm -rf "$at/revisions/sha256/$digest" ;;
        esac || fail "cannot remove links below $at"
        echo "removed $repository${tag:+:$tag} ($digest)"
    done <"$storage/.bundler-old"
    rm -f "$storage/.bundler-old"
    list_links | put "$seeded" || exit 1
}

main "$@"
