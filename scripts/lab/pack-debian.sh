#!/bin/sh
# Inside the builder container: pack Debian's programs into tarballs with the layout and names of upstream.
#
#   pack-debian.sh KUBERNETES ETCD DOCKER CNI CONTAINERD RUNC WRAP_RUNC(yes|no)
#
# Reads /lab/build/kubernetes-VERSION; leaves /lab/mirror/<upstream host>/<upstream path> and
# /lab/rootfs/{pause,nginx}.tar, the real runc as /lab/host/runc, and /lab/build/made-from.txt: a line
# for each component with the package URLs of what it was packed from.
# WRAP_RUNC=yes replaces runc with a wrapper that raises a negative oomScoreAdj to 0: on lab machines
# without CAP_SYS_RESOURCE runc cannot set it, and no pod would start.
set -eu
. /scripts/builder-apt.sh
kubernetes=$1 etcd=$2 docker=$3 cni=$4 containerd=$5 runc=$6 wrap_runc=$7
work=/tmp/work

main() {
    use_host_apt
    apt-get install -qq -y mmdebstrap >/dev/null 2>&1
    mkdir -p $work/deb $work/root /lab/mirror /lab/rootfs /lab/host
    cd $work/deb
    chmod 777 $work/deb
    apt-get download -qq etcd-server etcd-client docker.io containerd runc tini containernetworking-plugins
    for package in *.deb; do dpkg-deb -x "$package" $work/root; done
    check_version "$($work/root/usr/bin/etcd --version | head -1)" "$etcd"
    pack_kubernetes
    pack_etcd
    pack_docker
    pack_containerd
    pack_cni
    make_nginx_root
    make_pause_root
    write_made_from >/lab/build/made-from.txt.new
    mv /lab/build/made-from.txt.new /lab/build/made-from.txt
}

check_version() { case $1 in *" $2"*) ;; *)
    echo "Debian's package is '$1', not $2" >&2
    exit 1
    ;;
esac }

# pack DIRECTORY TARBALL MEMBER...: byte for byte the same on every run
pack() {
    mkdir -p "$(dirname "$2")"
    target=$2 directory=$1
    shift 2
    tar -C "$directory" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=gnu -cf - "$@" |
        gzip -n -1 >"$target.new"
    mv "$target.new" "$target"
}

pack_kubernetes() {
    dir=$work/k8s/kubernetes/server/bin
    mkdir -p "$dir"
    for program in kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy; do
        cp "/lab/build/kubernetes-$kubernetes/$program" "$dir/"
    done
    pack $work/k8s "/lab/mirror/dl.k8s.io/v$kubernetes/kubernetes-server-linux-amd64.tar.gz" kubernetes
}

pack_etcd() {
    name=etcd-v$etcd-linux-amd64
    mkdir -p "$work/etcd/$name"
    cp $work/root/usr/bin/etcd $work/root/usr/bin/etcdctl "$work/etcd/$name/"
    pack $work/etcd "/lab/mirror/github.com/etcd-io/etcd/releases/download/v$etcd/$name.tar.gz" "$name"
}

pack_docker() {
    dir=$work/docker/docker
    mkdir -p "$dir"
    for program in dockerd docker docker-proxy docker-init containerd containerd-shim containerd-shim-runc-v2 ctr runc; do
        cp -L "$(find $work/root/usr/bin $work/root/usr/sbin -name $program | head -1)" "$dir/$program"
    done
    # Debian's docker-init is a link to tini
    cp "$dir/runc" /lab/host/runc
    if [ "$wrap_runc" = yes ]; then cp /scripts/runc-wrapper "$dir/runc"; fi
    chmod 0755 "$dir"/*
    pack $work/docker "/lab/mirror/download.docker.com/linux/static/stable/x86_64/docker-$docker.tgz" docker
}

# After pack_docker: the same programs, as containerd and runc publish them.
pack_containerd() {
    check_version "$($work/root/usr/bin/containerd --version)" "$containerd"
    check_version "$(/lab/host/runc --version | head -1)" "$runc"
    mkdir -p $work/containerd/bin
    for program in containerd containerd-shim-runc-v2 ctr; do cp "$work/docker/docker/$program" $work/containerd/bin/; done
    base=/lab/mirror/github.com
    pack $work/containerd "$base/containerd/containerd/releases/download/v$containerd/containerd-$containerd-linux-amd64.tar.gz" bin
    mkdir -p "$base/opencontainers/runc/releases/download/v$runc"
    cp "$work/docker/docker/runc" "$base/opencontainers/runc/releases/download/v$runc/runc.amd64"
}

pack_cni() {
    mkdir -p $work/cni
    cp $work/root/usr/lib/cni/* $work/cni/
    pack $work/cni "/lab/mirror/github.com/containernetworking/plugins/releases/download/v$cni/cni-plugins-linux-amd64-v$cni.tgz" .
}

make_nginx_root() {
    # shellcheck disable=SC2046 # one word a file
    mmdebstrap --quiet --mode=root --variant=essential --include=nginx-light \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Check-Valid-Until "false"' \
        bookworm /lab/rootfs/nginx.new.tar $(find /etc/apt/sources.list /etc/apt/sources.list.d -type f 2>/dev/null) </dev/null
    mv /lab/rootfs/nginx.new.tar /lab/rootfs/nginx.tar
}

# Kubernetes is not here: its programs are compiled from upstream's source.
write_made_from() {
    echo "etcd $(purl etcd-server) $(purl etcd-client)"
    echo "docker $(purl docker.io) $(purl containerd) $(purl runc) $(purl tini)"
    echo "containerd $(purl containerd)"
    echo "runc $(purl runc)"
    echo "cni-plugins $(purl containernetworking-plugins)"
}

# purl PACKAGE: its package URL, with the source package, which advisories are about
purl() {
    version=$(field "$1" Version) source=$(field "$1" Source) release=$(. /etc/os-release && echo "$ID-$VERSION_ID")
    : "${source:=$1}"
    case $source in *\(*) source=$(echo "$source" | sed 's/ (\(.*\))/@\1/') ;; esac
    echo "pkg:deb/debian/$1@$(encode "$version")?distro=$release&upstream=$(encode "$source")"
}

field() { dpkg-deb -f $work/deb/"$1"_*.deb "$2"; }
encode() { echo "$1" | sed 's/+/%2B/g; s/:/%3A/g; s/@/%40/g'; }

make_pause_root() {
    tar -C "/lab/build/kubernetes-$kubernetes" --owner=0 --group=0 --mtime=@0 -cf /lab/rootfs/pause.tar.new pause
    mv /lab/rootfs/pause.tar.new /lab/rootfs/pause.tar
}

main
