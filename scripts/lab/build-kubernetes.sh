#!/bin/sh
# Inside the builder container: build Kubernetes' programs and pause from Debian's source package.
#
#   build-kubernetes.sh VERSION      leaves /lab/kubernetes-VERSION/{kube-apiserver,…,pause}
#
# GOPATH mode: the vendor directory of Debian's source tree has no matching module file.
set -eu
. /scripts/builder-apt.sh
version=$1
out=/lab/kubernetes-$version
programs="kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy"

use_host_apt
apt-get install -qq -y golang-1.19-go gcc libc6-dev make rsync jq dpkg-dev git ca-certificates >/tmp/apt.log 2>&1 || {
    tail -20 /tmp/apt.log
    exit 1
}
mkdir -p /build && cd /build
apt-get source -qq --download-only kubernetes >/tmp/source.log 2>&1 || {
    tail /tmp/source.log
    exit 1
}
dpkg-source --no-check -x kubernetes_*.dsc tree >/dev/null

export PATH="/usr/lib/go-1.19/bin:$PATH" GOPATH=/go GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOTOOLCHAIN=local
mkdir -p /go/src/k8s.io
ln -s /build/tree /go/src/k8s.io/kubernetes
minor=${version%.*}
cat >/build/version <<VERSION
KUBE_GIT_COMMIT=0000000000000000000000000000000000000000
KUBE_GIT_TREE_STATE=archive
KUBE_GIT_VERSION=v$version
KUBE_GIT_MAJOR=${minor%%.*}
KUBE_GIT_MINOR=${minor#*.}
VERSION
cd /go/src/k8s.io/kubernetes
what=''
for program in $programs; do what="$what cmd/$program"; done
make WHAT="${what# }" KUBE_GIT_VERSION_FILE=/build/version GOLDFLAGS='-s -w' GOFLAGS=-trimpath

rm -rf "$out.new" && mkdir -p "$out.new"
for program in $programs; do
    find _output -type f -name "$program" -path '*bin*' -exec cp {} "$out.new/" \;
    test -x "$out.new/$program"
done
gcc -Os -Wall -static -DVERSION=3.2 -o "$out.new/pause" build/pause/linux/pause.c 2>/dev/null ||
    gcc -Os -Wall -static -DVERSION=3.2 -o "$out.new/pause" build/pause/pause.c
strip "$out.new/pause"
sync
rm -rf "$out" && mv "$out.new" "$out"
