#!/bin/sh
# Download the source archive of Debian's package of Kubernetes with this machine's own package sources.
#
#   kubernetes-archive.sh DIR      leaves DIR/kubernetes_VERSION.orig.tar.gz, and prints its path
#
# apt's lists and settings of the machine stay as they are: apt gets directories of its own below DIR.
set -eu
mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial" "$1/apt/sources"
cd "$1"
dir=$PWD

main() {
    command -v apt-get >/dev/null || fail "there is no apt-get"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$file" ] || sed 's/^Types:.*/Types: deb-src/; s/^deb /deb-src /' "$file" >"$dir/apt/sources/${file##*/}"
    done
    [ ! -f "$dir/apt/sources/sources.list" ] || mv "$dir/apt/sources/sources.list" "$dir/apt/sources/main.list"
    apt update >"$dir/apt/log" 2>&1 || fail "apt-get update failed, see $dir/apt/log"
    apt source --download-only kubernetes >>"$dir/apt/log" 2>&1 || fail "no source package kubernetes, see $dir/apt/log"
    find "$dir" -maxdepth 1 -name 'kubernetes_*.orig.tar.gz'
}

apt() {
    apt-get -qq -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt" -o Dir::Etc::sourcelist=/dev/null \
        -o Dir::Etc::sourceparts="$dir/apt/sources" -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User="" "$@"
}

fail() {
    echo "kubernetes-archive.sh: $*" >&2
    exit 1
}

main
