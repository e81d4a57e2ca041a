#!/bin/sh
# Kubernetes' own conformance tests: their programs, and the images that they name, in <lab cache>.
#
#   conformance.sh          make what is missing or was made by another recipe
#
# Needs what artifacts.sh made from Debian's packages. Leaves build/conformance-VERSION/{e2e.test,ginkgo} and
# conformance/images.tsv with a line for each image: its reference and its archive.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
kubernetes=1.20.2
programs=$LAB_CACHE/build/conformance-$kubernetes made=$LAB_CACHE/conformance

main() {
    [ -x "$LAB_CACHE/build/kubernetes-$kubernetes/kubectl" ] ||
        fail "Kubernetes was not compiled here, so its conformance tests are not. Fix: BUNDLER_LAB_SOURCE=debian make lab"
    ensure programs "$(program_key)" "$programs/key"
    ensure images "$(program_key && image_key)" "$made/key"
}

# ensure WHAT KEY FILE: make it, if the file does not have its key.
ensure() {
    [ "$(cat "$3" 2>/dev/null)" != "$2" ] || return 0
    "make_$1"
    printf '%s\n' "$2" >"$3"
}

program_key() { cat "$here/conformance/build.sh" "$here/kubernetes-source.sh" | sha256sum | cut -c1-16; }
image_key() {
    (cd "$here/conformance" && find . -type f ! -name build.sh -exec sha256sum {} + | sort | sha256sum | cut -c1-16)
    sha256sum "$here/conformance.sh" | cut -c1-16
}

make_programs() {
    say "building Kubernetes' conformance tests from Debian's source package (about 10 minutes on 2 cores)"
    run_logged build "$LAB_CACHE/build" build.sh
}

make_images() {
    say "making the images that the conformance tests name"
    run_logged images "$LAB_CACHE" make-roots.sh
    rm -rf "$made/images"
    mkdir -p "$made/images"
    : >"$made/images.tsv.new"
    while IFS="$(printf '\t')" read -r ref root changes _; do
        case $ref in '#'*) continue ;; esac
        make_image "$ref" "$root" "$changes"
    done <"$here/conformance/images.tsv"
    mv "$made/images.tsv.new" "$made/images.tsv"
}

# make_image REF ROOT CHANGES
make_image() {
    archive=images/$(printf '%s' "$1" | tr '/:' '__').tar
    set -- "$1" "$2" "$(printf '%s' "$3" | tr ';' '\n')"
    printf '%s\n' "$3" | {
        set -- "$1" "$2"
        while read -r change; do set -- "$@" --change "$change"; done
        name=$1 root=$2
        shift 2
        docker import "$@" "$made/roots/$root.tar" "$name" >/dev/null
    }
    docker save -o "$made/$archive" "$1"
    docker rmi "$1" >/dev/null
    printf '%s\t%s\n' "$1" "$archive" >>"$made/images.tsv.new"
}

# run_logged NAME DIRECTORY SCRIPT: in the builder container, with its output in a file. It gives way to other work.
run_logged() {
    log=$LAB_CACHE/conformance-$1.log
    "$here/builder.sh" run "$2" nice -n 19 sh "/scripts/conformance/$3" $kubernetes >"$log" 2>&1 || {
        tail -20 "$log" >&2
        fail "$3 failed (log: $log)"
    }
}

main
