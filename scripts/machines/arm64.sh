#!/bin/sh
# The artifacts of a machine with an arm64 processor, made of Debian's packages and sources as the lab's own are.
#
#   arm64.sh      make what is missing (about 20 minutes); needs Docker, and the lab's cache
#
# Leaves <lab cache>/machines/arm64: mirror/ with pins.yaml, images/{pause,nginx}.tar.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lab/common.sh"
target=$LAB_CACHE/machines/arm64
kubernetes=1.20.2 etcd=3.4.23 cni=1.1.1 containerd=1.6.20 runc=1.1.5
github=https://github.com

# component, URL: one line each
artifacts="kubernetes-server https://dl.k8s.io/v$kubernetes/kubernetes-server-linux-arm64.tar.gz
etcd $github/etcd-io/etcd/releases/download/v$etcd/etcd-v$etcd-linux-arm64.tar.gz
containerd $github/containerd/containerd/releases/download/v$containerd/containerd-$containerd-linux-arm64.tar.gz
runc $github/opencontainers/runc/releases/download/v$runc/runc.arm64
cni-plugins $github/containernetworking/plugins/releases/download/v$cni/cni-plugins-linux-arm64-v$cni.tgz"

main() {
    recipe="$(cat "$here/arm64.sh" "$here/../lab/pack-arm64.sh" "$here/../lab/kubernetes-source.sh" | sha256sum)"
    [ "$recipe" != "$(cat "$target/recipe" 2>/dev/null)" ] || return 0
    mkdir -p "$target/images"
    say "making the artifacts of arm64 (log: $target/log)"
    "$here/../lab/builder.sh" run "$target" nice -n 19 sh /scripts/pack-arm64.sh $kubernetes $etcd $cni $containerd $runc \
        >"$target/log" 2>&1 || {
        tail -20 "$target/log" >&2
        fail "the artifacts of arm64 cannot be made (log: $target/log)"
    }
    save_image pause registry.k8s.io/pause:3.2 'ENTRYPOINT ["/pause"]'
    save_image nginx nginx:1.22 'CMD ["nginx", "-g", "daemon off;"]'
    write_pins
    printf '%s\n' "$recipe" >"$target/recipe"
}

# save_image NAME REFERENCE CHANGE: under a name of its own in Docker, so that the lab's image keeps its name
save_image() {
    # not `docker import`, which calls it an image for this machine's processor
    printf 'FROM scratch\nADD %s.tar /\n%s\n' "$1" "$3" |
        DOCKER_BUILDKIT=0 docker build --quiet --platform linux/arm64 --file - --tag "$2-arm64" "$target/rootfs" >/dev/null
    docker save -o "$target/images/$1.tar" "$2-arm64"
    docker rmi "$2-arm64" >/dev/null
}

write_pins() {
    echo "artifacts:"
    printf '%s\n' "$artifacts" | while read -r component url; do
        digest=$(sha256sum "$target/mirror/${url#https://}" | cut -d' ' -f1)
        printf '  %s/arm64:\n    url: %s\n    sha256: %s\n' "$component" "$url" "$digest"
    done
} >"$target/mirror/pins.yaml"

main
