#!/bin/sh
# Build what a release consists of, into a new folder:
#
#   release.sh FOLDER
#
#   bundler_k8s-VERSION-py3-none-any.whl, bundler_k8s-VERSION.tar.gz    wheel and source distribution
#   bundler-VERSION-PYTHON-PLATFORM.pyz    all of it in one file, for builders without a package index
#   requirements.txt                       every dependency with its version and the hashes of its files
#   SHA256SUMS
#
# The wheel, the source distribution and the zipapp are the same bytes at every run from the same commit and
# requirements.txt: their times are the commit's.
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
python=$project/.venv/bin/python

fail() {
    printf 'release: %s\n' "$*" >&2
    exit 1
}

main() {
    [ $# -eq 1 ] || fail "usage: release.sh FOLDER"
    output=$1
    [ -z "$(git -C "$project" status --porcelain)" ] || fail "uncommitted changes. Fix: commit or stash them"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    SOURCE_DATE_EPOCH=$(git -C "$project" log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    "$python" -m pip install --quiet --disable-pip-version-check --editable "${project}[release]"
    build_distributions
    cp "$work/source/requirements.txt" "$work/release/"
    build_zipapp
    (cd "$work/release" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
    mkdir -p "$(dirname "$output")"
    rm -rf "$output"
    mv "$work/release" "$output"
    cat "$output/SHA256SUMS"
}

# From a clean copy of the commit: no untracked file gets into the distributions.
build_distributions() {
    mkdir -p "$work/source" "$work/release"
    git -C "$project" archive HEAD | tar -xf - -C "$work/source"
    "$python" -m build --outdir "$work/release" "$work/source" >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        fail "wheel and source distribution cannot be built"
    }
}

# Programs compiled for one Python and one platform are in it, so its name says both.
build_zipapp() {
    version=$("$python" -c 'import bundler; print(bundler.__version__)')
    tags=$("$python" -c 'import sys, sysconfig
print("cp%d%d-%s" % (*sys.version_info[:2], sysconfig.get_platform().replace("-", "_")))')
    pip="$python -m pip install --quiet --disable-pip-version-check --no-compile --target $work/packages"
    $pip --require-hashes --requirement "$work/release/requirements.txt"
    $pip --no-deps "$work/release/"*.whl
    rm -rf "$work/packages/bin"
    "$project/.venv/bin/shiv" --reproducible --site-packages "$work/packages" --console-script bundler \
        --python '/usr/bin/env python3' --output-file "$work/release/bundler-$version-$tags.pyz" >/dev/null
}

main "$@"
