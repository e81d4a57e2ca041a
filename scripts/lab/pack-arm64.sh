#!/bin/sh
# Inside the builder container: the lab's artifacts for arm64. Kubernetes is cross-compiled from Debian's source
# package, and the other programs are Debian's own.
#
#   pack-arm64.sh KUBERNETES ETCD CNI CONTAINERD RUNC
#
# Leaves /lab/mirror/<upstream host>/<upstream path>, and /lab/rootfs/{pause,nginx}.tar.
set -eu
. /scripts/builder-apt.sh
. /scripts/kubernetes-source.sh
kubernetes=$1 etcd=$2 cni=$3 containerd=$4 runc=$5
work=/tmp/work root=/tmp/work/root mirror=/lab/mirror

main() {
    [ -x /lab/kubernetes/pause ] || compile_kubernetes
    use_host_apt
    dpkg --add-architecture arm64
    apt-get update -qq
    apt-get install -qq -y mmdebstrap >/dev/null 2>&1
    mkdir -p $work/deb $root /lab/rootfs
    unpack_programs
    pack_all
    pack_images
}

# The kubelet, as the others, without C: its libraries would be those of a cross compiler.
compile_kubernetes() {
    enter_kubernetes_source "$kubernetes"
    apt-get install -qq -y gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null 2>&1
    export KUBE_BUILD_PLATFORMS=linux/arm64 KUBE_STATIC_OVERRIDES=kubelet
    rm -rf /lab/kubernetes.new
    make_kubernetes /lab/kubernetes.new cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubectl \
        cmd/kubelet cmd/kube-proxy
    aarch64-linux-gnu-gcc -Os -Wall -static -DVERSION=3.2 -o /lab/kubernetes.new/pause build/pause/linux/pause.c 2>/dev/null ||
        aarch64-linux-gnu-gcc -Os -Wall -static -DVERSION=3.2 -o /lab/kubernetes.new/pause build/pause/pause.c
    rm -rf /lab/kubernetes && mv /lab/kubernetes.new /lab/kubernetes
}

unpack_programs() {
    cd $work/deb
    chmod 777 .
    apt-get download -qq etcd-server:arm64 etcd-client:arm64 containerd:arm64 runc:arm64 containernetworking-plugins:arm64
    for package in *.deb; do dpkg-deb -x "$package" $root; done
    # The programs of another processor cannot say their version here: Debian's packages have it in their names.
    for wanted in "etcd-server_$etcd" "containerd_$containerd" "runc_$runc" "containernetworking-plugins_$cni"; do
        set -- "$wanted"[+~-]*_arm64.deb
        [ -e "$1" ] || {
            echo "Debian's package is not $wanted: $(echo *.deb)" >&2
            exit 1
        }
    done
}

# pack DIRECTORY TARBALL MEMBER: byte for byte the same on every run
pack() {
    mkdir -p "$(dirname "$2")"
    tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=gnu -cf - "$3" | gzip -n -1 >"$2.new"
    mv "$2.new" "$2"
}

pack_all() {
    github=$mirror/github.com
    mkdir -p $work/k8s/kubernetes/server/bin $work/containerd/bin "$work/etcd/etcd-v$etcd-linux-arm64"
    cp /lab/kubernetes/kube* $work/k8s/kubernetes/server/bin/
    pack $work/k8s "$mirror/dl.k8s.io/v$kubernetes/kubernetes-server-linux-arm64.tar.gz" kubernetes
    cp $root/usr/bin/etcd $root/usr/bin/etcdctl "$work/etcd/etcd-v$etcd-linux-arm64/"
    pack $work/etcd "$github/etcd-io/etcd/releases/download/v$etcd/etcd-v$etcd-linux-arm64.tar.gz" "etcd-v$etcd-linux-arm64"
    for program in containerd containerd-shim-runc-v2 ctr; do cp "$root/usr/bin/$program" $work/containerd/bin/; done
    pack $work/containerd "$github/containerd/containerd/releases/download/v$containerd/containerd-$containerd-linux-arm64.tar.gz" bin
    mkdir -p "$github/opencontainers/runc/releases/download/v$runc"
    cp $root/usr/sbin/runc "$github/opencontainers/runc/releases/download/v$runc/runc.arm64"
    pack $root/usr/lib/cni "$github/containernetworking/plugins/releases/download/v$cni/cni-plugins-linux-arm64-v$cni.tgz" .
}

# Packages of another processor are unpacked, not configured, and only extract hooks run: nginx gets the files that their
# scripts would make.
pack_images() {
    tar -C /lab/kubernetes --owner=0 --group=0 --mtime=@0 -cf /lab/rootfs/pause.tar pause
    # shellcheck disable=SC2016,SC2046 # mmdebstrap expands the hook's variable; one word a file
    mmdebstrap --quiet --mode=root --variant=extract --architectures=arm64 \
        --include=nginx-light,dash,base-passwd,libc-bin,bash,coreutils,grep,mawk,sed \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Check-Valid-Until "false"' \
        --extract-hook='cd "$1" && cp usr/share/base-passwd/passwd.master etc/passwd &&
            cp usr/share/base-passwd/group.master etc/group && mkdir -p etc/nginx/sites-enabled var/log/nginx var/www/html run &&
            ln -sf ../sites-available/default etc/nginx/sites-enabled/default && ln -sf dash usr/bin/sh &&
            ln -sf mawk usr/bin/awk && cp usr/share/nginx/html/index.html var/www/html/' \
        bookworm /lab/rootfs/nginx.tar $(find /etc/apt/sources.list /etc/apt/sources.list.d -type f 2>/dev/null) </dev/null
}

main
