#!/bin/sh
# Inside the builder container: build Kubernetes' programs and pause from Debian's source package.
#
#   build-kubernetes.sh VERSION      leaves /lab/kubernetes-VERSION/{kube-apiserver,…,pause}
set -eu
. /scripts/builder-apt.sh
. /scripts/kubernetes-source.sh
version=$1
out=/lab/kubernetes-$version

enter_kubernetes_source "$version"
rm -rf "$out.new"
make_kubernetes "$out.new" cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubectl cmd/kubelet cmd/kube-proxy
gcc -Os -Wall -static -DVERSION=3.2 -o "$out.new/pause" build/pause/linux/pause.c 2>/dev/null ||
    gcc -Os -Wall -static -DVERSION=3.2 -o "$out.new/pause" build/pause/pause.c
strip "$out.new/pause"
sync
rm -rf "$out" && mv "$out.new" "$out"
