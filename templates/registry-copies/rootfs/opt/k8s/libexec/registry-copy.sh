#!/bin/sh
# Copy what users have pushed to another host of the registry: its tags, with the manifests and blobs that they name.
# openssl asks the port for pulls, and files are written as registry-seed.sh does, so that a run that is killed is
# continued by the next one, and a client finds an image whole or not at all.
#
# Usage: registry-copy.sh STORAGE PORT follow ADDRESS
#        registry-copy.sh STORAGE PORT restore ADDRESS...
#
# follow      every time: the host ADDRESS accepts the pushes, and tags here follow those there. What was deleted there
#             stays here: a host with an empty disk must not empty the others.
# restore     of the host that accepts pushes itself: once, when its storage is new. Tags that it has stay.
#
# STORAGE/.bundler-restored   this storage has what the other hosts had
#
# Exit code: 0 everything is copied, 1 something is not (the reason is printed), 2 wrong usage.
# CERTIFICATES  the CA certificates of the hosts' registries (default: /etc/kube-registry/pki/ca.crt)
# DESTDIR       prepended to all paths
# PAGE          how many repositories are asked for at once (default 500)
# shellcheck disable=SC2034,SC2154 # the parts share the variables
set -u
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
prefix=${DESTDIR:-}
certificates=${CERTIFICATES:-$prefix/etc/kube-registry/pki/ca.crt}
seeds=$prefix/opt/k8s/bundle/lib/registry.tsv
work=$prefix/run/kube-registry-copy
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
page=${PAGE:-500}
lib=$prefix/opt/k8s/bundle/lib
for part in "$lib/core/environment.sh" "$lib/core/https.sh" "$lib/registry.sh" "$here/registry-storage.sh"; do
    # shellcheck source=/dev/null # of the installed bundle, and next to this script
    . "$part" || exit 1
done

main() {
    case $#-${3:-} in
        4-follow | [4-9]-restore) ;;
        *)
            echo "usage: registry-copy.sh STORAGE PORT follow|restore ADDRESS..." >&2
            exit 2
            ;;
    esac
    storage=$prefix$1 root=$prefix$1/docker/registry/v2 port=$2 mode=$3
    new=$storage/.bundler-copy restored=$storage/.bundler-restored
    shift 3
    [ "$mode" = follow ] || [ ! -e "$restored" ] || exit 0
    umask 077
    mkdir -p "$work" "$root/blobs/sha256" "$root/repositories" || fail "cannot write in $root or $work"
    trap 'rm -f "$new" "$work"/*' EXIT
    header=$(print_manifest_header)
    problems=0 written=0 tags=0
    for address; do copy_all; done
    [ "$written" -eq 0 ] || echo "tags: $tags, files written: $written"
    [ "$problems" -eq 0 ] || exit 1
    [ "$mode" = follow ] || : >"$restored" || fail "cannot write $restored"
}

fail() {
    echo "registry-copy.sh: $*" >&2
    exit 1
}

# report WHAT: it is not copied now; the next run tries again.
report() {
    echo "not copied from $address: $1" >&2
    problems=$((problems + 1))
}

note_change() { written=$((written + 1)); }

copy_all() {
    last=''
    while fetch "_catalog?n=$page${last:+&last=$last}" "$work/catalog"; do
        list_strings repositories "$work/catalog" >"$work/repositories" || {
            report "$(describe _catalog)"
            return 0
        }
        former=$last
        while read -r repository; do
            last=$repository
            is_repository || continue
            # those of the bundle are here already
            cut -f 2 "$seeds" 2>/dev/null | grep -qxF -e "$repository" || copy_repository
        done <"$work/repositories"
        if [ "$(wc -l <"$work/repositories")" -lt "$page" ] || [ "$last" = "$former" ]; then return 0; fi
    done
    report "$(describe _catalog)"
}

is_repository() {
    case /$repository/ in
        *[!a-z0-9._/-]* | */[!a-z0-9]* | *[!a-z0-9]/* | *..*)
            report "the name of the repository $repository is not valid"
            return 1
            ;;
    esac
}

copy_repository() {
    fetch "$repository/tags/list" "$work/tags"
    case $status in
        404) return 0 ;; # its last tag is gone
        200) ;;
        *)
            report "$(describe "$repository/tags/list")"
            return 0
            ;;
    esac
    list_strings tags "$work/tags" >"$work/names" || {
        report "$(describe "$repository/tags/list")"
        return 0
    }
    while read -r tag; do
        case $tag in *[!A-Za-z0-9_.-]* | [.-]*)
            report "the tag $repository:$tag is not valid"
            continue
            ;;
        esac
        current=$root/repositories/$repository/_manifests/tags/$tag/current/link
        [ "$mode" = follow ] || [ ! -e "$current" ] || continue
        copy_tag </dev/null && tags=$((tags + 1))
    done <"$work/names"
}

# copy_tag: blobs, then manifests, then the tag.
copy_tag() {
    fetch "$repository/manifests/$tag" "$work/top"
    [ "$status" != 404 ] || return 1 # it was deleted meanwhile
    [ "$status" = 200 ] || {
        report "$(describe "$repository/manifests/$tag")"
        return 1
    }
    top=$(digest_of "$work/top")
    [ "$top" = "$named" ] || {
        report "$(describe "$repository/manifests/$tag")"
        return 1
    }
    if [ "$(cat "$current" 2>/dev/null)" = "sha256:$top" ] &&
        [ -e "$root/repositories/$repository/_manifests/revisions/sha256/$top/link" ]; then
        return 0
    fi
    if is_index "$work/top"; then
        list_descriptors "$work/top" >"$work/children"
        while read -r child _; do
            fetch "$repository/manifests/sha256:$child" "$work/manifest"
            # An index may name architectures that nobody pushed: the registry here serves it as the other one does.
            [ "$status" != 404 ] || continue
            if [ "$status" != 200 ] || [ "$(digest_of "$work/manifest")" != "$child" ]; then
                report "$(describe "$repository@sha256:$child")"
                return 1
            fi
            copy_manifest "$work/manifest" "$child" || return 1
        done <"$work/children"
        store_manifest "$work/top" "$top"
    else
        copy_manifest "$work/top" "$top" || return 1
    fi
    link_tag "$repository" "$tag" "$top"
}

# copy_manifest FILE DIGEST: what the manifest of one architecture names, then itself.
copy_manifest() {
    list_descriptors "$1" >"$work/blobs"
    before=$written
    while read -r digest size; do copy_blob </dev/null || return 1; done <"$work/blobs"
    [ "$written" = "$before" ] || sync
    while read -r digest _; do link_layer "$repository" "$digest"; done <"$work/blobs"
    store_manifest "$1" "$2"
}

copy_blob() {
    ! has_blob "$digest" "$size" || return 0
    fetch "$repository/blobs/sha256:$digest" "$new"
    if [ "$status" != 200 ] || [ "$(digest_of "$new")" != "$digest" ]; then
        report "$(describe "$repository@sha256:$digest")"
        return 1
    fi
    note_change
    save_blob "$digest"
}

store_manifest() {
    has_blob "$2" - || {
        note_change
        cp "$1" "$new" || fail "cannot write $new"
        save_blob "$2"
    }
    link_manifest "$repository" "$2"
}

# fetch PATH FILE: the body of the answer; sets status, 000 without an answer, and the digest that the registry names.
fetch() {
    case $1 in */blobs/*) HTTPS_TIMEOUT=3600 ;; *) HTTPS_TIMEOUT=60 ;; esac
    answer=$(https_save "$2" "${header%_}" "$address" "$port" "/v2/$1" "$certificates")
    status=$(printf '%s\n' "$answer" | sed 1q)
    named=$(printf '%s\n' "$answer" | awk 'tolower($1) == "docker-content-digest:" { print substr($2, 8) }')
    [ "$status" = 200 ]
}

# describe WHAT: why the last request did not give it.
describe() {
    case $status in
        200) echo "$1: the answer is damaged" ;;
        507) echo "$1: it cannot be written below $storage or $work" ;;
        *) echo "$1: $(describe_answer "$answer")" ;;
    esac
}

# list_strings KEY FILE: the strings of a list, one a line; an error if the answer is not whole.
list_strings() {
    tr -d ' \n\t' <"$2" | awk -v key="\"$1\":" '
        { text = text $0 }
        END {
            at = index(text, key)
            if (!at || text !~ /}$/) exit 1
            text = substr(text, at + length(key))
            if (text ~ /^null/) exit 0
            count = split(substr(text, 1, index(text, "]")), part, "\"")
            for (i = 2; i <= count; i += 2) print part[i]
        }'
}

is_index() { tr -d ' \n\t' <"$1" | grep -q '"manifests":\['; }

# list_descriptors FILE: digest and size (or -) of what a manifest names. `subject` is another image.
list_descriptors() {
    tr -d ' \n\t' <"$1" | sed 's/"subject":{[^}]*}//' | tr '{' '\n' | tr '}' '\n' | awk '
        match($0, /"digest":"sha256:[0-9a-f]+"/) {
            digest = substr($0, RSTART + 17, RLENGTH - 18)
            size = match($0, /"size":[0-9]+/) ? substr($0, RSTART + 7, RLENGTH - 7) : "-"
            if (length(digest) == 64) print digest, size
        }'
}

main "$@"
